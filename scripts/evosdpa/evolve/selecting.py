"""Which variants stay: finalists are timed together, in the same processes, and a newcomer passes an elder only with the verdict
`faster`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evosdpa import benchmarking, between_runs, device as devices, evidence, keys, machine, stats
from evosdpa.config import Config
from evosdpa.evidence import Bench, Build, Status, Timing
from evosdpa.evolve import credit, lineage
from evosdpa.evolve.lineage import Child, History, Population, Result
from evosdpa.gap import Gap, anchor_beside
from evosdpa.rival_names import ANCHOR

Times = dict[str, Timing]
"""A variant's times on the evolution's problem, by mode."""


# Who takes part in the finals

@dataclass(frozen=True)
class Standing:
    """How a variant stands by its own evidence: ok with a good time in every mode, or why not."""

    status: Status
    reason: str
    times: Times


def standings(gap: Gap, device: str, names: list[str], problem: str, modes: list[str]) -> dict[str, Standing]:
    """How each variant stands on the evolution's problem."""
    suspect = {one["name"]: one["reason"] for one in gap.rows()
               if (one["kind"], one["device"], one["problem"], one["status"]) == ("variant", device, problem, Status.SUSPECT.value) and one["mode"] in modes}
    return {name: _standing(gap, device, name, problem, modes, suspect.get(name)) for name in names}


def _standing(gap: Gap, device: str, name: str, problem: str, modes: list[str], suspect: str | None) -> Standing:
    status, reason = gap.status(name, device)
    chain = gap.chains.get((device, name))
    bench: Bench | None = chain.get("bench") if chain else None
    times = {one.mode: one for one in (bench.timings if bench else []) if one.problem == problem and one.mode in modes}
    if status is not Status.OK:
        return Standing(status, reason, times)
    if chain and chain.changed:
        return Standing(Status.NOT_RUN, f"its evidence is stale: {', '.join(chain.changed)}", times)
    for mode in modes:
        timing = times.get(mode)
        if timing is None:
            return Standing(Status.NOT_RUN, f"{problem} was not timed in mode {mode}", times)
        if timing.status is not Status.OK:
            return Standing(timing.status, f"{mode}: {timing.reason}", times)
    return Standing(Status.SUSPECT, suspect, times) if suspect else Standing(Status.OK, "", times)


def finalists(elites: list[str], stands: dict[str, Standing], places: int) -> list[str]:
    """The elites and as many of the children that are right as there are places, the fastest first by their own runs; nobody when no child
    is right, because then nothing can change."""
    right = sorted((name for name, one in stands.items() if one.status is Status.OK), key=lambda name: (_mean(stands[name].times), name))[:places]
    return [*elites, *right] if right else []


def _mean(times: Times) -> float:
    """Geometric mean over the modes, microseconds."""
    return math.exp(sum(math.log(one.time_us or math.inf) for one in times.values()) / len(times))


def measure(config: Config, device: str, names: list[str], libraries: dict[str, tuple[Path, Build]], floors: dict[str, benchmarking.Library], generation: int,
            samples: Path) -> Bench:
    """Time all finalists in the same processes, interleaved, with the anchor and the floors; writes every sample to `samples`."""
    on_cpu = device == "cpu"
    problem, modes = lineage.problem_and_modes(config, on_cpu)
    parts = {**benchmarking.bench_parts(None, config, on_cpu), "binaries": keys.digest(" ".join(libraries[name][1].library_sha256 for name in names))}
    record = Bench(variant=lineage.FINALS, device=device, started=evidence.now(), key_parts=parts, key=keys.combine(parts), git=machine.git_state(),
                   samples_file=samples.name)
    rows: list[tuple] = []
    if len(names) < 2:
        record.status, record.reason = Status.NOT_RUN, "nobody to compare: " + (f"{names[0]} is alone" if names else "no child is right")
    else:
        loaded = {name: benchmarking.loadable(*libraries[name]) for name in names}
        with devices.hold(None if on_cpu else machine.gpus_for(device)) as held:
            benchmarking.measure(record, held, config, {**loaded, **floors}, list(floors), [ANCHOR], [problem], rows,
                                 f"finals of generation {generation}", modes=modes)
        record.anchors = [timing for timing in record.timings if timing.name not in names]
        record.timings = [timing for timing in record.timings if timing.name in names]
    benchmarking.finish(record, rows, samples)
    return record


# Who stays

def within(above: Times, below: Times) -> dict[str, dict[str, Any]]:
    """The ratio of two variants that were timed in the same processes, by mode, with interval and verdict; only modes with both times."""
    found = {}
    for mode, one in above.items():
        other = below.get(mode)
        if other and one.status is other.status is Status.OK and len(one.process_medians_us) == len(other.process_medians_us):
            found[mode] = _told(stats.ratio_within(one.process_medians_us, other.process_medians_us), "within")
    return found


