"""What a profile says that a kernel's warps wait for, in a few words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from evosdpa.evidence import Profile, Status
from evosdpa.finite import finite
from evosdpa.profiling import STALL

DURATION = "gpu__time_duration.sum"
ISSUE = "smsp__issue_active.avg.pct_of_peak_sustained_active"
NO_WAIT = ("selected", "not_selected")
"""States of a warp that issues, or could have issued had another not been picked."""
SECOND = 0.25
"""The second reason is named when it is at least this share of the first."""

MEANING = {
    "long_scoreboard": "data from global or local memory",
    "short_scoreboard": "data from shared memory or a special-function result",
    "math_pipe_throttle": "a busy arithmetic pipe",
    "mio_throttle": "room in the queue to shared memory and special functions",
    "lg_throttle": "room in the queue to global memory",
    "barrier": "the CTA's other warps at a barrier",
    "membar": "a memory fence",
    "wait": "the fixed latency of the instruction before",
    "sleeping": "a nanosleep to end",
    "no_instruction": "an instruction to be fetched",
    "branch_resolving": "a branch's target",
    "dispatch_stall": "the dispatch unit",
    "drain": "its stores, before it exits",
    "imc_miss": "a constant from memory",
    "gmma": "the tensor cores' asynchronous products",
}
"""Nsight Compute's reasons for which a warp does not issue (profiling.STALL_REASONS): what it waits for."""


@dataclass(frozen=True)
class Waiting:
    """What the warps of a problem's longest kernel do instead of issuing."""

    reasons: tuple[tuple[str, float], ...]
    """The one or two largest stall reasons, each with its share (0 to 1) of the cycles between two instructions of a warp."""
    cycles: float
    """Cycles between two instructions of a warp: what all states of a warp add up to."""
    issue_percent: float | None
    """Cycles in which a scheduler that has a warp issues (its slots used), percent; None where that was not read."""
    kernels: int
    """Kernels that a launch runs."""

    def __str__(self) -> str:
        named = ", ".join(f"{reason.replace('_', ' ')} {share:.0%}" for reason, share in self.reasons) or "no stall"
        issues = "" if self.issue_percent is None else f"; issue slots {self.issue_percent:.0f}% used"
        longest = f" (longest of {self.kernels} kernels)" if self.kernels > 1 else ""
        return f"{named} of {self.cycles:.1f} cycles an instruction{issues}{longest}"


def states(metrics: dict[str, Any]) -> dict[str, float]:
    """Cycles between two instructions of a warp by the state that it is in, as far as they are finite numbers."""
    start, end = STALL.split("{}")
    return {name[len(start):-len(end)]: float(value) for name, value in sorted(metrics.items())
            if name.startswith(start) and name.endswith(end) and finite(value) is not None}


def stalls(found: dict[str, float]) -> list[tuple[str, float]]:
    """The states that are waits, with their cycles, the largest first."""
    return sorted(((reason, value) for reason, value in found.items() if reason not in NO_WAIT and value > 0), key=lambda pair: (-pair[1], pair[0]))


def waits(profile: Profile, problem: str) -> Waiting | None:
    """What the profile's longest kernel on a problem waits for; None where it holds no stall metrics for that problem.

    A metric is the warps stalled for a reason per issued instruction, so all of them, with the issuing state, add up to the cycles
    between two instructions of a warp, and a reason's share of that sum is the share of a warp's time that it takes.
    """
    kernels = [one["metrics"] for one in profile.results if one["problem"] == problem and one.get("metrics")]
    if profile.status is not Status.OK or not kernels:
        return None
    metrics = max(kernels, key=lambda metrics: metrics.get(DURATION, 0.0))
    found = states(metrics)
    cycles = sum(found.values())
    if cycles <= 0:
        return None
    ranked = stalls(found)
    named = [pair for pair in ranked[:2] if pair[1] >= SECOND * ranked[0][1]]
    return Waiting(tuple((reason, value / cycles) for reason, value in named), cycles, metrics.get(ISSUE), len(kernels))


def meaning(reasons: Iterable[str]) -> str:
    """What the named reasons mean, one after the other; a reason unknown here stands for itself."""
    return "; ".join(f"*{reason.replace('_', ' ')}*: {MEANING.get(reason, reason)}" for reason in reasons)
