"""Which variants stay: finalists are timed together, in the same processes, and a newcomer passes an elder only with the verdict
`faster`. Decided from evidence that is current because Snakemake made it so; nothing here looks at the sources again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evosdpa import between_runs, evidence, standing, stats
from evosdpa.config import Config
from evosdpa.evidence import Bench, Head, Status, Timing
from evosdpa.evolve import credit, lineage
from evosdpa.evolve.lineage import Child, History, Population, Result, Screening
from evosdpa.stats import Estimate

Times = dict[str, Timing]
"""A variant's times on the evolution's problem, by mode."""

Steps = Mapping[str, Head]
"""A variant's evidence, by kind."""


# How each stands by its own run

@dataclass(frozen=True)
class Standing:
    """How a variant stands by its own evidence: ok with a good time in every mode, or why not."""

    status: Status
    reason: str
    times: Times
    over_anchor: float = math.inf
    """Time over the anchor's of the same processes, the geometric mean over the modes: what two runs can be compared by."""


def stand(steps: Steps, problem: str, modes: list[str]) -> Standing:
    """How a variant stands on the evolution's problem."""
    status, reason = standing.of_steps(steps)
    bench = steps.get("bench")
    company = bench.anchors if isinstance(bench, Bench) else []
    times = {one.mode: one for one in (bench.timings if isinstance(bench, Bench) else []) if one.problem == problem and one.mode in modes}
    for mode in modes if status is Status.OK else ():
        timing = times.get(mode)
        if timing is None:
            status, reason = Status.NOT_RUN, f"{problem} was not timed in mode {mode}"
        elif timing.status is not Status.OK:
            status, reason = timing.status, f"{mode}: {timing.reason}"
        elif (over := standing.over_floor(timing, company)) and (doubt := standing.suspicion(*over)):
            status, reason = Status.SUSPECT, doubt
        if status is not Status.OK:
            break
    return Standing(status, reason, times, _over_anchor(times, company) if status is Status.OK else math.inf)


def _over_anchor(times: Times, company: list[Timing]) -> float:
    logs = []
    for timing in times.values():
        anchor = standing.anchor_beside(timing, company)
        if anchor is None:
            return math.inf
        logs.append(stats.ratio_within(timing.process_medians_us, anchor.process_medians_us).log_mean)
    return math.exp(sum(logs) / len(logs))


def finalists(elites: list[str], stands: Mapping[str, Standing], places: int) -> list[str]:
    """The elites that are still right and the children that are: the best of each source first, then the next best, as many as there are
    places. Nobody when no child is right, because then nothing can change."""
    right = sorted((name for name, one in stands.items() if name not in elites and one.status is Status.OK), key=lambda name: (stands[name].over_anchor, name))
    chosen = first_of_each(right)[:places]
    chosen += [name for name in right if name not in chosen][:places - len(chosen)]
    return [*(name for name in elites if stands[name].status is Status.OK), *chosen] if chosen else []


def first_of_each(order: list[str]) -> list[str]:
    """The first variant of each source (a generator's child counts to its ancestor's), in their order."""
    return sorted({lineage.root_of(name): name for name in reversed(order)}.values(), key=order.index)


# Ratios

def within(above: Times, below: Times) -> dict[str, dict[str, Any]]:
    """The ratio of two variants that were timed in the same processes, by mode, with interval and verdict; only modes with both times."""
    return {mode: told(ratio, "within") for mode, ratio in _ratios(above, below).items()}


def _ratios(above: Times, below: Times) -> dict[str, Estimate]:
    found = {}
    for mode, one in above.items():
        other = below.get(mode)
        if other and one.status is other.status is Status.OK and len(one.process_medians_us) == len(other.process_medians_us):
            found[mode] = stats.ratio_within(one.process_medians_us, other.process_medians_us)
    return found


def between(above: Times, above_anchors: list[Timing], below: Times, below_anchors: list[Timing]) -> dict[str, dict[str, Any]]:
    """The same of two variants that were timed in two runs, through the anchor that was timed in both."""
    found = {}
    for mode, one in above.items():
        other = below.get(mode)
        if not other or not one.status is other.status is Status.OK:
            continue
        here, there = standing.anchor_beside(one, above_anchors), standing.anchor_beside(other, below_anchors)
        if here and there:
            ratio = between_runs.quotient(stats.ratio_within(one.process_medians_us, here.process_medians_us),
                                          stats.ratio_within(other.process_medians_us, there.process_medians_us))
            found[mode] = told(ratio, "between")
    return found


def told(ratio: Estimate, how: str) -> dict[str, Any]:
    """A ratio as a result's `against` has it."""
    low, high = ratio.interval() or (None, None)
    return dict(ratio=ratio.value, low=low, high=high, error=ratio.log_error if math.isfinite(ratio.log_error) else None, verdict=stats.verdict(ratio), how=how)


# Who stays

def beats(above: Times, below: Times, comparisons: int) -> bool:
    """Whether one is faster than the other: surely in one mode at least, and surely slower in none.

    Of many comparisons one in twenty would err, so the level of each is 5 % over their number (Bonferroni).
    """
    return credit.overall([stats.verdict(ratio, max(1, comparisons)) for ratio in _ratios(above, below).values()]) == "faster"


