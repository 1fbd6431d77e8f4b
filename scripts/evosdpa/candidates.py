"""The search's candidates in order: what the summary, the terminal and the next actions go through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from evosdpa import insights, variant_evidence
from evosdpa.insights import Insight
from evosdpa.page import facts, ladders, words
from evosdpa.variant_evidence import Evidence

ELITES = 3
"""Candidates that the search keeps and builds on: the fastest that are right and current."""
BROKEN = ("failed", "error", "timeout", "suspect")
"""What has to be mended before speed counts."""
TIMED = ("ok", "unstable", "suspect")
"""Statuses of a time that may be shown, with the status beside it unless that is ok."""

Fact = dict[str, Any]
View = dict[str, Any]


@dataclass(frozen=True)
class Candidate:
    """A variant on one device with all that is known of it."""

    view: View
    fact: Fact
    rows: tuple[dict[str, Any] | None, ...]
    """On the goal's problem, one a mode of the goal."""
    ranked: bool
    """Whether it has a right and current time in the goal's first mode."""
    evidence: Evidence
    insights: tuple[Insight, ...]

    @property
    def name(self) -> str:
        """The variant's name."""
        return self.view["name"]

    @property
    def status(self) -> str:
        """The word of its status; stale where it is ok otherwise."""
        return self.view["mark"].text

    @property
    def broken(self) -> bool:
        """Whether it has to be mended before it counts."""
        return self.status in BROKEN


class Search:
    """A gap document's candidates, the leading device's first."""

    def __init__(self, document: dict[str, Any]) -> None:
        """Takes a whole document (render.whole)."""
        self.document = document
        self.goal, self.device = document["goal"], document["leading_device"]
        self.modes = [str(mode) for mode in self.goal.get("modes") or ["warm"]]
        self.entry = next((one for one in document["devices"] if one.get("slug") == self.device), {"slug": self.device})
        self.where = words.device_words(self.entry) or "any device"
        self.candidates = self._candidates()
        self.ranked = [one for one in self.candidates if one.ranked and one.view["device"] == self.device]

    def _candidates(self) -> list[Candidate]:
        rows = {(row.get("name"), row.get("device"), row.get("mode")): row for row in self.document["rows"]
                if row.get("kind") == "variant" and row.get("problem") == self.goal.get("problem")}
        of_variant: dict[tuple[Any, Any], list[dict[str, Any]]] = {}  # so that a long search reads each row once
        for row in self.document["rows"]:
            of_variant.setdefault((row.get("name"), row.get("device")), []).append(row)
        by_name: dict[tuple[str, str], Fact] = {}
        for fact in self.document["variants"]:
            by_name.setdefault((str(fact.get("name") or ""), str(fact.get("device") or "")), fact)
        found = []
        for view in facts.variants(self.document):
            fact = by_name[view["name"], view["device"]]
            known = variant_evidence.of({**self.document, "rows": of_variant.get((view["name"], fact.get("device")), [])}, fact)
            own = tuple(rows.get((view["name"], view["device"], mode)) for mode in self.modes)
            seen = () if fact.get("on_cpu") else tuple(insights.insights(known))
            found.append(Candidate(view, fact, own, bool(own[0] and ladders.is_ranked(own[0])), known, seen))
        # facts.variants has them by device, rank and time; without a rank, what is known best comes first.
        return sorted(found, key=lambda one: (one.view["device"] != self.device, not one.ranked,
                                              0 if one.ranked or one.view["stale"] and not one.broken else 1 if one.broken or one.status == "unstable" else 2))

    def rivals(self, mode: str) -> list[dict[str, Any]]:
        """The rivals' rows with a time on the goal's problem on the leading device."""
        return [row for row in self.document["rows"] if row.get("kind") == "rival" and words.finite(row.get("time_us")) is not None
                and (row.get("device"), row.get("problem"), row.get("mode")) == (self.device, self.goal.get("problem"), mode)]

    def subject(self) -> tuple[Candidate | None, str]:
        """Whose gap is analysed, and what the reader must know about that choice."""
        name, _ = ladders.closest(self.document)
        best = next((one for one in self.ranked if one.name == name), self.ranked[0] if self.ranked else None)
        if best:
            return best, ""
        stale = [one for one in self.candidates if one.view["stale"] and one.fact.get("status") == "ok" and one.view["device"] == self.device
                 and one.evidence.times_us]
        if stale:
            fastest = min(stale, key=lambda one: (min(one.evidence.times_us.values()), one.name))
            return fastest, "No variant is right and current; this is the fastest whose evidence is only out of date."
        return None, ""

    def elsewhere(self, device: str) -> str:
        """Where something has to run, if not here."""
        here = self.document["this_device"]
        return "" if device == "cpu" or (here and here == device) else f" on {self.where}" if device and device == self.device else " on a GPU"
