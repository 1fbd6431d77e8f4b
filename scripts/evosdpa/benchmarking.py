"""Bench one variant, or all rivals: fresh processes, interleaved anchors, intervals over processes, every sample kept."""

from __future__ import annotations

import csv
import gzip
import io
import secrets
from pathlib import Path
from typing import Any

from evosdpa import evidence, isolate, keys, machine, stats
from evosdpa.config import Config
from evosdpa.evidence import Bench, Build, Status, Timing, Verify
from evosdpa.progress import Progress
from evosdpa.variants import Variant

ANCHOR = "sdpa-default"
"""The rival timed in every process: what PyTorch picks by itself. Ratios of things measured in different runs go through it."""

RIVALS = {
    "cpu": ("sdpa-default", "sdpa-math"),
    "cuda": ("sdpa-default", "sdpa-cudnn", "sdpa-flash", "sdpa-efficient", "sdpa-math", "flex-attention", "triton-fa2",
             "xformers", "flash-attn", "flash-attn-3", "flashinfer", "cudnn-frontend"),
}
"""Rivals by kind of device; those that are not installed say so in the evidence."""

MIN_PROCESSES = 2
LATE_LIMIT = 0.05
"""Above this share of samples dropped because the host came late, a mode is marked unstable."""


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
    return {**binary, "protocol": keys.protocol(protocol(config, on_cpu)), "harness": keys.harness("bench")}


def bench_variant(variant: Variant, config: Config, device: str, build: Build, verify: Verify, library: Path,
                  floors: dict[str, Path], samples: Path) -> Bench:
    """Time one variant with the anchor and the floors interleaved; writes every sample to `samples` (gzipped CSV).

    A variant that is not right is not timed: the status says what verify said.
    """
    parts = bench_parts(build, config, variant.on_cpu)
    record = Bench(variant=variant.name, device=device, started=evidence.now(), key_parts=parts, key=keys.combine(parts),
                   git=machine.git_state(), samples_file=samples.name)
    rows: list[tuple] = []
    if build.status is not Status.OK:
        record.status, record.reason = Status.NOT_RUN, f"not built: {build.reason}"
    elif verify.status is not Status.OK:
        record.status = verify.status if verify.status is Status.UNSUPPORTED else Status.NOT_RUN
        record.reason = f"not timed because verify says {verify.status.value}: {verify.reason}"
    elif keys.digest_file(library) != build.library_sha256:
        record.status, record.reason = Status.ERROR, f"{library} is not the file that build.json describes; delete it to have it made again"
    else:
        record.tools = {"compiler": build.tools.get("compiler", ""), "library": build.library_sha256}
        libraries = {variant.name: library, **floors}
        _measure(record, config, variant.on_cpu, libraries, list(floors), [ANCHOR], problems_for(variant, config, variant.on_cpu), rows, variant.name)
        record.anchors = [timing for timing in record.timings if timing.name != variant.name]
        record.timings = [timing for timing in record.timings if timing.name == variant.name]
    _finish(record, rows, samples)
    return record


def built_floors(libraries: list[Path]) -> dict[str, Path]:
    """Floors by name from the paths of their libraries (results/build/<arch>/<name>/kernel.so); one that did not compile is
    an empty file and left out."""
    return {path.parent.name: path for path in libraries if path.stat().st_size}


def bench_rivals(config: Config, device: str, floors: dict[str, Path], samples: Path) -> Bench:
    """Time every rival and floor under the same protocol."""
    on_cpu = device == "cpu"
    parts = bench_parts(None, config, on_cpu)
    record = Bench(variant="rivals", device=device, started=evidence.now(), key_parts=parts, key=keys.combine(parts),
                   git=machine.git_state(), samples_file=samples.name)
    rows: list[tuple] = []
    names = list(RIVALS["cpu" if on_cpu else "cuda"])
    _measure(record, config, on_cpu, dict(floors), list(floors), names, problems_for(None, config, on_cpu), rows, "rivals")
    _finish(record, rows, samples)
    return record


def _measure(record: Bench, config: Config, on_cpu: bool, libraries: dict[str, Path], floors: list[str], rivals: list[str],
             problems: list[str], rows: list[tuple], label: str) -> None:
    """Run the processes, then fill the record's timings and clocks and the list of samples."""
    gpu = None if on_cpu else machine.gpu_for(record.device)
    record.device_info = machine.describe(gpu)
    settings = config.bench
    record.process_kind = "forked" if on_cpu else "spawned"
    modes = ["warm"] if on_cpu else list(settings.gpu_modes)
    task = dict(
        device="cpu" if on_cpu else "cuda", libraries={name: str(path.resolve()) for name, path in libraries.items()}, floors=floors,
        rivals=rivals, problems=problems, modes=modes, seed=secrets.randbelow(2**31),
        samples=settings.cpu_samples if on_cpu else settings.samples, replay_us=settings.replay_us,
        mode_budget_s=settings.mode_budget_s, max_call_s=settings.max_call_s, tolerance=config.verify.tolerance)
    groups = [list(range(settings.processes))] if on_cpu else [[index] for index in range(settings.processes)]
    progress = Progress(f"{label} bench", settings.processes)
    reports: list[dict[str, Any]] = []
    failure: isolate.Outcome | None = None
    with machine.lock(gpu.uuid if gpu else "cpu"):
        for group in groups:
            limit = settings.timeout_s * len(group)
            outcome = isolate.run(isolate.python_worker("bench"), limit, {**task, "processes": group}, env=machine.visible(gpu))
            reports += outcome.reports
            if outcome.status is not Status.OK:
                failure = outcome
                if on_cpu or outcome.status is Status.TIMEOUT:
                    break
                if not isolate.device_is_healthy(machine.visible(gpu)):
                    outcome.reason += "; afterwards the GPU did not answer a health check"
                    break
            progress.step(group[-1] + 1)
    for start in (one for one in reports if one.get("event") == "start"):
        record.tools.update({"torch": start["torch"], **start["rivals"]})
    summarise(record, reports, rows, [*libraries, *rivals], problems, modes)
    if failure is not None:
        record.status, record.reason, record.log = failure.status, f"a measuring process {failure.reason}", failure.log


