"""The children of a generation, from the elites, what holds them back and what earlier children taught. Same seed and evidence, same
children: nothing here depends on anything else."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

from evosdpa import insights, variants
from evosdpa.config import EvolveSection
from evosdpa.evolve import credit, lineage
from evosdpa.evolve.lineage import Change, Child, History
from evosdpa.insights import Insight
from evosdpa.variant_evidence import Evidence

LEVERS_CHANGED = 2
"""How many levers a child changes: two are a step that one cannot find by looking at each lever alone, and still few enough to learn from."""


@dataclass(frozen=True)
class Elite:
    """An elite with what the rules say holds it back."""

    evidence: Evidence
    insights: tuple[Insight, ...]

    @property
    def name(self) -> str:
        """Its variant's name."""
        return self.evidence.name

    @property
    def source(self) -> str:
        """The stem of its source."""
        return lineage.source_of(self.name)


@dataclass(frozen=True)
class Support:
    """What the rules say for one lever value: which of them point there, and the largest bound."""

    rules: tuple[str, ...] = ()
    at_most: float = 0.0
    trusted: float = 0.0
    """The largest bound, each weighed by how often its rule was right."""


class Proposer:
    """Draws the children of one generation."""

    def __init__(self, settings: EvolveSection, generation: int, elites: list[Elite], history: History) -> None:
        self.settings, self.generation, self.elites = settings, generation, elites
        self.random = random.Random(f"{settings.seed} {history.device} {generation}")
        self.seen = set(history.names)
        self.credits, self.records = credit.of_changes(history), credit.of_rules(history)

    def children(self, wanted: int) -> Iterator[Child]:
        """At most so many children that nobody has measured, elite by elite in turn; fewer when all are tried."""
        for slot in range(wanted):
            first = slot % len(self.elites) if self.elites else 0
            child = next((made for elite in self.elites[first:] + self.elites[:first] if (made := self._child(elite))), None)
            if child is None:
                return
            self.seen.add(child.name)
            yield child

    def _child(self, elite: Elite) -> Child | None:
        """A child of this elite; None when all that change two of its levers were tried."""
        draw = self.random.random()
        if draw < self.settings.explore:
            return self._explored(elite)
        if draw < self.settings.explore + self.settings.crossover and (crossed := self._crossed(elite)):
            return crossed
        return self._guided(elite) or self._explored(elite)

    def _open(self, elite: Elite) -> list[tuple[str, list[Change]]]:
        """Every child that changes two levers and was not seen, with its changes."""
        now = elite.evidence.levers
        levers = [(lever, [value for value in values if str(value) != str(now[lever])])
                  for lever, values in sorted(elite.evidence.declared.items()) if lever in now]
        found = []
        for chosen in itertools.combinations(levers, LEVERS_CHANGED):
            for values in itertools.product(*(values for _, values in chosen)):
                changes = [Change(lever=lever, before=str(now[lever]), after=str(value)) for (lever, _), value in zip(chosen, values)]
                name = name_of(elite, changes)
                if name not in self.seen:
                    found.append((name, changes))
        return found

    def _explored(self, elite: Elite) -> Child | None:
        choices = self._open(elite)
        return self._made("explore", elite, *self.random.choice(choices)) if choices else None

    def _crossed(self, elite: Elite) -> Child | None:
        """The elite with two levers of another of its source, where they differ in more than two."""
        choices = []
        for other in self.elites:
            if other.source != elite.source or other.name == elite.name:
                continue
            theirs = other.evidence.levers
            choices += [(name, changes, other.name) for name, changes in self._open(elite) if all(str(theirs.get(one.lever)) == one.after for one in changes)]
        if not choices:
            return None
        name, changes, other = self.random.choice(choices)
        return self._made("crossover", elite, name, changes, other)

    def _guided(self, elite: Elite) -> Child | None:
        """The child with most speaking for it: the gain that rules allow, as far as they were right so far, and the credit of its levers.
        None when nothing speaks for any."""
        ranked = [(round(self._promise(elite, changes), 2), name, changes) for name, changes in self._open(elite)]  # less is noise
        best = max((promise for promise, _, _ in ranked), default=0.0)
        if best <= 0:
            return None
        _, name, changes = self.random.choice([one for one in ranked if one[0] == best])
        return self._made("guided", elite, name, changes)

    def _promise(self, elite: Elite, changes: list[Change]) -> float:
        """How much speaks for a child, as a share of the parent's time: bounds overlap, so the largest counts, not their sum."""
        supports = [self.support(elite, change) for change in changes]
        known = [self.credits.get((elite.source, change.lever, change.before, change.after)) for change in changes]
        paid = [1 - one.ratio.value for one in known if one]
        return max(one.trusted for one in supports) + (sum(paid) / len(paid) if paid else 0.0)

    def support(self, elite: Elite, change: Change) -> Support:
        """What the rules say for one change of this elite: those that point at the lever in this direction."""
        found = [one for one in elite.insights if change.lever in one.levers and _points(one, change)]
        if not found:
            return Support()
        weighed = [one.bound.share * self.records.get(one.rule, credit.Record(one.rule)).trust for one in found]
        return Support(tuple(one.rule for one in found), max(one.bound.share for one in found), max(weighed))

    def _made(self, operator: str, elite: Elite, name: str, changes: list[Change], other: str | None = None) -> Child:
        supports = [self.support(elite, change) for change in changes]
        rules = list(dict.fromkeys(rule for one in supports for rule in one.rules))
        return Child(name=name, operator=operator, parent=elite.name, other=other, changes=changes, rules=rules,
                     at_most=max(one.at_most for one in supports) if rules else None, expected=credit.expected(self.credits, elite.source, changes))


def _points(insight: Insight, change: Change) -> bool:
    """Whether a rule points in the direction of a change: its next value lies on the same side."""
    return any(move.lever == change.lever and change.after.isdigit() and (int(move.then) > int(move.now)) == (int(change.after) > int(change.before))
               for move in insight.moves)


def name_of(elite: Elite, changes: list[Change]) -> str:
    """Name of the elite's variant with these changes."""
    levers = {**elite.evidence.levers, **{change.lever: change.after for change in changes}}
    return variants.child(elite.source, levers, elite.evidence.defaults)


def elite_of(evidence: Evidence) -> Elite:
    """An elite from its evidence."""
    return Elite(evidence, tuple(insights.insights(evidence)))


def too_few(elites: list[Elite], wanted: int, found: int) -> list[str]:
    """Why there are fewer children than wanted, a line an elite."""
    if found >= wanted:
        return []
    if not elites:
        return ["there is no elite to make children of"]
    lines = []
    for elite in elites:
        levers = len(elite.evidence.declared)
        if levers < LEVERS_CHANGED:
            lines.append(f"{elite.name}: its source declares {levers} lever{'' if levers == 1 else 's'}, and a child changes {LEVERS_CHANGED}")
        else:
            lines.append(f"{elite.name}: every child that changes {LEVERS_CHANGED} of its levers was tried")
    return lines
