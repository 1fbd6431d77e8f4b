"""Where a variant's time goes: from the launch floor over the bound of its work to what was measured, step by step.

The model is the time line of one average warp. A warp is in one state at each cycle, so the states of its life may be added; what
overlaps in time is never added:

1. **Launch**: `floor_empty`, measured in the same processes and mode.
2. **Bound**: moving the bytes (`floor_bytes` minus `floor_empty`, measured), the products at the tensor cores' peak and the exponentials
   at the special-function units' (both modelled, at the SM clock of the timing, all SMs busy) can all go on at once. Only the longest is
   added; the other two are named.
3. **Idle SMs**: products and exponentials are done SM by SM, and the SM with the most CTAs has ceil(CTAs / SMs) of them, so these
   two limits grow by ceil(CTAs / SMs) x SMs / CTAs. Added is what the longest limit grows by: nothing as long as the bytes bind. A grid of
   more than one wave idles besides in its last one: ceil(waves) - waves of a warp's life. The larger of the two counts, since the first
   is part of the second. CTAs are taken to have equal work.
4. **Waits and issuing**: a warp lives for (its instructions) x (cycles between two of them), both from the profile, once for each wave.
   The bound's work is done within that life, so only what exceeds steps 2 and 3 is split, in proportion to the states of the warp:
   waiting for memory, for shared memory or special functions, for other things, issuing. Extra cycles of bank conflicts are taken
   out of the second, never added to it.
5. **Unexplained**: the measured time minus all that. Negative when the model explains more than was measured.

What it cannot say. A step is no promise: take one wait away and warps may wait for the next thing. The profile is of one launch with
flushed caches; the timing is not, least of all in mode warm. The split of step 4 assumes that the bound's own time is spread over the
states like the rest. Kernels that overlap each other's launches, or compute exponentials on other units, can beat steps 1 and 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from evosdpa import waiting
from evosdpa.finite import finite
from evosdpa.peaks import Peaks
from evosdpa.problem import Problem

MEASURED, MODELLED = "measured", "modelled"

INSTRUCTIONS = "smsp__inst_executed.sum"
CONFLICTS = "l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum"
WAVES = "launch__waves_per_multiprocessor"

GROUPS = {
    "memory": ("long_scoreboard", "lg_throttle", "membar", "drain", "imc_miss"),
    "shared": ("short_scoreboard", "mio_throttle"),
    "issue": ("selected", "not_selected"),
}
"""States of a warp by the step that they belong to; every other one belongs to `other`. `not_selected` could have issued but another warp did."""

LABELS = {
    "launch": "launch", "bytes": "moving the bytes", "flops": "products on tensor cores", "exps": "exponentials", "idle": "idle SMs, last wave",
    "memory": "waits for memory", "conflicts": "bank conflicts", "shared": "waits for shared memory, exps", "other": "other waits",
    "issue": "issuing instructions", "unexplained": "unexplained", "measured": "measured",
}
BOUNDS = ("bytes", "flops", "exps")
STATES = ("memory", "conflicts", "shared", "other", "issue")


@dataclass(frozen=True)
class Step:
    """One step of the waterfall; `us` may be negative for the unexplained one alone."""

    key: str
    us: float
    basis: str
    note: str = ""

    @property
    def label(self) -> str:
        """The step in words."""
        return LABELS[self.key]


@dataclass(frozen=True)
class Life:
    """The life of an average warp, by what it does. Of several kernels in a launch: their sum."""

    cycles: float
    """SM cycles from the first wave's start to the last one's end."""
    tail_cycles: float
    """Of these, what a last wave that is not full costs; 0 for a grid of one wave or less."""
    states: dict[str, float]
    """Cycles by stall reason (profiling.STALL_REASONS); they add up to `cycles`."""
    conflict_cycles: float
    """Cycles that bank conflicts keep the busiest SMs' shared memory busy in addition."""

    def shares(self) -> dict[str, float]:
        """Share of the life (0 to 1) by the step that a state belongs to."""
        found = dict.fromkeys((*GROUPS, "other"), 0.0)
        for reason, cycles in self.states.items():
            found[group_of(reason)] += cycles / self.cycles
        return found


@dataclass(frozen=True)
class Waterfall:
    """All steps of one variant in one mode, microseconds. Steps and the unexplained part add up to the measured time."""

    steps: tuple[Step, ...]
    measured_us: float
    missing: tuple[str, ...] = ()
    """What the model lacks, in words; the unexplained part holds it."""
    overlapped: dict[str, float] = field(default_factory=dict)
    """Limits that go on at the same time as the bound and are not added, microseconds."""
    profiled: bool = False

    @property
    def unexplained_us(self) -> float:
        """The measured time minus every step."""
        return self.measured_us - sum(step.us for step in self.steps)

    @property
    def bound(self) -> Step | None:
        """The step that is the bound of the work, if any limit is known."""
        return next((step for step in self.steps if step.key in BOUNDS), None)

    def step(self, key: str) -> Step | None:
        """A step by its key."""
        return next((step for step in self.steps if step.key == key), None)


def group_of(reason: str) -> str:
    """The step to which a state of a warp belongs."""
    return next((group for group, reasons in GROUPS.items() if reason in reasons), "other")


def stretch(blocks: float | None, sms: float | None) -> float | None:
    """How much longer work that is done SM by SM takes than if all SMs shared it: the fullest SM's CTAs over the average. None when unknown."""
    if not blocks or not sms:
        return None
    return math.ceil(blocks / sms) * sms / blocks


