"""Whether the SM clock explains what the processes of a variant differ by, from gap.json."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any

from evosdpa import stats
from evosdpa.page import words

EXPLAINED = 0.5
"""The clock explains a spread when counting in cycles leaves less than this share of it."""


@dataclass(frozen=True)
class Subject:
    """One variant's processes in one mode."""

    name: str
    processes: tuple[dict[str, Any], ...]
    span: dict[str, Any]

    @property
    def accepted(self) -> list[dict[str, Any]]:
        """Processes whose samples count; all of them where none does."""
        return [one for one in self.processes if one["accepted"]] or list(self.processes)

    @property
    def time_us(self) -> float:
        """Geometric mean of the accepted medians, microseconds."""
        return math.exp(statistics.fmean(math.log(one["median_us"]) for one in self.accepted))

    def off(self, process: dict[str, Any]) -> float:
        """A process's median over the variant's time, less 1."""
        return process["median_us"] / self.time_us - 1

    @property
    def reach(self) -> float:
        """From the fastest accepted process to the slowest, as a share of the time."""
        medians = [one["median_us"] for one in self.accepted]
        return (max(medians) - min(medians)) / self.time_us

    @property
    def clock(self) -> tuple[float, float]:
        """Lowest and highest clock of the accepted processes, MHz."""
        return min(one["sm_mhz"] for one in self.accepted), max(one["sm_mhz"] for one in self.accepted)

    @property
    def left(self) -> float | None:
        """Spread of the cycles over that of the times; None where the clock or the time does not differ, or with fewer than three processes."""
        if len(self.accepted) < 3 or self.clock[0] == self.clock[1]:
            return None
        times = statistics.stdev(math.log(one["median_us"]) for one in self.accepted)
        cycles = statistics.stdev(math.log(one["median_us"] * one["sm_mhz"]) for one in self.accepted)
        return cycles / times if times else None


@dataclass(frozen=True)
class Spread:
    """The best variants' processes in one mode."""

    mode: str
    device_words: str
    subjects: tuple[Subject, ...]


def spread(document: dict[str, Any], mode: str) -> Spread:
    """Processes with a clock and a time on the leading device in a mode, the best variant's first."""
    device = document["leading_device"]
    entry = next((one for one in document["devices"] if one.get("slug") == device), {"slug": device})
    subjects = []
    for one in document["processes"]:
        processes = tuple(dict(process, process=process.get("process", "?"), accepted=bool(process.get("accepted"))) for process in one.get("processes") or []
                          if process.get("mode") == mode and all((words.finite(process.get(name)) or 0) > 0 for name in ("median_us", "sm_mhz")))
        if one.get("device") == device and processes:
            name = str(one.get("variant") or "") + (" (stale)" if one.get("stale") else "")
            subjects.append(Subject(name, processes, (one.get("spans") or {}).get(mode) or {}))
    return Spread(mode, words.device_words(entry), tuple(subjects))


def _mhz(subject: Subject) -> str:
    low, high = subject.clock
    return f"{low:,.0f} MHz" if low == high else f"{low:,.0f} to {high:,.0f} MHz"


def answer(view: Spread) -> str:
    """For the best variant in one sentence: how far its processes lie apart, and what their clocks have to do with it."""
    best = view.subjects[0]
    apart = f"the {len(best.accepted)} process medians of {best.name} lie within {words.percent(best.reach)}"
    if len(best.accepted) == 1:
        text = f"Not known: one process of {best.name} counts"
    elif best.left is None:
        text = f"No: {apart}, while all ran at {_mhz(best)}" if best.clock[0] == best.clock[1] else f"Too few processes to say: {apart}, at {_mhz(best)}"
    elif best.left < EXPLAINED:
        text = f"Yes: {apart} at {_mhz(best)}, and counted in cycles {words.percent(best.left)} of that spread is left"
    else:
        text = f"No: {apart} at {_mhz(best)}, and counted in cycles {words.percent(best.left)} of that spread is left"
    others = [one for one in view.subjects[1:] if one.left is not None and one.left < EXPLAINED]
    if others:
        text += f"; for {words.listed(one.name for one in others)} it does"
    return f"{text}; {_rejections(view)}."


def _rejections(view: Spread) -> str:
    """How many processes do not count, with the first reason."""
    every = [(one.name, process) for one in view.subjects for process in one.processes]
    rejected = [(name, process) for name, process in every if not process["accepted"]]
    if not rejected:
        return f"none of the {len(every)} processes shown was rejected"
    name, first = rejected[0]
    why = words.clip(first.get("reason"), 120) or "no reason given"
    return f"{len(rejected)} of the {len(every)} processes shown {'was' if len(rejected) == 1 else 'were'} rejected (process {first['process']} of {name}: {why})"


def lines(view: Spread) -> list[dict[str, Any]]:
    """One row a process."""
    found = []
    for subject in view.subjects:
        for one in subject.processes:
            low, high = words.finite(one.get("sm_mhz_min")), words.finite(one.get("sm_mhz_max"))
            found.append(dict(
                name=subject.name, process=one.get("process"), time=words.number(one["median_us"], one["median_us"] / 1000),
                off=f"{100 * subject.off(one):+.2f}{words.PERCENT}".replace("-", "−"),
                mhz=f"{one['sm_mhz']:,.0f}", reach=f"{low:,.0f}–{high:,.0f}" if low is not None and high is not None and low != high else "",
                cycles=f"{one['median_us'] * one['sm_mhz']:,.0f}", late=words.NOTHING if one.get("late") is None else str(one["late"]), right=one["accepted"],
                reason=str(one.get("reason") or "")))
    return found


def spans(view: Spread) -> list[dict[str, str]]:
    """Where the kernels' own record was taken: a launch by the events and by that record, microseconds."""
    found = []
    for subject in view.subjects:
        launches, event, span = (words.finite(subject.span.get(name)) for name in ("launches", "event_us", "span_us"))
        if launches and event and span:
            found.append(dict(name=subject.name, launches=f"{launches:,.0f}", event=words.number(event / launches), span=words.number(span / launches),
                              off=f"{100 * (span / event - 1):+.1f}{words.PERCENT}".replace("-", "−")))
    return found


BAND = stats.SAME_BAND
"""Shaded in the picture: two times within it are the same."""
