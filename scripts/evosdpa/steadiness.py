"""Which measurements count: a process whose clock, neighbours or reference kernel were off is rejected, with the reason."""

from __future__ import annotations

import statistics
from typing import Any

Chunk = tuple[int, str, str]
"""Process, problem, mode: the unit that is accepted or rejected, with everything that was timed in it."""

CLOCK_BAND = 0.02
"""A chunk's SM clock may be so far off the median of its problem and mode over all processes. Not an absolute limit: a card that
always runs below its default clock would lose everything (NVBench's issue 231)."""

REFERENCE_BAND = 0.02
"""So may the reference kernel's time, the floor that moves every byte once: it does the same in every process. Measured on an H200, its
process medians lie within 0.3 % of each other in a run of few subjects and within 1.4 % in a run of many; PyTorch's SDPA, the
anchor, is no such reference, as it is 1.5 % faster in some processes than in others for reasons of its own."""

REFERENCE_MODES = ("warm", "stream")
"""Modes in which the reference kernel tells something: those that divide a long interval by many launches. A cold time is one launch
between two events, whose own resolution is a tenth of the reference kernel's time; eager times are the host's."""

LATE_SHARE = 0.05
"""Share of samples that may be dropped because the host had not queued everything in time; one always may."""

THROTTLED = {0x08: "hardware slowdown", 0x20: "software thermal slowdown", 0x40: "hardware thermal slowdown", 0x80: "power brake"}
"""Bits of NVML's clocks event reasons that make a time wrong. The software power cap (0x04) is no such bit: under a heavy kernel it
is how the card behaves."""

RETRIES = 3
"""Further processes to make up for rejected ones; then the time is published as unstable."""


def _clock(entry: dict[str, Any]) -> float | None:
    """The SM clock of a chunk, MHz: the median while it ran, else that before and after it."""
    during = (entry.get("during") or {}).get("sm_mhz")
    around = [one["sm_mhz"] for one in (entry.get("before") or {}, entry.get("after") or {}) if "sm_mhz" in one]
    return during or (statistics.median(around) if around else None)


def _bits(entry: dict[str, Any]) -> int:
    bits = 0
    for part in ("before", "during", "after"):
        bits |= (entry.get(part) or {}).get("throttle_reasons", 0)
    return bits


def _off(values: dict[Chunk, float], band: float) -> dict[Chunk, float]:
    """How far each value is off the median of its problem and mode, for those beyond the band."""
    groups: dict[tuple[str, str], list[float]] = {}
    for (_, problem, mode), value in values.items():
        groups.setdefault((problem, mode), []).append(value)
    off = {chunk: value / statistics.median(groups[chunk[1:]]) - 1 for chunk, value in values.items()}
    return {chunk: share for chunk, share in off.items() if abs(share) > band}


def rejections(clocks: list[dict[str, Any]], reference_us: dict[Chunk, float]) -> dict[Chunk, str]:
    """The chunks that do not count, with the reason.

    `clocks` are a bench's records, one a chunk: process, problem, mode, before, during and after (sm_mhz, throttle_reasons,
    processes), late, samples. `reference_us` is the median time of the reference kernel in each chunk.
    """
    entries = {(one["process"], one["problem"], one["mode"]): one for one in clocks}
    clock_off = _off({chunk: mhz for chunk, one in entries.items() if (mhz := _clock(one))}, CLOCK_BAND)
    reference_off = _off({chunk: time_us for chunk, time_us in reference_us.items() if chunk[2] in REFERENCE_MODES}, REFERENCE_BAND)
    found: dict[Chunk, str] = {}
    for chunk, entry in entries.items():
        reasons = [name for bit, name in THROTTLED.items() if _bits(entry) & bit]
        others = max(((entry.get(part) or {}).get("processes", 1) for part in ("before", "after")), default=1) - 1
        late, samples = entry.get("late", 0), entry.get("samples", 0)
        if others > 0:
            reasons.append(f"{others} other process{'es' if others > 1 else ''} on the GPU")
        if chunk in clock_off:
            reasons.append(f"SM clock {100 * clock_off[chunk]:+.1f} % off the other processes'")
        if chunk in reference_off:
            reasons.append(f"the reference kernel took {100 + 100 * reference_off[chunk]:.1f} % of its time in the other processes")
        if late > max(1, LATE_SHARE * (late + samples)):
            reasons.append(f"the host was late for {late} of {late + samples} samples")
        if reasons:
            found[chunk] = "; ".join(reasons)
    return found