def life(kernels: list[dict[str, Any]], sms: float | None) -> Life | None:
    """The life of an average warp from a profile's kernels on one problem; None unless each has instructions, stall states and its launch.

    A state's metric is the warps in it per issued instruction, so their sum is the cycles between two instructions of a warp, and that
    times the instructions of a warp is its life.
    """
    cycles = tail = conflicts = 0.0
    states: dict[str, float] = {}
    for kernel in kernels:
        metrics = kernel.get("metrics") or {}
        between, instructions = waiting.states(metrics), finite(metrics.get(INSTRUCTIONS))
        blocks, threads = (math.prod(kernel.get(size) or [0]) for size in ("grid", "block"))
        if not instructions or not sum(between.values()) or not blocks or not threads:
            return None
        per_warp = instructions / (blocks * math.ceil(threads / 32))
        waves = finite(metrics.get(WAVES)) or 0.0
        rounds = max(1, math.ceil(waves))
        for reason, value in between.items():
            states[reason] = states.get(reason, 0.0) + value * per_warp * rounds
        cycles += sum(between.values()) * per_warp * rounds
        tail += sum(between.values()) * per_warp * (rounds - waves) if waves > 1 else 0.0
        conflicts += (finite(metrics.get(CONFLICTS)) or 0.0) / min(blocks, sms or blocks)
    return Life(cycles, tail, states, conflicts) if cycles else None


def limits(problem: Problem, peaks: Peaks | None, mhz: float | None, empty_us: float | None, bytes_us: float | None) -> dict[str, tuple[float, str]]:
    """What the work takes at least, besides the launch: microseconds and basis by limit, as far as known, all SMs busy."""
    found: dict[str, tuple[float, str]] = {}
    if empty_us is not None and bytes_us is not None:
        found["bytes"] = (max(0.0, bytes_us - empty_us), MEASURED)
    if peaks and mhz:
        if problem.dtype != "fp32":  # the peak is that of 16-bit inputs
            found["flops"] = (peaks.flops_us(problem.flops, mhz), MODELLED)
        found["exps"] = (peaks.exps_us(problem.pairs, mhz), MODELLED)
    return found


def waterfall(measured_us: float, problem: Problem, *, empty_us: float | None = None, bytes_us: float | None = None, peaks: Peaks | None = None,
              mhz: float | None = None, blocks: float | None = None, sms: float | None = None, kernels: list[dict[str, Any]] | None = None) -> Waterfall:
    """The steps up to a measured time.

    `empty_us` and `bytes_us` are the floors of the same mode (bytes including its launch); `mhz` is the SM clock of the timing; `blocks` the
    CTAs of the grid on `sms` multiprocessors; `kernels` the profile's entries for the problem (metrics, grid, block). What is None is not
    modelled and named in `missing`.
    """
    steps: list[Step] = []
    missing: list[str] = []
    if empty_us is None:
        missing.append("the launch floor")
    else:
        steps.append(Step("launch", empty_us, MEASURED, "an empty kernel in the same mode"))
    known = limits(problem, peaks, mhz, empty_us, bytes_us)
    missing += [f"the limit of {what}" for key, what in (("bytes", "bytes"), ("flops", "products"), ("exps", "exponentials")) if key not in known]
    work = max((us for us, _ in known.values()), default=0.0)
    bound = next((key for key, (us, _) in known.items() if us == work), None)
    overlapped = {key: us for key, (us, _) in known.items() if key != bound}
    if bound:
        steps.append(Step(bound, work, known[bound][1], "bounds the work; goes on at the same time and is not added: "
                          + ", ".join(f"{LABELS[key]} {us:.2f} µs" for key, us in overlapped.items()) if overlapped else "the only limit that is known"))

    alive = life(kernels or [], sms) if mhz else None
    life_us = alive.cycles / mhz if alive and mhz else 0.0
    grown = stretch(blocks, sms)
    idle = 0.0
    if bound and grown:
        idle = max(us * (1.0 if key == "bytes" else grown) for key, (us, _) in known.items()) - work
    if alive and mhz:
        idle = max(idle, min(alive.tail_cycles / mhz, life_us - work))
    if grown is None:
        missing.append("idle SMs (grid or number of SMs unknown)")
    else:
        steps.append(Step("idle", idle, MODELLED, _idle_note(blocks, sms, bound, idle)))

    if alive is None:
        missing.append("what warps wait for (no profile)" if not kernels or mhz else "what warps wait for (SM clock unknown)")
    else:
        rest = max(0.0, life_us - work - idle)
        parts = {group: share * rest for group, share in alive.shares().items()}
        conflicts = min(alive.conflict_cycles / mhz, parts["shared"])
        parts.update(conflicts=conflicts, shared=parts["shared"] - conflicts)
        steps += [Step(key, parts[key], MODELLED, _largest(alive, key)) for key in STATES]
    return Waterfall(tuple(steps), measured_us, tuple(missing), overlapped, alive is not None)


def _idle_note(blocks: float | None, sms: float | None, bound: str | None, idle: float) -> str:
    """The grid on the chip, and why it costs nothing where it does."""
    grid = f"{blocks:.0f} CTAs on {sms:.0f} SMs"
    return f"{grid}; the bytes bind, wherever they are asked for" if not idle and bound == "bytes" and blocks and sms and blocks % sms else grid


def _largest(alive: Life, key: str) -> str:
    """The one or two largest states of a step, with their shares of a warp's life."""
    if key == "conflicts":
        return f"cycles that an SM’s shared memory needs in addition: {alive.conflict_cycles:,.0f}; taken out of the waits for it"
    found = sorted(((cycles / alive.cycles, reason) for reason, cycles in alive.states.items() if group_of(reason) == key and cycles > 0), reverse=True)
    return ", ".join(f"{reason.replace('_', ' ')} {share:.0%}" for share, reason in found[:2]) + (" of a warp’s life" if found else "none seen")
