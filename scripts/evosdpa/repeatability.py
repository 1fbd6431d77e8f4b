"""One binary against itself: several copies in each process, several runs. A verdict other than same or undecided is a false one."""

from __future__ import annotations

import collections
import itertools
from pathlib import Path
from typing import Any

from evosdpa import benchmarking, between_runs, device as devices, evidence, keys, machine, stats
from evosdpa.config import Config
from evosdpa.evidence import Bench, Build, Repeatability, Status, Timing, Verify
from evosdpa.rival_names import ANCHOR
from evosdpa.variants import Variant

FALSE_SHARE = 0.05
"""False verdicts that may occur: 1 in 20, what a 95 % interval promises."""

BETWEEN_COPIES = 2
"""Copies that are compared between each two runs: with five runs, 20 tries."""


def repeatability_parts(build: Build, config: Config, on_cpu: bool) -> dict[str, str]:
    """The parts of the content key as they are today: those of a bench, how often it is repeated and how two runs are compared."""
    parts = benchmarking.bench_parts(build, config, on_cpu)
    settings = [parts["protocol"], config.repeatability.runs, config.repeatability.copies, config.goal.problem, config.goal.modes, keys.modules("between_runs")]
    return {**parts, "protocol": keys.protocol(settings)}


def measure(variant: Variant, config: Config, device: str, build: Build, verify: Verify, library: Path,
            floors: dict[str, benchmarking.Library]) -> Repeatability:
    """Time copies of one binary on the goal's problem in as many runs as configured, and judge every pair as a bench would."""
    settings = config.repeatability
    parts = repeatability_parts(build, config, variant.on_cpu)
    problem = config.bench.cpu_problems[0] if variant.on_cpu else config.goal.problem
    record = Repeatability(variant=variant.name, device=device, started=evidence.now(), key_parts=parts, key=keys.combine(parts), git=machine.git_state(),
                           problem=problem, copies=settings.copies, runs=settings.runs)
    if reason := benchmarking.untimed(build, verify):
        record.status, record.reason = Status.NOT_RUN, reason
    else:
        modes = ["warm"] if variant.on_cpu else list(config.goal.modes)
        copies = [f"{variant.name}#{number}" for number in range(1, settings.copies + 1)]
        libraries = {**{name: benchmarking.loadable(library, build) for name in copies}, **floors}
        runs: list[Bench] = []
        with devices.hold(None if variant.on_cpu else machine.gpus_for(device)) as held:
            for run in range(settings.runs):
                bench = Bench(variant=variant.name, device=device)
                label = f"{variant.name} against itself, run {run + 1} of {settings.runs}"
                benchmarking.measure(bench, held, config, libraries, list(floors), [ANCHOR], [problem], [], label, modes=modes)
                runs.append(bench)
                if bench.status is not Status.OK:
                    break
        record.device_info, record.tools = runs[0].device_info, runs[0].tools
        bad = next((bench for bench in runs if bench.status is not Status.OK), None)
        if bad:
            record.status, record.reason, record.log = bad.status, bad.reason, bad.log
        else:
            _judge(record, runs, copies, modes)
    record.ended = evidence.now()
    return record


def _judge(record: Repeatability, runs: list[Bench], copies: list[str], modes: list[str]) -> None:
    """Fill in medians, tries and counts; too many false verdicts make the status `failed`."""
    for mode in modes:
        timed = [{timing.name: timing for timing in bench.timings if timing.mode == mode} for bench in runs]
        lost = [timing for run in timed for name, timing in run.items() if name in (*copies, ANCHOR) and timing.status is not Status.OK]
        if lost:
            record.status, record.reason = lost[0].status, f"{lost[0].name} {mode}: {lost[0].reason}"
            return
        record.medians_us[mode] = [[run[name].process_medians_us for name in copies] for run in timed]
        record.tries += within(timed, copies, mode) + between(timed, copies, mode)
    record.counts = counts(record.tries)
    for one in record.counts:
        wrong = one["faster"] + one["slower"]
        if wrong > FALSE_SHARE * one["tries"]:
            record.status = Status.FAILED
            record.reason = f"{one['kind']} processes, {one['mode']}: {wrong} of {one['tries']} verdicts tell a binary apart from itself"


def _try(kind: str, mode: str, runs: list[int], names: list[str], ratio: stats.Estimate) -> dict[str, Any]:
    low, high = ratio.interval() or (None, None)
    return dict(kind=kind, mode=mode, runs=runs, copies=names, ratio=ratio.value, low=low, high=high, verdict=stats.verdict(ratio))


def within(timed: list[dict[str, Timing]], copies: list[str], mode: str) -> list[dict[str, Any]]:
    """Disjoint pairs of copies in the same processes, as finalists are compared."""
    return [_try("within", mode, [number], [one, other], stats.ratio_within(run[one].process_medians_us, run[other].process_medians_us))
            for number, run in enumerate(timed) for one, other in zip(copies[::2], copies[1::2])]


def between(timed: list[dict[str, Timing]], copies: list[str], mode: str) -> list[dict[str, Any]]:
    """The same copies in each two runs, through the anchor, as a variant is compared with a rival that was timed in another run."""
    def over_anchor(run: dict[str, Timing], name: str) -> stats.Estimate:
        return stats.ratio_within(run[name].process_medians_us, run[ANCHOR].process_medians_us)

    return [_try("between", mode, [first, second], [name], between_runs.quotient(over_anchor(timed[first], name), over_anchor(timed[second], name)))
            for first, second in itertools.combinations(range(len(timed)), 2) for name in copies[:BETWEEN_COPIES]]


def counts(tries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Verdicts counted by kind and mode."""
    groups: dict[tuple[str, str], collections.Counter[str]] = {}
    for one in tries:
        groups.setdefault((one["kind"], one["mode"]), collections.Counter())[one["verdict"]] += 1
    return [dict(kind=kind, mode=mode, tries=found.total(), **{name: found[name] for name in ("same", "undecided", "faster", "slower")})
            for (kind, mode), found in groups.items()]
