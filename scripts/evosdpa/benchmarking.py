"""Bench one variant or one rival: fresh processes, interleaved anchors, intervals over processes, every sample kept."""

from __future__ import annotations

import csv
import gzip
import io
import secrets
from pathlib import Path
from typing import Any

from evosdpa import device as devices, evidence, isolate, keys, machine, steadiness, timings, variants
from evosdpa.config import BenchSection, Config
from evosdpa.device import Held
from evosdpa.evidence import Bench, Build, Status, Verify
from evosdpa.progress import Progress
from evosdpa.rival_names import ANCHOR, RIVALS
from evosdpa.variants import Variant

COMPANY = 100
"""Process numbers of one rival's run begin at a multiple of this."""

Library = dict[str, str]
"""path and sha256 of a library, as a worker's task has them."""


def protocol(config: Config, on_cpu: bool) -> dict[str, Any]:
    """Settings that decide the numbers."""
    settings = config.bench.model_dump(exclude={"timeout_s"})
    for name in ("samples", "gpu_modes", "cpu_problems") if on_cpu else ("cpu_samples", "cpu_problems"):
        del settings[name]
    return {**settings, "tolerance": config.verify.tolerance}


def problems_for(variant: Variant | None, config: Config, on_cpu: bool) -> list[str]:
    """Problems to time: the variant's own list or all of the device's; the goal's first."""
    entry = config.variants.get(variant.name) if variant else None
    everything = config.bench.cpu_problems if on_cpu else config.problems
    names = entry.problems if entry and entry.problems is not None else everything
    return sorted(names, key=lambda name: name != config.goal.problem)


def bench_parts(build: Build | None, config: Config, on_cpu: bool) -> dict[str, str]:
    """The parts of the content key as they are today; without a build those of the rivals. Which problems are timed is no part
    of it: a problem more does not make the times of the others wrong."""
    binary = {**build.key_parts, "binary": build.library_sha256} if build else {}
    floors = [variants.resolve(name) for name in variants.floors()]
    sources = sorted({path for floor in floors if floor.on_cpu == on_cpu for path in (floor.source, *variants.includes(floor.source))})
    return {**binary, "protocol": keys.protocol(protocol(config, on_cpu)), "floors": keys.sources(sources), "harness": keys.harness("bench"),
            "judging": keys.modules("timings", "steadiness", "stats")}


def untimed(build: Build, verify: Verify) -> str:
    """Why a variant may not be timed; empty when it may."""
    if build.status is not Status.OK:
        return f"not built: {build.reason}"
    return "" if verify.status is Status.OK else f"not timed because verify says {verify.status.value}: {verify.reason}"


def bench_variant(variant: Variant, config: Config, device: str, build: Build, verify: Verify, library: Path,
                  floors: dict[str, Library], samples: Path) -> Bench:
    """Time one variant with the anchor and the floors interleaved; writes every sample to `samples` (gzipped CSV).

    A variant that is not right is not timed: the status says what verify said.
    """
    parts = bench_parts(build, config, variant.on_cpu)
    record = Bench(variant=variant.name, device=device, started=evidence.now(), key_parts=parts, key=keys.combine(parts),
                   git=machine.git_state(), samples_file=samples.name)
    rows: list[tuple] = []
    if reason := untimed(build, verify):
        record.status = verify.status if build.status is Status.OK and verify.status is Status.UNSUPPORTED else Status.NOT_RUN
        record.reason = reason
    else:
        record.tools = {"compiler": build.tools.get("compiler", ""), "library": build.library_sha256}
        with devices.hold(None if variant.on_cpu else machine.gpus_for(device)) as held:
            record.started = evidence.now()  # waiting for the device is no measuring
            measure(record, held, config, {variant.name: loadable(library, build), **floors}, list(floors), [ANCHOR],
                    problems_for(variant, config, variant.on_cpu), rows)
        record.anchors = [timing for timing in record.timings if timing.name != variant.name]
        record.timings = [timing for timing in record.timings if timing.name == variant.name]
    finish(record, rows, samples)
    return record


def loadable(library: Path, build: Build) -> Library:
    """A library as a worker's task names it: the worker loads it only if it still is what was built."""
    return {"path": str(library.resolve()), "sha256": build.library_sha256}


