"""What a busy GPU beside it does to a timing, as the page shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from evosdpa.page import facts, words
from evosdpa.page.ratios import Ratio

MOST_NEIGHBOURS = 6
"""Entries on the page; gap.json has all."""


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
    """Whether the neighbour shows in the times, in one sentence."""
    variant = str(entry.get("variant") or "it")
    if not modes:
        reason = words.clip(entry.get("reason"), 400)
        return f"not known for {variant} on {device}: {words.mark(entry.get('status')).text}{f', {reason}' if reason else ''}."
    said = words.listed(f"{one.text} its time alone in mode {one.mode} ({one.verdict})" for one in modes)
    if any(one.verdict in ("faster", "slower") for one in modes):
        return f"YES: beside a busy GPU {variant} on {device} takes {said}."
    begins = "no" if all(one.verdict == "same" for one in modes) else "not that one could tell"
    return f"{begins}: beside a busy GPU {variant} on {device} takes {said}."


def of(document: dict[str, Any]) -> list[Beside]:
    """Every variant that was timed beside a busy GPU, those of the leading device first."""
    found = []
    for entry in facts.leading_first(document, document["neighbours"])[:MOST_NEIGHBOURS]:
        modes = [Ratio.of(str(one.get("mode") or ""), one) for one in entry.get("results") or []]
        pairs = int(words.finite(entry.get("pairs")) or 0)
        about = "; ".join(filter(None, (str(entry.get("problem") or ""), f"{words.plural(pairs, 'pair')} of runs by turns" if pairs else "",
                                        str(entry.get("origin") or ""), words.date(entry.get("ended")))))
        found.append(Beside(answer=facts.dated(entry, _told(entry, modes, facts.device_named(document, str(entry.get("device") or "")))),
                            mark=words.mark(entry.get("status"), entry.get("stale")), stale=bool(entry.get("stale")), about=about, modes=modes))
    return found
