"""How a variant stands by its own evidence: what its steps say together, and whether a time can be believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evosdpa import stats, variants
from evosdpa.evidence import Status, Timing
from evosdpa.rival_names import ANCHOR
from evosdpa.stats import Estimate
from evosdpa.timings import OVERLAP_SHARE


def of_steps(records: Mapping[str, Any]) -> tuple[Status, str]:
    """How what was measured stands, from its evidence by kind: the first of verify, bench and the sanitizer that says no decides, with
    its reason."""
    for kind in ("verify", "bench"):
        record = records.get(kind)
        if record is None:
            return Status.NOT_RUN, f"no {kind} evidence"
        if record.status is not Status.OK:
            return record.status, record.reason
    sanitized = records.get("sanitize")
    if sanitized is not None and sanitized.status in (Status.FAILED, Status.ERROR, Status.TIMEOUT):
        return sanitized.status, f"compute-sanitizer {sanitized.reason}"
    return Status.OK, ""


def anchor_beside(timing: Timing, company: list[Timing]) -> Timing | None:
    """The anchor's good time of the same processes, problem and mode; None where there is none."""
    return next((one for one in company if one.name == ANCHOR and one.status is Status.OK and (one.problem, one.mode) == (timing.problem, timing.mode)
                 and len(one.process_medians_us) == len(timing.process_medians_us)), None)


def over_floor(timing: Timing, company: Sequence[Timing]) -> tuple[str, Estimate] | None:
    """The slowest floor of the same processes, problem and mode, and the time over it; None without a floor."""
    floors = [one for one in company if one.name in variants.floors() and one.time_us and (one.problem, one.mode) == (timing.problem, timing.mode)
              and len(one.process_medians_us) == len(timing.process_medians_us)]
    if not floors:
        return None
    slowest = max(floors, key=lambda one: one.time_us or 0.0)
    return slowest.name, stats.ratio_within(timing.process_medians_us, slowest.process_medians_us)


def overlapping(timings: Sequence[Timing]) -> dict[str, str]:
    """Problems on which a variant's launches overlap, with the reason. The kernels' own record is taken in mode warm; what it says of launches in a
    row holds for mode stream, which rotates the inputs of the same launches."""
    return {one.problem: f"launches overlap, says the record of mode warm: {one.reason}" for one in timings
            if one.mode == "warm" and one.status is Status.SUSPECT and one.span.get("overlapped", 0) > OVERLAP_SHARE * one.span.get("launches", 0)}


def suspicion(floor: str, ratio: Estimate) -> str:
    """Why a variant's time cannot be believed: it is surely faster than a floor. Empty when it can."""
    interval = ratio.interval()
    return f"faster than {floor}, which no kernel can be: {ratio.value:.2f} of its time" if interval and interval[1] < 1 else ""
