"""What a busy GPU beside it does to a timing, as the page shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from evosdpa import stats
from evosdpa.page import facts, words
from evosdpa.page.ratios import Ratio


@dataclass(frozen=True)
class Beside:
    """One variant timed alone and beside a busy GPU."""

    answer: str
    mark: words.Mark
    stale: bool
    about: str
    modes: list[Ratio]
    """Its time beside the busy GPU over its time alone, by mode."""


def _told(entry: dict[str, Any], modes: list[Ratio], device: str) -> str:
    """Whether the neighbour shows in the times, in one sentence. A measurement that lost a mode does not say no."""
    variant, status = words.clip(entry.get("variant") or "it", 120), str(entry.get("status") or "not_run")
    said = words.listed(f"{one.text} its time alone in mode {one.mode} ({one.verdict or 'no verdict'})" for one in modes)
    takes = f"beside a busy GPU {variant} on {device} takes {said}"
    if any(one.verdict in ("faster", "slower") for one in modes):
        return f"YES: {takes}."
    if status != "ok" or not modes:
        reason = words.clip(entry.get("reason"), 400)
        return f"not known for {variant} on {device}: {words.mark(status).text}{f', {reason}' if reason else ''}{f'; {takes}' if modes else ''}."
    if all(one.verdict == "same" for one in modes):
        return f"not by {100 * stats.SAME_BAND:g}{words.PERCENT} or more: {takes}."
    return f"not that one could tell: {takes}."


def _about(entry: dict[str, Any]) -> str:
    """What was timed beside what: the problem, the pairs of runs, and the other GPU's work."""
    turns = [int(one) for one in map(words.finite, entry.get("turns") or []) if one]
    load = (f"beside it {words.clip(entry.get('neighbour') or 'a GPU', 80)} of the same machine, at work for {min(turns):,} to {max(turns):,} turns a run, "
            f"each {words.clip(entry.get('load') or 'of unknown work', 200)}" if turns else "")
    return "; ".join(filter(None, (str(entry.get("problem") or ""), f"{words.plural(len(turns), 'pair')} of runs by turns" if turns else "", load,
                                   str(entry.get("origin") or ""), words.date(entry.get("ended")))))


def of(document: dict[str, Any]) -> list[Beside]:
    """Every variant that was timed beside a busy GPU, those of the leading device first."""
    found = []
    for entry in facts.leading_first(document, document["neighbours"]):
        modes = [ratio for one in entry.get("results") or [] if (ratio := Ratio.of(str(one.get("mode") or ""), one)).value]
        told = _told(entry, modes, facts.device_named(document, str(entry.get("device") or "")))
        found.append(Beside(answer=facts.dated(entry, told), mark=words.mark(entry.get("status"), entry.get("stale")), stale=bool(entry.get("stale")),
                            about=_about(entry), modes=modes))
    return found
