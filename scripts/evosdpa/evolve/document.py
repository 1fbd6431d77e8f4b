"""Evolutions as gap.json has them: lineage, what each generation left, credit of levers, records of rules, promised against measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evosdpa import benchmarking, evidence, keys, stats, variants
from evosdpa.evidence import Bench, Build, EvidenceError
from evosdpa.evolve import credit, lineage, selecting
from evosdpa.evolve.lineage import History
from evosdpa.gap import Gap

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


def evolutions(gap: Gap, histories: dict[str, tuple[str, History]]) -> list[dict[str, Any]]:
    """One entry a device, its generations and what they teach; `gap` is the evidence about the variants that took part."""
    return [_entry(gap, origin, history) for _, (origin, history) in sorted(histories.items())]


def _entry(gap: Gap, origin: str, history: History) -> dict[str, Any]:
    last = history.generations[-1][1]
    closing = _bench(origin, history.device, len(history.generations) - 1, lineage.CLOSING)
    timed = closing or next((found for number in range(len(history.generations) - 1, -1, -1)
                             if (found := _bench(origin, history.device, number, lineage.FINALS)) and found.timings), None)
    return dict(
        device=history.device, origin=origin, problem=last.problem, modes=last.modes, begun_with=history.begun_with, elites=last.elites, times_us=last.times_us,
        measured_s=history.measured_s, changed=_changed(gap, origin, history, timed), against_start=selecting.against_start(history, closing) if closing else {},
        closed=closing is not None, cards=_cards(origin, history.device, len(history.generations)),
        finals=dict(ended=timed.ended, device=timed.device_info, git=timed.git, libraries=timed.libraries) if timed else {},
        generations=[dict(generation=population.generation, status=population.status.value, reason=population.reason, elites=population.elites,
                          left=population.left, times_us=population.times_us, best=_best(population.times_us, population.modes))
                     for _, population in history.generations],
        children=entries(history), levers=[_credit(one) for one in credit.of_levers(history)],
        changes=[_credit(one) for one in sorted(credit.of_changes(history).values(), key=lambda one: one.ratio.log_mean)],
        rules=[dict(rule=one.rule, children=one.children, faster=one.faster, slower=one.slower, same=one.same, undecided=one.undecided, lost=one.lost,
                    beyond=one.beyond) for one in credit.of_rules(history).values()])


def _best(times_us: dict[str, dict[str, float]], modes: list[str]) -> dict[str, float]:
    """The lowest time of any elite, by mode, microseconds."""
    return {mode: min(found) for mode in modes if (found := [times[mode] for times in times_us.values() if mode in times])}


def entries(history: History) -> list[dict[str, Any]]:
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
    low, high = one.ratio.interval() or (None, None)
    return dict(source=one.source, lever=one.lever, before=one.before, after=one.after, ratio=one.ratio.value, low=low, high=high, pairs=one.pairs,
                verdict=stats.verdict(one.ratio))


def _bench(origin: str, device: str, generation: int, folder: str) -> Bench | None:
    """What was timed together in a generation; None when there is nothing that can be used."""
    path = ROOTS[origin] / device / lineage.FOLDER / f"gen{generation}" / folder / "bench.json"
    try:
        record = evidence.read(path, Bench)
        evidence.check_samples(path, record)
    except EvidenceError:
        return None
    return record


def _cards(origin: str, device: str, generations: int) -> int:
    """How many GPUs the generations' finals ran on, as far as their evidence tells them apart."""
    found = (_bench(origin, device, number, lineage.FINALS) for number in range(generations))
    return len({digest for one in found if one and (digest := one.device_info.get("uuid_digest"))})


def _changed(gap: Gap, origin: str, history: History, timed: Bench | None) -> list[str]:
    """What is not what it was then: the way in which finalists are timed, or the code of one of the elites."""
    parts = set(keys.changed(timed.key_parts, benchmarking.bench_parts(None, gap.config, history.device == "cpu"), ("binaries",))) if timed else set()
    for name in {*history.elites, *history.begun_with}:
        chain = gap.chains.get((history.device, name))
        bench: Bench | None = chain.get("bench") if chain else None
        if bench is None:
            parts.add(f"evidence of {name}")
            continue
        parts |= set(chain.changed)
        if timed and name in timed.libraries:
            of_bench, of_finals = chain.get("build"), lineage.built(ROOTS[origin], history.device, name, timed.libraries[name])
            if not _same_code(bench.key_parts.get("binary", ""), of_bench, timed.libraries[name], of_finals):
                parts.add(f"binary of {name}")  # measured again since, from another source
    return sorted(parts)


def _same_code(library: str, build: Build | None, other_library: str, other_build: Build | None) -> bool:
    """Whether two libraries (digests; with what compiling gave, where that is known) hold the same code: they are one, or their code for the GPU is,
    since what surrounds that is made by each machine's own compiler."""
    if library == other_library:
        return True
    return bool(build and other_build and build.library_sha256 == library and build.cubin_sha256 and build.cubin_sha256 == other_build.cubin_sha256)
