"""What each process of a bench measured: its median, its clock, and whether it counts."""

from __future__ import annotations

import csv
import gzip
import re
from pathlib import Path
from typing import Any

from evosdpa import stats
from evosdpa.evidence import REMEDY, SAMPLES, Bench, EvidenceError

_REJECTED = re.compile(r"process (\d+): (.*)", re.DOTALL)


def process_times(path: Path, bench: Bench, problem: str, modes: list[str]) -> list[dict[str, Any]]:
    """The processes of the variant of a bench.json at `path` on a problem, mode by mode; nothing for a bench without clocks (a CPU's).

    One entry a process: mode, process, median_us (of all its samples, microseconds), accepted, reason, samples, late (samples dropped because
    the host was late), and the SM clock while it ran: sm_mhz (median), sm_mhz_min, sm_mhz_max, MHz. Raises EvidenceError in one line when the
    samples cannot be read.
    """
    found = []
    clocks = {(one.get("process"), one.get("mode")): one for one in bench.clocks if one.get("problem") == problem and _mhz(one)}
    if not clocks:
        return []
    medians = _medians(path.with_name(SAMPLES), bench.variant, problem)
    for timing in bench.timings:
        if timing.problem != problem or timing.mode not in modes:
            continue
        rejected = {int(match[1]): match[2] for match in map(_REJECTED.fullmatch, timing.rejected) if match}
        for (process, mode), clock in clocks.items():
            if mode == timing.mode and (process, mode) in medians:
                during = clock.get("during") or {}
                found.append(dict(mode=mode, process=process, median_us=medians[process, mode], accepted=process not in rejected, reason=rejected.get(process, ""),
                                  samples=clock.get("samples"), late=clock.get("late"), sm_mhz=_mhz(clock), sm_mhz_min=during.get("sm_mhz_min"),
                                  sm_mhz_max=during.get("sm_mhz_max")))
    return sorted(found, key=lambda one: (modes.index(one["mode"]), one["process"]))


def _mhz(clock: dict[str, Any]) -> float | None:
    """SM clock of a process in a mode, MHz: while it ran, else around it; None where nobody read it."""
    around = [mhz for when in ("before", "after") if (mhz := (clock.get(when) or {}).get("sm_mhz"))]
    return (clock.get("during") or {}).get("sm_mhz") or (stats.quantile(around, 0.5) if around else None)


def _medians(path: Path, name: str, problem: str) -> dict[tuple[int, str], float]:
    """Median of the samples of a name on a problem by process and mode, microseconds."""
    samples: dict[tuple[int, str], list[float]] = {}
    try:
        with gzip.open(path, "rt", newline="") as file:
            for row in csv.DictReader(file):
                if (row["name"], row["problem"]) == (name, problem):
                    samples.setdefault((int(row["process"]), row["mode"]), []).append(float(row["time_us"]))
    except (OSError, EOFError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise EvidenceError(f"{path}: cannot be read as samples ({error}); {REMEDY}") from None
    return {place: round(stats.quantile(times, 0.5), 5) for place, times in samples.items()}
