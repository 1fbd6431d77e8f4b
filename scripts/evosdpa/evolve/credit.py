"""What the children so far teach: which levers paid, which rules were right, and how what was promised compares with what came."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from evosdpa.evidence import Status
from evosdpa.evolve.lineage import Change, History, Pair, source_of
from evosdpa.stats import Estimate


@dataclass(frozen=True)
class Credit:
    """What came with one lever, or one change of it, over all pairs of child and parent that changed it. Each child changed another lever
    too, so this is not what the lever did alone; over many partners the others' part averages out."""

    source: str
    lever: str
    before: str
    """Empty: any change of the lever, seen in the direction of its larger value (for words: the one later in the alphabet)."""
    after: str
    ratio: Estimate
    """Time after the change over the time before: below 1 it paid."""
    pairs: int


@dataclass(frozen=True)
class Record:
    """How the children did that a rule pointed at."""

    rule: str
    faster: int = 0
    slower: int = 0
    same: int = 0
    undecided: int = 0
    lost: int = 0
    """Children that were dropped for their binary, wrong, or had no good time."""
    beyond: int = 0
    """Children that surely gained more than the rule's bound allowed: the bound is wrong, or the child's other lever gained it."""

    @property
    def children(self) -> int:
        """All that it pointed at."""
        return self.faster + self.slower + self.same + self.undecided + self.lost

    @property
    def trust(self) -> float:
        """Chance that the next child that it points at is faster, by Laplace's rule of succession; undecided ones teach nothing."""
        return (self.faster + 1) / (self.children - self.undecided + 2)


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


def log_ratio(pair: Pair) -> tuple[float, float]:
    """Logarithm of the child's time over its parent's, the mean over the modes, and its standard error (the modes' errors count as
    independent; 0 where a mode has none)."""
    found = list(pair.result.against.values())
    return sum(math.log(one["ratio"]) for one in found) / len(found), math.sqrt(sum((one.get("error") or 0.0) ** 2 for one in found)) / len(found)


def pooled(logs: list[float], errors: list[float]) -> Estimate:
    """The mean effect behind several estimates, each with an error of its own and a true effect of its own: random effects after DerSimonian
    and Laird (1986), with Hartung and Knapp's interval (2001). One estimate has no interval: it cannot tell how the effects differ."""
    count = len(logs)
    if count == 1:
        return Estimate(logs[0], math.nan, 0)
    least = max(max(errors) * 1e-3, 1e-6)  # no estimate is certain
    weights = [1 / max(error, least) ** 2 for error in errors]
    fixed = sum(weight * log for weight, log in zip(weights, logs)) / sum(weights)
    spread = sum(weight * (log - fixed) ** 2 for weight, log in zip(weights, logs))
    scale = sum(weights) - sum(weight**2 for weight in weights) / sum(weights)
    between = max(0.0, (spread - (count - 1)) / scale) if scale > 0 else 0.0
    weights = [1 / (max(error, least) ** 2 + between) for error in errors]
    mean = sum(weight * log for weight, log in zip(weights, logs)) / sum(weights)
    variance = sum(weight * (log - mean) ** 2 for weight, log in zip(weights, logs)) / ((count - 1) * sum(weights))
    return Estimate(mean, math.sqrt(max(variance, 1 / sum(weights))), count - 1)


def of_changes(history: History) -> dict[tuple[str, str, str, str], Credit]:
    """Credit of every change that was tried: by source, lever, value before and after."""
    return _credits(history, lambda source, change: ((source, change.lever, change.before, change.after), False))


def of_levers(history: History) -> list[Credit]:
    """Credit of every lever, in the direction of its larger value whichever way a child went, the one that paid most first."""
    found = _credits(history, lambda source, change: ((source, change.lever, "", ""), not is_up(change)))
    return sorted(found.values(), key=lambda credit: (credit.ratio.log_mean, credit.source, credit.lever))


def is_up(change: Change) -> bool:
    """Whether a change goes to the larger value, or for words to the one later in the alphabet."""
    if change.before.isdigit() and change.after.isdigit():
        return int(change.after) > int(change.before)
    return change.after > change.before


def _credits(history: History, key_of: Callable[[str, Change], tuple[tuple[str, str, str, str], bool]]) -> dict[tuple[str, str, str, str], Credit]:
    """Pooled by what `key_of` says of a source and a change; where it also says so, the change is seen the other way round."""
    logs: dict[tuple[str, str, str, str], list[tuple[float, float]]] = {}
    for pair in history.pairs:
        log, error = log_ratio(pair)
        for change in pair.child.changes:
            key, turned = key_of(source_of(pair.child.name), change)
            logs.setdefault(key, []).append((-log if turned else log, error))
    return {key: Credit(*key, pooled([log for log, _ in found], [error for _, error in found]), len(found)) for key, found in sorted(logs.items())}


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
    for pair in history.tried:
        highs = [one["high"] for one in pair.result.against.values() if one["high"] is not None]
        surely = 1 - min(highs) if highs else 0.0
        word = verdict(pair) if pair.result.against else "lost" if pair.child.dropped or pair.result.status is not Status.OK else "undecided"
        for rule in pair.child.rules:
            found = counts.setdefault(rule, {})
            found[word] = found.get(word, 0) + 1
            if pair.child.at_most is not None and surely > pair.child.at_most:
                found["beyond"] = found.get("beyond", 0) + 1
    return {rule: Record(rule, **found) for rule, found in sorted(counts.items())}