def between(above: Times, above_anchors: list[Timing], below: Times, below_anchors: list[Timing]) -> dict[str, dict[str, Any]]:
    """The same of two variants that were timed in two runs, through the anchor that was timed in both."""
    found = {}
    for mode, one in above.items():
        other = below.get(mode)
        if not other or not one.status is other.status is Status.OK:
            continue
        here, there = anchor_beside(one, above_anchors), anchor_beside(other, below_anchors)
        if here and there:
            ratio = between_runs.quotient(stats.ratio_within(one.process_medians_us, here.process_medians_us),
                                          stats.ratio_within(other.process_medians_us, there.process_medians_us))
            found[mode] = _told(ratio, "between")
    return found


def _told(ratio: stats.Estimate, how: str) -> dict[str, Any]:
    low, high = ratio.interval() or (None, None)
    return dict(ratio=ratio.value, low=low, high=high, verdict=stats.verdict(ratio), how=how)


def ranked(elders: list[str], newcomers: list[str], timed: dict[str, Times]) -> list[str]:
    """Elders in their order, each newcomer before the first of those already there that it beats, or at the end; the fastest first.
    A tie or an open question keeps the elder. A newcomer without a good time is left out."""
    order = list(elders)
    good = [name for name in newcomers if timed.get(name) and all(one.status is Status.OK and one.time_us for one in timed[name].values())]
    for name in sorted(good, key=lambda name: (_mean(timed[name]), name)):
        place = next((index for index, other in enumerate(order) if beats(timed[name], timed.get(other, {}))), len(order))
        order.insert(place, name)
    return order


def beats(above: Times, below: Times) -> bool:
    """Whether one is faster than the other by verdict: in one mode at least, and slower in none."""
    return credit.overall(one["verdict"] for one in within(above, below).values()) == "faster"


def kept(order: list[str], places: int) -> list[str]:
    """The elites: the first of each source first of all, as far as there are places, then whoever comes next; in their order."""
    first = list({credit.source_of(name): name for name in reversed(order)}.values())
    chosen = sorted(first, key=order.index)[:places]
    chosen += [name for name in order if name not in chosen][:places - len(chosen)]
    return [name for name in order if name in chosen]


def select(config: Config, device: str, generation: int, history: History, screened: list[Child], gap: Gap, finals: Bench) -> Population:
    """The population after a generation: `gap` holds the evidence about the children and the elites, `finals` what was timed together."""
    problem, modes = lineage.problem_and_modes(config, device == "cpu")
    children = [child for child in screened if not child.dropped]
    stands = standings(gap, device, [child.name for child in children], problem, modes)
    timed: dict[str, Times] = {}
    for timing in finals.timings:
        timed.setdefault(timing.name, {})[timing.mode] = timing
    if finals.status is Status.NOT_RUN:  # there was nobody to compare: at most one child, and no elder, is right
        order = history.elites or [name for name, one in stands.items() if one.status is Status.OK][:1]
    else:
        order = ranked(history.elites, [name for name in stands if name in timed], timed)
    elites = kept(order, config.evolve.top_k)
    earlier = history.generations[-1][1].times_us if history.generations else {}
    record = Population(**lineage.head(config, device, generation), problem=problem, modes=modes, elites=elites, finals_s=evidence.seconds(finals))
    for name in elites:
        own = timed.get(name) or (stands[name].times if name in stands else {})
        record.times_us[name] = {mode: one.time_us for mode, one in own.items() if one.time_us} or earlier.get(name, {})
    record.results = [_result(child, stands[child.name], gap, device, timed, elites) for child in children]
    if not elites:
        record.status, record.reason = Status.FAILED, "no variant to begin with is right and timed: " + "; ".join(
            f"{one.name}: {one.status.value}, {one.reason}" for one in record.results)
    elif finals.status not in (Status.OK, Status.NOT_RUN):
        record.status, record.reason = finals.status, f"finals: {finals.reason}"
    return record


def _result(child: Child, stand: Standing, gap: Gap, device: str, timed: dict[str, Times], elites: list[str]) -> Result:
    """How one child did: its own times, and against its parent, in the finals if both took part, else between their two runs."""
    result = Result(name=child.name, status=stand.status, reason=stand.reason, entered=child.name in elites,
                    times_us={mode: one.time_us for mode, one in stand.times.items() if one.time_us})
    chain, parent = gap.chains.get((device, child.name)), gap.chains.get((device, child.parent or ""))
    if chain:
        result.measured_s = sum(evidence.seconds(piece.record) for kind, piece in chain.pieces.items() if kind in ("verify", "sanitize", "bench", "profile"))
    if stand.status is not Status.OK or not child.parent:
        return result
    if child.name in timed and child.parent in timed:
        result.against = within(timed[child.name], timed[child.parent])
    elif chain and parent and not parent.changed and (bench := parent.get("bench")):
        problem = next(iter(stand.times.values())).problem
        theirs = {one.mode: one for one in bench.timings if one.problem == problem}
        result.against = between(stand.times, chain.get("bench").anchors, theirs, bench.anchors)
    return result
