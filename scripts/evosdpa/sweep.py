"""One variant over many problems: is it as fast as the best of the variants that it chooses from, and as the best rival? All are timed in the
same processes, so that each ratio is formed within a process."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evosdpa import benchmarking, device as devices, evidence, keys, machine, standing, stats
from evosdpa import problem as problems
from evosdpa.config import Config
from evosdpa.evidence import Build, Status, Sweep, Timing, Verify
from evosdpa.rival_names import ANCHOR, RIVALS
from evosdpa.variants import Variant

MODE = "warm"
"""The mode of every time of a sweep."""

CUDNN = "sdpa-cudnn"

OF_A_SOURCE = ("source", "headers", "levers", "flags")
"""Parts of a build's key that say which kernel it is, whoever compiled it."""

SOURCE, BINARY = "'s source", "'s binary"
"""How the names of the two parts end that a variant beside the swept one has in the key, behind its own name."""


@dataclass(frozen=True)
class Rung:
    """A variant beside the one that is judged: what compiling and verifying it gave, and its library."""

    build: Build
    verify: Verify
    library: Path


def rungs(libraries: Iterable[Path], verdicts: Iterable[Path]) -> list[Rung]:
    """Rungs from the paths of their libraries (build.json beside each) and of their verify.json, in the same order. Raises EvidenceError."""
    return [Rung(evidence.read(library.with_name("build.json"), Build), evidence.read(verdict, Verify), library)
            for library, verdict in zip(libraries, verdicts, strict=True)]


def swept(config: Config) -> Config:
    """The configuration with the sweep's own timing settings in the place of a bench's."""
    own = dict(processes=config.sweep.processes, samples=config.sweep.samples, mode_budget_s=config.sweep.mode_budget_s, timeout_s=config.sweep.timeout_s,
               gpu_modes=[MODE])
    return config.model_copy(update={"bench": config.bench.model_copy(update=own)})


def rivals(config: Config, on_cpu: bool) -> list[str]:
    """The rivals of a sweep on a kind of device."""
    return [name for name in config.sweep.rivals if name in RIVALS["cpu" if on_cpu else "cuda"]] or [ANCHOR]


def sweep_parts(build: Build, beside: Iterable[Build], config: Config, on_cpu: bool) -> dict[str, str]:
    """The parts of the content key as they are today. Of each variant beside it two, its source and its binary (`ignored` says which counts). Which
    problems are timed is no part of it, as for a bench."""
    parts = benchmarking.bench_parts(build, swept(config), on_cpu)
    protocol = keys.protocol([parts["protocol"], rivals(config, on_cpu), config.sweep.beside_limit, config.sweep.rival_limit])
    company: dict[str, str] = {}
    for one in beside:
        company[one.variant + SOURCE] = keys.protocol([one.key_parts.get(part) for part in OF_A_SOURCE])
        company[one.variant + BINARY] = one.library_sha256
    return {**parts, "protocol": protocol, "judging": keys.modules("timings", "steadiness", "stats", "standing", "sweep"), **company}


def ignored(parts: Iterable[str], here: bool) -> tuple[str, ...]:
    """Parts that are not compared: evidence of this machine is matched by its rungs' binaries, recorded evidence by their sources."""
    return tuple(part for part in parts if part.endswith(SOURCE if here else BINARY))


def measure(variant: Variant, config: Config, device: str, build: Build, verify: Verify, library: Path, floors: dict[str, benchmarking.Library],
            beside: list[Rung], samples: Path) -> Sweep:
    """Time a variant on every problem of the sweep, interleaved with the variants beside it, the rivals and the floors, and judge it; writes every
    sample to `samples` (gzipped CSV).

    A variant that is not right is not timed, and nothing with it; one beside it that is not right is left out, with the reason.
    """
    parts = sweep_parts(build, [rung.build for rung in beside], config, variant.on_cpu)
    record = Sweep(variant=variant.name, device=device, started=evidence.now(), key_parts=parts, key=keys.combine(parts), git=machine.git_state(),
                   samples_file=samples.name, problems=list(config.sweep.problems), rivals=rivals(config, variant.on_cpu),
                   beside_limit=config.sweep.beside_limit, rival_limit=config.sweep.rival_limit)
    rows: list[tuple] = []
    if reason := benchmarking.untimed(build, verify):
        record.status = verify.status if build.status is Status.OK and verify.status is Status.UNSUPPORTED else Status.NOT_RUN
        record.reason = reason
    else:
        record.left_out = {rung.build.variant: reason for rung in beside if (reason := benchmarking.untimed(rung.build, rung.verify))}
        good = [rung for rung in beside if rung.build.variant not in record.left_out]
        libraries = {one.variant: benchmarking.loadable(path, one) for one, path in [(build, library), *((rung.build, rung.library) for rung in good)]}
        record.tools = {"compiler": build.tools.get("compiler", ""), "library": build.library_sha256}
        os.environ["TRITON_CACHE_AUTOTUNING"] = "1"  # or each process would try all of its configurations again, on every problem
        with devices.hold(None if variant.on_cpu else machine.gpus_for(device)) as held:
            record.started = evidence.now()  # waiting for the device is no measuring
            benchmarking.measure(record, held, swept(config), {**libraries, **floors}, list(floors), record.rivals, record.problems, rows,
                                 f"{variant.name} over {len(record.problems)} problems")
        judge(record, [rung.build.variant for rung in beside])
    data = benchmarking.samples_csv(rows)
    evidence.write_bytes(samples, data)
    record.samples_sha256, record.ended = keys.digest(data), evidence.now()
    return record


