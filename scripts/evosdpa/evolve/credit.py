"""What the children so far teach: which levers paid, which rules were right, and how what was promised compares with what came."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from evosdpa import stats
from evosdpa.evolve.lineage import Change, History, Pair
from evosdpa.stats import Estimate

LEAST_PAIRS = 2
"""Pairs from which on credit has an interval."""


@dataclass(frozen=True)
class Credit:
    """What came with one lever, or one change of it, over all pairs of child and parent that changed it. Each child changed another lever
    too, so this is not what the lever did alone; over many partners the others' part averages out."""

    source: str
    lever: str
    before: str
    """Empty: any change of the lever."""
    after: str
    ratio: Estimate
    """Time of the child over its parent's: below 1 it paid."""
    pairs: int


@dataclass(frozen=True)
class Record:
    """How the children did that a rule pointed at."""

    rule: str
    faster: int = 0
    slower: int = 0
    same: int = 0
    undecided: int = 0
    beyond: int = 0
    """Children that surely gained more than the rule's bound allowed: then the bound is wrong."""

    @property
    def children(self) -> int:
        """All that were measured."""
        return self.faster + self.slower + self.same + self.undecided

    @property
    def trust(self) -> float:
        """Chance that the next child that it points at is faster, by Laplace's rule of succession; undecided ones teach nothing."""
        decided = self.faster + self.slower + self.same
        return (self.faster + 1) / (decided + 2)


def overall(verdicts: Iterable[str]) -> str:
    """One verdict over several modes: faster or slower where one mode says so and none says the opposite, same where all do."""
    found = set(verdicts)
    for word, opposite in (("faster", "slower"), ("slower", "faster")):
        if word in found and opposite not in found:
            return word
    return "same" if found == {"same"} else "undecided"


def verdict(pair: Pair) -> str:
    """The child against its parent, over all modes."""
    return overall(one["verdict"] for one in pair.result.against.values())


def log_ratio(pair: Pair) -> float:
    """Logarithm of the child's time over its parent's: the mean over the modes."""
    logs = [math.log(one["ratio"]) for one in pair.result.against.values()]
    return sum(logs) / len(logs)


def of_changes(history: History) -> dict[tuple[str, str, str, str], Credit]:
    """Credit of every change that was tried: by source, lever, value before and after."""
    return _credits(history, lambda source, change: (source, change.lever, change.before, change.after))


def of_levers(history: History) -> list[Credit]:
    """Credit of every lever that was changed, any values, the one that paid most first."""
    found = _credits(history, lambda source, change: (source, change.lever, "", ""))
    return sorted(found.values(), key=lambda credit: (credit.ratio.log_mean, credit.source, credit.lever))


def _credits(history: History, key_of: Callable[[str, Change], tuple[str, str, str, str]]) -> dict[tuple[str, str, str, str], Credit]:
    logs: dict[tuple[str, str, str, str], list[float]] = {}
    for pair in history.pairs:
        for change in pair.child.changes:
            logs.setdefault(key_of(source_of(pair.child.name), change), []).append(log_ratio(pair))
    return {key: Credit(*key, stats.of_logs(found), len(found)) for key, found in sorted(logs.items())}


def source_of(name: str) -> str:
    """The stem of a variant's name: variants of one source share it."""
    return name.partition("@")[0]


def expected(credits: dict[tuple[str, str, str, str], Credit], source: str, changes: list[Change]) -> float | None:
    """Time over the parent's that earlier children lead one to expect of these changes together: each change's credit holds half of
    what came with its partner, so the mean over the changes stands for the child. None unless every change was tried before."""
    known = [credits.get((source, change.lever, change.before, change.after)) for change in changes]
    if not known or any(one is None for one in known):
        return None
    return math.exp(sum(one.ratio.log_mean for one in known if one) / len(known))


def of_rules(history: History) -> dict[str, Record]:
    """The record of every rule that pointed at a child."""
    counts: dict[str, dict[str, int]] = {}
    for pair in history.pairs:
        gain = 1 - min((one["high"] if one["high"] is not None else 1.0) for one in pair.result.against.values())  # surely at least
        for rule in pair.child.rules:
            found = counts.setdefault(rule, {})
            word = verdict(pair)
            found[word] = found.get(word, 0) + 1
            if pair.child.at_most is not None and gain > pair.child.at_most:
                found["beyond"] = found.get("beyond", 0) + 1
    return {rule: Record(rule, **found) for rule, found in sorted(counts.items())}