def built_floors(libraries: list[Path]) -> dict[str, Library]:
    """Floors by name from the paths of their libraries (results/build/<arch>/<name>/kernel.so, build.json beside it); one that
    did not compile is left out. Raises EvidenceError."""
    built = {path: evidence.read(path.with_name("build.json"), Build) for path in libraries}
    return {path.parent.name: loadable(path, build) for path, build in built.items() if build.status is Status.OK}


def bench_rival(name: str, config: Config, device: str, floors: dict[str, Library], samples: Path) -> Bench:
    """Time one rival under the same protocol and in the same company as a variant: in processes of its own, with the anchor and the
    floors. All rivals together in one process would be slower, since what a process has loaded changes what a launch costs."""
    on_cpu = device == "cpu"
    parts = bench_parts(None, config, on_cpu)
    record = Bench(variant=name, device=device, started=evidence.now(), key_parts=parts, key=keys.combine(parts),
                   git=machine.git_state(), samples_file=samples.name)
    rows: list[tuple] = []
    first = COMPANY * RIVALS["cpu" if on_cpu else "cuda"].index(name)
    with devices.hold(None if on_cpu else machine.gpus_for(device)) as held:
        measure(record, held, config, floors, list(floors), list(dict.fromkeys([ANCHOR, name])), problems_for(None, config, on_cpu), rows,
                first_process=first, subject=name)
    if name != ANCHOR:  # in the anchor's own run the floors are what it is shown beside
        record.anchors = [timing.model_copy(update={"beside": name}) for timing in record.timings if timing.name != name]
        record.timings = [timing for timing in record.timings if timing.name == name]
    finish(record, rows, samples)
    return record


def join_rivals(device: str, paths: list[Path], samples: Path) -> Bench:
    """All rivals' runs as one piece of evidence; `paths` are their bench.json files, each with its samples beside it. A rival that is
    not available is a timing without a time; one whose run broke makes the whole `error` or `timeout`. Raises EvidenceError."""
    runs = [evidence.read(path, Bench) for path in paths]
    first = runs[0]
    for path, run in zip(paths, runs):
        evidence.check_samples(path, run)
        if changed := keys.changed(run.key_parts, first.key_parts):
            raise evidence.EvidenceError(f"{path}: differs from {paths[0]} in {', '.join(changed)}; delete it to have it made again")
    record = Bench(variant="rivals", device=device, started=min(run.started for run in runs), key_parts=first.key_parts, key=first.key,
                   git=first.git, samples_file=samples.name, device_info=first.device_info, process_kind=first.process_kind)
    for run in runs:
        record.timings += run.timings
        record.anchors += run.anchors
        record.clocks += run.clocks
        record.tools.update(run.tools)
        record.libraries.update(run.libraries)
        record.seeds.update(run.seeds)
        record.processes = max(record.processes, run.processes)
    broken = next((run for run in runs if run.status in (Status.ERROR, Status.TIMEOUT)), None)
    if broken:
        record.status, record.reason, record.log = broken.status, f"{broken.variant}: {broken.reason}", broken.log
    data = samples_csv([tuple(row) for path in paths for row in read_samples(path.with_name(evidence.SAMPLES))])
    evidence.write_bytes(samples, data)
    record.samples_sha256, record.ended = keys.digest(data), max(run.ended for run in runs)
    return record


