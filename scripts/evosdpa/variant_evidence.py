"""What gap.json holds about one variant, as numbers that rules can ask for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from evosdpa import problem as problems, waiting
from evosdpa.finite import finite
from evosdpa.problem import Problem
from evosdpa.waiting import DURATION

CLOCK = "sm__cycles_elapsed.avg.per_second"


@dataclass(frozen=True)
class Evidence:
    """What gap.json holds about one variant on one device and the goal's problem, as far as rules ask for it."""

    name: str
    problem: Problem | None = None
    arch: str = ""
    """For example sm_90a."""
    times_us: dict[str, float] = field(default_factory=dict)
    """By mode; only times of a variant that is right."""
    floors_us: dict[str, dict[str, float]] = field(default_factory=dict)
    """By floor and mode, timed in the variant's own processes."""
    vs_floor: dict[str, float] = field(default_factory=dict)
    """Time over the slowest floor's, by mode."""
    launch: dict[str, Any] = field(default_factory=dict)
    """Static facts of the goal's launch: blocks, sms, waves, blocks_per_sm, limiter, occupancy (0 to 1)."""
    spill_bytes: float | None = None
    instructions: dict[str, float] = field(default_factory=dict)
    """SASS opcode families of the kernel with their counts in the code, not in a run."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Nsight Compute's, of the longest kernel."""
    kernels: int = 0
    """Kernels that a launch runs, as profiled."""
    levers: dict[str, int | str] = field(default_factory=dict)
    """What levers have, by the variant's name or the source's own default."""
    declared: dict[str, tuple[int | str, ...]] = field(default_factory=dict)
    defaults: dict[str, int | str] = field(default_factory=dict)
    stale: frozenset[str] = frozenset()
    """Of static, profile, times and floors: those whose source, flags or protocol changed since."""

    def metric(self, start: str) -> float | None:
        """The metric whose name begins so."""
        return next((value for name, value in sorted(self.metrics.items()) if name.startswith(start)), None)

    @property
    def states(self) -> dict[str, float]:
        """Cycles between two instructions of a warp, by the state that the warp is in."""
        return waiting.states(self.metrics)

    def waits(self, *reasons: str) -> float:
        """The share (0 to 1) of a warp's time that it waits for these reasons together; 0 where none was read."""
        states = self.states
        return sum(states.get(reason, 0.0) for reason in reasons) / cycles if (cycles := sum(states.values())) > 0 else 0.0

    @property
    def busy_sms(self) -> float | None:
        """SMs that get a CTA."""
        blocks, sms = self.launch.get("blocks"), self.launch.get("sms")
        return min(blocks, sms) if blocks and sms else None

    @property
    def cycles(self) -> float | None:
        """SM cycles that the profiled kernel took."""
        duration, clock = self.metrics.get(DURATION), self.metrics.get(CLOCK)
        return duration * 1e-9 * clock if duration and clock else None


def of(document: dict[str, Any], fact: dict[str, Any]) -> Evidence:
    """The evidence about one entry of gap.json's variants. What is missing, of another type or not finite is left out."""
    goal, name, device = document["goal"].get("problem"), str(fact.get("name") or ""), fact.get("device")
    try:
        problem = problems.parse(str(goal))
    except ValueError:
        problem = None
    times, over = {}, {}
    for row in document["rows"]:
        if (row.get("kind"), row.get("name"), row.get("device"), row.get("problem"), row.get("status")) != ("variant", name, device, goal, "ok"):
            continue
        mode = str(row.get("mode"))
        times |= {mode: row["time_us"]} if (finite(row.get("time_us")) or 0.0) > 0 else {}
        over |= {mode: row["vs_floor"]} if finite(row.get("vs_floor")) is not None else {}
    profiled = [one for one in fact.get("profile") or [] if one.get("problem") == goal and one.get("metrics")]
    longest = max((_numbers(one["metrics"]) for one in profiled), key=lambda metrics: metrics.get(DURATION, 0.0), default={})
    launch = {key: value for key, value in (fact.get("launch") or {}).items() if finite(value) is not None or isinstance(value, str)}
    defaults = fact.get("default_levers") or {}
    steps, static = fact.get("steps") or {}, fact.get("static") or {}
    stale = {step for step, is_stale in (("static", static.get("stale")), ("profile", (steps.get("profile") or {}).get("stale")), ("times", fact.get("stale")),
                                         ("floors", fact.get("stale"))) if is_stale}
    return Evidence(
        name=name, problem=problem, arch=str((fact.get("build") or {}).get("arch") or ""), times_us=times, vs_floor=over,
        floors_us=_by_name(fact.get("floors") or {}),
        launch=launch, spill_bytes=finite(fact.get("spill_bytes")),
        instructions=_numbers(fact.get("instructions") or {}), metrics=longest, kernels=len(profiled), levers={**defaults, **(fact.get("levers") or {})},
        declared={lever: tuple(values) for lever, values in (fact.get("declared_levers") or {}).items()}, defaults=defaults, stale=frozenset(stale))


def _by_name(floors: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Times of floors by name and mode, from what gap.json holds by mode and name."""
    found: dict[str, dict[str, float]] = {}
    for mode, times in floors.items():
        for name, time_us in (_numbers(times) if isinstance(times, dict) else {}).items():
            found.setdefault(name, {})[str(mode)] = time_us
    return found


def _numbers(values: dict[str, Any]) -> dict[str, float]:
    return {str(name): float(value) for name, value in values.items() if finite(value) is not None}