def summarise(record: Bench, reports: list[dict[str, Any]], rows: list[tuple], names: list[str], problems: list[str], modes: list[str]) -> None:
    """Turn the workers' reports into timings (every name x problem x mode gets one, with or without a time)."""
    samples: dict[tuple[str, str, str], dict[int, list[float]]] = {}
    launches: dict[tuple[str, str, str], int] = {}
    outputs: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    skips: dict[tuple[str, str, str], dict[str, Any]] = {}
    notes: dict[tuple[str, str], str] = {}
    late: dict[tuple[str, str], int] = {}
    for report in reports:
        event, problem = report.get("event"), report.get("problem", "")
        if event == "samples":
            key = (report["name"], problem, report["mode"])
            samples.setdefault(key, {})[report["process"]] = report["times_us"]
            launches[key] = report["launches"]
            rows += [(report["process"], *key, number, time_us) for number, time_us in enumerate(report["times_us"])]
        elif event == "output":
            outputs.setdefault((report["name"], problem, report["mode"]), []).append(report)
        elif event == "skip":
            skips.setdefault((report["name"], problem, report.get("mode", "")), report)
        elif event == "note":
            notes[(report["name"], problem)] = report["note"]
        elif event == "clocks":
            late[(problem, report["mode"])] = late.get((problem, report["mode"]), 0) + report.get("late", 0)
            record.clocks.append({name: report[name] for name in ("process", "problem", "mode", "before", "after", "late")})
    record.processes = len({report["process"] for report in reports if "process" in report})
    for name in names:
        for problem in problems:
            for mode in modes:
                key = (name, problem, mode)
                timing = Timing(name=name, problem=problem, mode=mode, note=notes.get((name, problem), ""))
                if key in samples:
                    _estimate(timing, samples[key], outputs.get(key, []))
                    timing.launches_per_sample = launches[key]
                elif skip := skips.get(key) or skips.get((name, problem, "")):
                    timing.status, timing.reason = Status(skip["status"]), skip["reason"]
                else:
                    timing.status, timing.reason = Status.NOT_RUN, "no sample was taken"
                record.timings.append(timing)
    for (problem, mode), dropped in late.items():
        taken = sum(timing.samples for timing in record.timings if (timing.problem, timing.mode) == (problem, mode))
        if dropped > LATE_LIMIT * (taken + dropped):
            for timing in record.timings:
                if (timing.problem, timing.mode) == (problem, mode) and timing.status is Status.OK:
                    timing.note = f"{timing.note}; " if timing.note else ""
                    timing.note += f"{dropped} of {taken + dropped} samples of this mode were dropped because the host was late"


def _estimate(timing: Timing, by_process: dict[int, list[float]], outputs: list[dict[str, Any]]) -> None:
    """Fill a timing from its samples, process by process."""
    medians = [stats.quantile(times, 0.5) for _, times in sorted(by_process.items())]
    pooled = [time_us for times in by_process.values() for time_us in times]
    estimate = stats.of_medians(medians)
    timing.time_us = round(estimate.value, 5)
    timing.process_medians_us = [round(median, 5) for median in medians]
    timing.min_us, timing.samples = min(pooled), len(pooled)
    timing.p10_us, timing.p90_us = round(stats.quantile(pooled, 0.1), 5), round(stats.quantile(pooled, 0.9), 5)
    interval = estimate.interval()
    if interval:
        timing.ci_low_us, timing.ci_high_us = round(interval[0], 5), round(interval[1], 5)
    if outputs:
        wrong = [one for one in outputs if not one["ok"]]
        timing.outputs_checked = not wrong
        if wrong:
            timing.status, timing.reason = Status.FAILED, f"output of a timed launch: {wrong[0]['reason']}"
    if timing.status is Status.OK and len(medians) < MIN_PROCESSES:
        timing.status, timing.reason = Status.UNSTABLE, "only one process gave samples"


def _finish(record: Bench, rows: list[tuple], samples: Path) -> None:
    """Write the samples and settle the record's status."""
    data = samples_csv(rows)
    evidence.write_bytes(samples, data)
    record.samples_sha256 = keys.digest(data)
    if record.status is Status.OK and record.timings:
        good = [timing for timing in record.timings if timing.status is Status.OK]
        wrong = [timing for timing in record.timings if timing.status is Status.FAILED]
        if wrong and record.variant != "rivals":
            record.status, record.reason = Status.FAILED, f"{wrong[0].problem} {wrong[0].mode}: {wrong[0].reason}"
        elif not good:
            record.status, record.reason = record.timings[0].status, record.timings[0].reason
    record.ended = evidence.now()


def samples_csv(rows: list[tuple]) -> bytes:
    """Samples as gzipped CSV with no time stamp inside: the same samples give the same bytes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("process", "name", "problem", "mode", "round", "time_us"))
    writer.writerows(rows)
    return gzip.compress(text.getvalue().encode(), 9, mtime=0)