def ranked(elders: list[str], newcomers: list[str], timed: Mapping[str, Times]) -> list[str]:
    """Everybody, the fastest first as far as verdicts tell: each, elders first and in their old order, goes before the first of those there that it
    beats, but behind all that beat it; at the end when it beats nobody. So a tie or an open question keeps the elder.

    A newcomer without a good time is left out; an elder without one keeps its place.
    """
    good = [name for name in newcomers if timed.get(name) and all(one.status is Status.OK and one.time_us for one in timed[name].values())]
    comparisons = max(1, len(good)) * max((len(times) for times in timed.values()), default=1)
    order: list[str] = []
    for name in [*elders, *sorted(good, key=lambda name: (_mean(timed[name]), name))]:
        own = timed.get(name, {})
        behind = max((place for place, other in enumerate(order, 1) if beats(timed.get(other, {}), own, comparisons)), default=0)
        place = next((place for place in range(behind, len(order)) if beats(own, timed.get(order[place], {}), comparisons)), len(order))
        order.insert(place, name)
    return order


def _mean(times: Times) -> float:
    """Geometric mean over the modes, microseconds."""
    return math.exp(sum(math.log(one.time_us or math.inf) for one in times.values()) / len(times))


def kept(order: list[str], places: int) -> list[str]:
    """The elites: the first of each source first of all, as far as there are places, then whoever comes next; in their order."""
    chosen = first_of_each(order)[:places]
    chosen += [name for name in order if name not in chosen][:places - len(chosen)]
    return [name for name in order if name in chosen]


def select(config: Config, device: str, history: History, screened: Screening, steps: Mapping[str, Steps], finals: Bench) -> Population:
    """The population after a generation; `steps` is the evidence about its children, their parents and the elites, by name, `finals` what was
    timed together."""
    problem, modes = lineage.problem_and_modes(config, device == "cpu")
    children = [child for child in screened.children if not child.dropped]
    stands = {name: stand(found, problem, modes) for name, found in steps.items()}
    timed: dict[str, Times] = {}
    for timing in finals.timings:
        timed.setdefault(timing.name, {})[timing.mode] = timing
    record = Population(**lineage.head(config, device, screened.generation, history.identity), problem=problem, modes=modes, finals_s=evidence.seconds(finals))
    elders = []
    for name in history.elites:
        wrong = next((one for one in timed.get(name, {}).values() if one.status is Status.FAILED), None)
        if stands[name].status is not Status.OK:
            record.left[name] = f"{stands[name].status.value}: {stands[name].reason}"
        elif wrong:
            record.left[name] = f"failed in the finals: {wrong.reason}"
        else:
            elders.append(name)
    right = [child.name for child in children if stands[child.name].status is Status.OK]
    order = ranked(elders, [name for name in right if name in timed], timed)
    if not order:  # nobody is there yet, and the finals decided nothing: their own runs must do
        order = sorted(right, key=lambda name: (stands[name].over_anchor, name))
    record.elites = kept(order, screened.top_k)
    for name in record.elites:
        good = {mode: one.time_us for mode, one in timed.get(name, {}).items() if one.time_us and one.status is Status.OK}
        before = history.generations[-1][1].times_us.get(name) if history.generations else None
        record.times_us[name] = good or before or {mode: one.time_us for mode, one in stands[name].times.items() if one.time_us}
    record.results = [_result(child, stands, steps, timed, record.elites) for child in children]
    if not record.elites:
        wrong = "; ".join(f"{one.name}: {one.status.value}, {one.reason}" for one in record.results)
        record.status, record.reason = Status.FAILED, f"no variant is right and timed: {wrong}" if wrong else "there is no elite to go on from"
    elif finals.status not in (Status.OK, Status.NOT_RUN):
        record.status, record.reason = finals.status, f"finals: {finals.reason}"
    return record


def _result(child: Child, stands: Mapping[str, Standing], steps: Mapping[str, Steps], timed: Mapping[str, Times], elites: list[str]) -> Result:
    """How one child did: its own times, and against its parent, in the finals if both took part, else between their two runs."""
    own = stands[child.name]
    result = Result(name=child.name, status=own.status, reason=own.reason, entered=child.name in elites,
                    times_us={mode: one.time_us for mode, one in own.times.items() if one.time_us},
                    measured_s=sum(evidence.seconds(record) for record in steps[child.name].values()))
    if own.status is not Status.OK or child.parent not in stands or stands[child.parent].status is not Status.OK:
        return result
    if child.name in timed and child.parent in timed:
        result.against = within(timed[child.name], timed[child.parent])
    if not result.against:
        result.against = between(own.times, steps[child.name]["bench"].anchors, stands[child.parent].times, steps[child.parent]["bench"].anchors)
    return result


def against_start(history: History, closing: Bench) -> dict[str, list[dict[str, Any]]]:
    """Each last elite against the variant of its source that the evolution began with, as the closing comparison timed them: by name, an entry
    a mode with start, mode, ratio, low, high, verdict. Nothing for one that was there from the beginning."""
    timed: dict[str, Times] = {}
    for timing in closing.timings:
        timed.setdefault(timing.name, {})[timing.mode] = timing
    found = {}
    for name in history.elites:
        start = next((one for one in history.begun_with if lineage.root_of(one) == lineage.root_of(name)), None)
        if start and start != name:
            ratios = within(timed.get(name, {}), timed.get(start, {}))
            found[name] = [dict(start=start, mode=mode, **one) for mode, one in ratios.items()]
    return found