def judge(record: Sweep, beside: list[str]) -> None:
    """Fill in `results` from the timings, and the status unless the measurement itself broke.

    A limit is held against the ratio itself, not against its interval: "within 1.05" is a promise about the time, and with few processes the interval
    would excuse what is slower. The interval stands beside it. `failed` names the problem that is furthest beyond a limit; else the status is that
    of the first problem on which the variant has no right time, or `not_run` where there was nothing right to compare it with.
    """
    for timing in record.timings:
        if timing.status is Status.OK:
            timing.span = {}
    for problem in record.problems:
        record.results.append(_entry(record, problem, {one.name: one for one in record.timings if one.problem == problem}, beside))
    if record.status is not Status.OK:
        return
    wrong = [one for one in record.results if one["status"] == Status.FAILED]
    missed = sorted((-entry[kind]["ratio"] / limit, entry["problem"], kind) for entry in record.results
                    for kind, limit in (("beside", record.beside_limit), ("rival", record.rival_limit)) if entry[f"met_{kind}"] is False)
    untimed = [one for one in record.results if one["status"] != Status.OK]
    alone = [(one["problem"], what) for one in record.results for kind, what in (("beside", "variant beside it"), ("rival", "rival")) if one[f"met_{kind}"] is None]
    if wrong:
        record.status, record.reason = Status.FAILED, f"{wrong[0]['problem']}: {wrong[0]['reason']}"
    elif missed:
        _, problem, kind = missed[0]
        worst = next(one for one in record.results if one["problem"] == problem)[kind]
        limit, what = (record.beside_limit, "the best variant beside it") if kind == "beside" else (record.rival_limit, "the best rival")
        over = len({name for _, name, _ in missed})
        record.status = Status.FAILED
        record.reason = (f"{problem}: {worst['ratio']:.3f} of the time of {worst['name']}, {what}; at most {limit:g} is wanted; "
                         f"over a limit on {over} of {len(record.results)} problems")
    elif untimed:
        record.status = Status(untimed[0]["status"])
        record.reason = f"no right time on {len(untimed)} of {len(record.results)} problems; {untimed[0]['problem']}: {untimed[0]['reason']}"
    elif alone:
        problem, what = alone[0]
        over = len({name for name, _ in alone})
        record.status, record.reason = Status.NOT_RUN, f"{problem}: no {what} has a right time to compare with; so on {over} of {len(record.results)} problems"


def _entry(record: Sweep, problem: str, timed: dict[str, Timing], beside: list[str]) -> dict[str, Any]:
    """What one problem's timings, by name, say about the variant."""
    own = timed[record.variant]
    for name in (record.variant, *beside):
        if (one := timed.get(name)) and one.status is Status.OK and (found := standing.over_floor(one, list(timed.values()))) and (
                reason := standing.suspicion(*found)):
            one.status, one.reason = Status.SUSPECT, reason
    rung, rival, cudnn = _best(timed, beside), _best(timed, record.rivals), _best(timed, [CUDNN])
    entry = dict(problem=problem, status=own.status.value, reason=own.reason, time_us=own.time_us, ci_low_us=own.ci_low_us, ci_high_us=own.ci_high_us,
                 tflops=problems.parse(problem).flops / own.time_us / 1e6 if own.time_us else None,
                 beside=_against(own, rung), rival=_against(own, rival), cudnn=_against(own, cudnn))
    entry["met_beside"] = _met(entry["beside"], record.beside_limit)
    entry["met_rival"] = _met(entry["rival"], record.rival_limit)
    entry["rungs"] = [_rung(name, timed.get(name), record.left_out.get(name, ""), rival, cudnn) for name in beside]
    entry["untimed"] = {name: f"{timed[name].status.value}: {timed[name].reason}" for name in record.rivals if not _good(timed[name])}
    return entry


def _good(timing: Timing | None) -> bool:
    """Whether a time may be compared."""
    return timing is not None and timing.status is Status.OK and bool(timing.time_us)


def _best(timed: dict[str, Timing], names: Iterable[str]) -> Timing | None:
    """The smallest right time among some names."""
    return min((timed[name] for name in names if _good(timed.get(name))), key=lambda one: one.time_us, default=None)


def _against(own: Timing, other: Timing | None) -> dict[str, Any] | None:
    """A time over another's of the same processes, with interval and verdict; None unless both are right and of as many processes."""
    if other is None or not _good(own) or len(own.process_medians_us) != len(other.process_medians_us):
        return None
    ratio = stats.ratio_within(own.process_medians_us, other.process_medians_us)
    low, high = ratio.interval() or (None, None)
    return dict(name=other.name, time_us=other.time_us, ratio=ratio.value, low=low, high=high, verdict=stats.verdict(ratio))


def _met(against: dict[str, Any] | None, limit: float) -> bool | None:
    """Whether a ratio is within its limit; None without one."""
    return None if against is None else against["ratio"] <= limit


def _rung(name: str, timing: Timing | None, left_out: str, rival: Timing | None, cudnn: Timing | None) -> dict[str, Any]:
    """How one of the variants beside it fares on a problem."""
    if timing is None:
        return dict(name=name, status=Status.NOT_RUN.value, reason=left_out, time_us=None, rival=None, cudnn=None)
    return dict(name=name, status=timing.status.value, reason=timing.reason, time_us=timing.time_us, rival=_against(timing, rival), cudnn=_against(timing, cudnn))
