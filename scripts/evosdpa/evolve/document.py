"""Evolutions as gap.json has them: lineage, what each generation left, credit of levers, records of rules, promised against measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evosdpa import benchmarking, evidence, keys, variants
from evosdpa.config import Config
from evosdpa.evidence import Bench, EvidenceError
from evosdpa.evolve import credit, lineage
from evosdpa.evolve.lineage import History
from evosdpa.stats import Estimate

ROOTS = {"measured": Path("results"), "recorded": Path("results/recorded")}


def found(origins: tuple[str, ...] = tuple(ROOTS)) -> tuple[dict[str, tuple[str, History]], list[str]]:
    """The evolution of every device, with its origin: this machine's own before a recorded one; and a line for each that cannot be read."""
    histories: dict[str, tuple[str, History]] = {}
    errors = []
    for origin in origins:
        for place in sorted(ROOTS[origin].glob(f"*/{lineage.FOLDER}")):
            device = place.parent.name
            if device == ROOTS["recorded"].name or device in histories:
                continue
            try:
                history = lineage.read(ROOTS[origin], device)
            except EvidenceError as error:
                errors.append(str(error))
                continue
            if history.generations:
                histories[device] = (origin, history)
    return histories, errors


def measured(histories: dict[str, tuple[str, History]]) -> list[str]:
    """Every variant that took part in one of them, those it began with too, and whose source is still there."""
    names = dict.fromkeys(one.name for _, history in histories.values() for _, population in history.generations for one in population.results)
    return [name for name in names if _resolves(name)]


def children(histories: dict[str, tuple[str, History]]) -> set[str]:
    """The names of those that were made by one of them."""
    return {child.name for _, history in histories.values() for screening, _ in history.generations for child in screening.children if child.parent}


def _resolves(name: str) -> bool:
    try:
        variants.resolve(name)
    except variants.VariantError:
        return False
    return True


def evolutions(config: Config, histories: dict[str, tuple[str, History]]) -> list[dict[str, Any]]:
    """One entry a device, its generations and what they teach."""
    return [_entry(config, origin, history) for _, (origin, history) in sorted(histories.items())]


def _entry(config: Config, origin: str, history: History) -> dict[str, Any]:
    last = history.generations[-1][1]
    return dict(
        device=history.device, origin=origin, problem=last.problem, modes=last.modes, elites=last.elites, times_us=last.times_us,
        measured_s=history.measured_s, changed=_changed(config, origin, history), finals=_finals(origin, history),
        generations=[dict(generation=population.generation, status=population.status.value, reason=population.reason, elites=population.elites,
                          times_us=population.times_us, best=_best(population.times_us, population.modes)) for _, population in history.generations],
        children=_children(history), levers=[_credit(one) for one in credit.of_levers(history)],
        changes=[_credit(one) for one in sorted(credit.of_changes(history).values(), key=lambda one: one.ratio.log_mean)],
        rules=[dict(rule=one.rule, children=one.children, faster=one.faster, slower=one.slower, same=one.same, undecided=one.undecided, beyond=one.beyond)
               for one in credit.of_rules(history).values()])


def _best(times_us: dict[str, dict[str, float]], modes: list[str]) -> dict[str, float]:
    """The lowest time of any elite, by mode, microseconds."""
    return {mode: min(found) for mode in modes if (found := [times[mode] for times in times_us.values() if mode in times])}


def _children(history: History) -> list[dict[str, Any]]:
    """Every child, measured or dropped, in the order of the generations."""
    verdicts = {(pair.generation, pair.child.name): credit.verdict(pair) for pair in history.pairs}
    entries = []
    for screening, population in history.generations:
        results = {one.name: one for one in population.results}
        for child in screening.children:
            result = results.get(child.name)
            entries.append(dict(
                generation=screening.generation, name=child.name, parent=child.parent, other=child.other, operator=child.operator,
                changes=[change.model_dump() for change in child.changes], rules=child.rules, at_most=child.at_most, expected=child.expected,
                dropped=child.dropped, status=result.status.value if result else "", reason=result.reason if result else "",
                times_us=result.times_us if result else {}, against=result.against if result else {}, entered=bool(result and result.entered),
                verdict=verdicts.get((screening.generation, child.name), "")))
    return entries


def _credit(one: credit.Credit) -> dict[str, Any]:
    low, high = _interval(one.ratio)
    return dict(source=one.source, lever=one.lever, before=one.before, after=one.after, ratio=one.ratio.value, low=low, high=high, pairs=one.pairs)


def _interval(estimate: Estimate) -> tuple[float | None, float | None]:
    return estimate.interval() or (None, None)


def _bench(origin: str, history: History) -> Bench | None:
    """The newest finals that were timed."""
    for generation in range(len(history.generations) - 1, -1, -1):
        path = ROOTS[origin] / history.device / lineage.FOLDER / f"gen{generation}" / lineage.FINALS / "bench.json"
        try:
            record = evidence.read(path, Bench)
        except EvidenceError:
            continue
        if record.timings:
            return record
    return None


def _changed(config: Config, origin: str, history: History) -> list[str]:
    """What of the way in which finalists are timed is not what it was then."""
    record = _bench(origin, history)
    if record is None:
        return []
    return keys.changed(record.key_parts, benchmarking.bench_parts(None, config, history.device == "cpu"), ("binaries",))


def _finals(origin: str, history: History) -> dict[str, Any]:
    """When and where the newest finals were timed."""
    record = _bench(origin, history)
    return dict(ended=record.ended, device=record.device_info, git=record.git) if record else {}