def measure(record: Bench, held: Held, config: Config, libraries: dict[str, Library], floors: list[str], rivals: list[str],
            problems: list[str], rows: list[tuple], label: str = "", first_process: int = 0, subject: str = "", **more: Any) -> None:
    """Run the processes on a held device, then fill the record's timings and clocks and the list of samples (process, name,
    problem, mode, round, microseconds, whether its process counts). `more` replaces parts of the workers' task.

    On a GPU, problems and modes in which processes were rejected (steadiness.py) are measured in up to RETRIES further ones. When
    `subject` got no time at all in the first process, it will get none in the others, which are left out.
    """
    on_cpu = held.gpu is None
    record.device_info = machine.describe(held.gpu)
    settings = config.bench
    record.process_kind = "forked" if on_cpu else "spawned"
    task = dict(
        device="cpu" if on_cpu else "cuda", libraries=libraries, floors=floors,
        rivals=rivals, problems=problems, modes=["warm"] if on_cpu else list(settings.gpu_modes), seed=secrets.randbelow(2**31),
        samples=settings.cpu_samples if on_cpu else settings.samples, replay_us=settings.replay_us,
        mode_budget_s=settings.mode_budget_s, max_call_s=settings.max_call_s, tolerance=config.verify.tolerance) | more
    record.seeds[record.variant] = task["seed"]
    reports: list[dict[str, Any]] = []
    failure = _run_processes(held, settings, task, reports, f"{label or record.variant} bench", first_process, subject)
    for retry in range(steadiness.RETRIES):
        short = [] if on_cpu or failure else timings.short_of_processes(reports, settings.processes)
        if not short:
            break
        again = task | dict(processes=[first_process + settings.processes + retry], problems=list(dict.fromkeys(problem for problem, _ in short)),
                            modes=list(dict.fromkeys(mode for _, mode in short)))
        failure = _run_process(held, settings.timeout_s, again, reports)
    for start in (one for one in reports if one.get("event") == "start"):
        record.tools.update({"torch": start["torch"], **start["rivals"]})
    timings.summarise(record, reports, rows, [*libraries, *rivals], problems, task["modes"], settings.processes, on_cpu)
    if failure is not None:
        record.status, record.reason, record.log = failure.status, f"measuring process: {failure.reason}", failure.log


def _run_processes(held: Held, settings: BenchSection, task: dict[str, Any], reports: list[dict[str, Any]], label: str, first: int,
                   subject: str) -> isolate.Outcome | None:
    """Run all processes: on a GPU each anew, on a CPU forked by one worker. Returns the last bad end, which ends a CPU's run and,
    when it is a hang or a sick device, a GPU's too."""
    processes = list(range(first, first + settings.processes))
    if held.gpu is None:
        return _run_process(held, settings.timeout_s * settings.processes, task | dict(processes=processes), reports)
    progress = Progress(label, settings.processes)
    failure = None
    for number, index in enumerate(processes, 1):
        ended = _run_process(held, settings.timeout_s, task | dict(processes=[index], spans=number == 1), reports)
        failure = ended or failure
        progress.step(number)
        if ended and ended.status is Status.TIMEOUT:
            break
        if subject and not any(one.get("event") == "samples" and one["name"] == subject for one in reports):
            break
    return failure


def _run_process(held: Held, timeout_s: float, task: dict[str, Any], reports: list[dict[str, Any]]) -> isolate.Outcome | None:
    """Run one worker and collect its reports; None when it ended well, which takes more than a status of 0."""
    outcome = held.run(isolate.python_worker("bench"), timeout_s, task)
    reports += outcome.reports
    if outcome.status is not Status.OK:
        return outcome
    ended = {one["process"] for one in outcome.reports if one.get("event") == "measured"}
    missing = [process for process in task["processes"] if process not in ended]
    if not missing:
        return None
    return isolate.Outcome(Status.ERROR, f"{missing[0]} ended by itself, with status 0, before it was done", outcome.log)


def finish(record: Bench, rows: list[tuple], samples: Path) -> None:
    """Write the samples and settle the record's status."""
    data = samples_csv(rows)
    evidence.write_bytes(samples, data)
    record.samples_sha256 = keys.digest(data)
    if record.status is Status.OK and record.timings:
        good = [timing for timing in record.timings if timing.status is Status.OK]
        wrong = [timing for timing in record.timings if timing.status is Status.FAILED]
        if wrong:
            record.status, record.reason = Status.FAILED, f"{wrong[0].problem} {wrong[0].mode}: {wrong[0].reason}"
        elif not good:
            record.status, record.reason = record.timings[0].status, record.timings[0].reason
    record.ended = evidence.now()


def read_samples(path: Path) -> list[list[str]]:
    """Rows of a file of samples, without its head."""
    with gzip.open(path, "rt", newline="") as file:
        return list(csv.reader(file))[1:]


def samples_csv(rows: list[tuple]) -> bytes:
    """Samples as gzipped CSV with no time stamp inside: the same samples give the same bytes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("process", "name", "problem", "mode", "round", "time_us", "accepted"))
    writer.writerows(rows)
    return gzip.compress(text.getvalue().encode(), 9, mtime=0)
