"""The gate proves itself: planted wrong kernels must be rejected, each by the checks meant for it, and an honest one must pass."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evosdpa import benchmarking, build as building, device as devices, evidence, keys, machine, sanitizing, variants, verification
from evosdpa.config import Config
from evosdpa.device import Held
from evosdpa.evidence import Bench, Build, Selftest, Status, Verify
from evosdpa.harness.checks import SANITIZERS, Check
from evosdpa.progress import Progress
from evosdpa.variants import FILL_SHARED, Variant

HONEST_ROOM = 0.75
"""The honest kernel's worst error over the allowance may be this large: a gate that honest kernels barely pass would soon be loosened."""

TIMED_PROBLEM = "b1h1s16d64-fp16"
"""On which planted kernels are timed: so small that every device makes hundreds of launches."""

TIMED_CHECKS = (Check.TIMED_OUTPUT, Check.SPAN)
"""Checks that a kernel meets only when it is timed."""

TIMED_TASK = dict(modes=["warm"], samples=8, mode_budget_s=5.0)

HONEST_TASK = dict(modes=["warm", "stream", "cold", "eager"], samples=8, mode_budget_s=5.0)
"""On a GPU the honest kernel goes through every mode, on a problem of which enough input sets for mode stream exist."""

HONEST_PROBLEM = "b1h8s512d64-fp16"

TIMED_REPLAY_US = {"cpu": 20000.0, "cuda": 2000.0}
"""A sample so long that one process launches each kernel several hundred times."""

CPU_LEAVES_OUT = ("goal",)
"""Kinds of cases that planted kernels skip on a CPU, where one takes longer than all the others together."""

MOST_JOBS = 8

HANG_S = 20.0
"""Time limit of a kernel that is there to hang, seconds. It runs alone, after all others: on a GPU it would take time slices from them."""


def selftest_parts(config: Config, on_cpu: bool, compiler: str) -> dict[str, str]:
    """The parts of the content key as they are today: the planted kernels, how they are built, the gate's settings and its code."""
    planted = variants.planted(on_cpu)
    headers = sorted({path for variant in planted for path in variants.includes(variant.source)})
    settings = {"verify": config.verify.model_dump(exclude={"timeout_s"}), "stop_after": config.selftest.stop_after, "room": HONEST_ROOM,
                "timed": [TIMED_PROBLEM, TIMED_TASK, TIMED_REPLAY_US, HONEST_PROBLEM, HONEST_TASK], "tools": [] if on_cpu else config.sanitize.tools}
    workers = [keys.harness("verify", FILL_SHARED), keys.harness("bench"), *([] if on_cpu else [keys.harness("sanitize")])]
    workers.append(keys.modules("timings", "steadiness", "stats", "selftest"))
    return {
        "source": keys.sources([variant.source for variant in planted]),
        "headers": keys.sources(headers),
        "flags": " ".join(config.compile.host_flags if on_cpu else config.compile.nvcc_flags),
        "compiler": compiler,
        "protocol": keys.protocol(settings),
        "harness": keys.digest(" ".join(workers)),
    }


def prove(config: Config, device: str, arch: str, fill_shared: Path | None, jobs: int) -> Selftest:
    """Build every planted kernel for a device and put it through the gate; `jobs` of them at a time.

    `ok`: each is rejected by every check that its head names, in the cases that it names, and the honest one is accepted with room.
    """
    on_cpu = device == "cpu"
    parts = selftest_parts(config, on_cpu, machine.compiler_identity(cuda=not on_cpu))
    record = Selftest(variant="selftest", device=device, started=evidence.now(), key_parts=parts, key=keys.combine(parts), git=machine.git_state())
    gpu = None if on_cpu else machine.gpu_for(device)
    record.device_info, record.tools = machine.describe(gpu), {"compiler": parts["compiler"]}
    planted = variants.planted(on_cpu)
    hanging = [variant for variant in planted if Check.TIMEOUT in expected_checks(variant)]
    progress = Progress(f"planted kernels on {device}", len(planted))
    with devices.hold(gpu) as held, tempfile.TemporaryDirectory(prefix="evosdpa-") as scratch:
        trials: list[_Trial] = []
        for group, workers, limit in (([one for one in planted if one not in hanging], jobs, config.selftest.timeout_s), (hanging, 1, HANG_S)):
            limited = config.model_copy(update={"verify": config.verify.model_copy(update={"timeout_s": limit})})
            for trial in devices.side_by_side(held, lambda variant: _check(variant, limited, held, arch, fill_shared, Path(scratch)), group,
                                              min(workers, MOST_JOBS)):
                trials.append(trial)
                progress.step(len(trials), trial.variant.name)
        for trial in trials:  # times are taken alone on the device
            _time(trial, held, config)
            record.results.append(_settled(trial))
    record.results.sort(key=lambda one: one["name"])
    missed = [one for one in record.results if one["status"] != Status.OK]
    if missed:
        record.status = Status.FAILED
        record.reason = f"the gate was wrong about {len(missed)} of {len(planted)} planted kernels; {missed[0]['name']}: {missed[0]['missed']}"
    record.ended = evidence.now()
    return record


def expected_checks(variant: Variant) -> list[Check]:
    """The checks that must say no to a planted kernel on its kind of device."""
    return [check for check in variants.header(variant.source).rejected_by if not (variant.on_cpu and check in SANITIZERS)]


@dataclass
class _Trial:
    """A planted kernel on its way through the gate."""

    variant: Variant
    built: Build
    folder: Path
    """Where its library is."""
    verify: Verify
    expected: list[Check]
    result: dict[str, Any]
    """Its entry in the evidence."""


def _check(variant: Variant, config: Config, held: Held, arch: str, fill_shared: Path | None, scratch: Path) -> _Trial:
    """Build one planted kernel, verify it and run the sanitizers."""
    about, expected, started = variants.header(variant.source), expected_checks(variant), time.monotonic()
    folder = scratch / variant.name
    folder.mkdir()
    built = building.compile_variant(variant, config, arch, folder)
    trial = _Trial(variant, built, folder, Verify(variant=variant.name, device=held.gpu.slug if held.gpu else "cpu"), expected, dict(
        name=variant.name, title=about.title, idea=about.idea, expected=list(expected), where=list(about.where), said={}, reason="", cases=0,
        ratio=None, seed=None))
    if built.status is Status.OK:
        verify = trial.verify
        verification.run_cases(verify, held, config, built, folder / "kernel.so", fill_shared, config.selftest.stop_after,
                               () if held.gpu else CPU_LEAVES_OUT, quiet=True)
        trial.result.update(said=dict(verify.checks), reason=verify.reason, cases=len(verify.cases), ratio=verify.worst_ratio, seed=verify.seed)
        if held.gpu:
            _sanitize(trial.result, variant, held, config, built, folder, expected)
    trial.result["seconds"] = round(time.monotonic() - started, 1)
    return trial


def _settled(trial: _Trial) -> dict[str, Any]:
    """The entry in the evidence, with what the gate got wrong."""
    missed = _missed(trial.verify, trial.result, trial.expected, tuple(trial.result["where"])) if trial.built.status is Status.OK else trial.built.reason
    return {**trial.result, "missed": missed, "status": (Status.FAILED if missed else Status.OK).value}


def _time(trial: _Trial, held: Held, config: Config) -> None:
    """Time a planted kernel as a bench would and note whether the outputs of its timed launches are right. Only one that a check of
    timed launches must reject, and the honest one."""
    result, started = trial.result, time.monotonic()
    if trial.built.status is not Status.OK or (trial.expected and not any(check in TIMED_CHECKS for check in trial.expected)):
        return
    bench = Bench(variant=trial.variant.name, device=held.gpu.slug if held.gpu else "cpu")
    few = config.model_copy(update={"bench": config.bench.model_copy(update={"processes": 2})})
    problem, task = (HONEST_PROBLEM, HONEST_TASK) if held.gpu and not trial.expected else (TIMED_PROBLEM, TIMED_TASK)
    benchmarking.measure(bench, held, few, {trial.variant.name: benchmarking.loadable(trial.folder / "kernel.so", trial.built)}, [], [], [problem], [],
                         replay_us=TIMED_REPLAY_US["cuda" if held.gpu else "cpu"], **task)
    wrong = [timing for timing in bench.timings if timing.outputs_checked is False]
    suspect = [timing for timing in bench.timings if timing.status is Status.SUSPECT]
    for check, found in ((Check.TIMED_OUTPUT, wrong), (Check.SPAN, suspect)):
        if found:
            result["said"][check] = len(found)
            result["reason"] = "; ".join(filter(None, [result["reason"], found[0].reason]))
    for why in (timing.span["reason"] for timing in bench.timings if "reason" in timing.span):
        result.setdefault("not_run", {})[Check.SPAN] = why
    if bench.status is not Status.OK and not wrong:
        result["reason"] = "; ".join(filter(None, [result["reason"], f"timing: {bench.reason}"]))
        result["said"][Check.CRASH] = 1
    result["seconds"] = round(result["seconds"] + time.monotonic() - started, 1)


def _sanitize(result: dict[str, Any], variant: Variant, held: Held, config: Config, built: Build, folder: Path, expected: list[Check]) -> None:
    """Run the tools that must find something in a planted kernel; over the honest one all of them. One that cannot be run, or that
    breaks over a flaw, has found nothing: its reason is left in `not_run`."""
    program = machine.tool("compute-sanitizer")
    for check in SANITIZERS if not expected else [check for check in expected if check in SANITIZERS]:
        if program is None or check not in config.sanitize.tools:
            why = "compute-sanitizer was not found; it comes with the CUDA toolkit" if program is None else f"{check} is not among sanitize.tools"
            result.setdefault("not_run", {})[check] = why
            continue
        found = sanitizing.run_tool(program, check, held, variant, config, folder / "kernel.so", built)
        if expected and found["status"] not in (Status.OK, Status.FAILED):
            result.setdefault("not_run", {})[check] = found["reason"]
        elif found["status"] != Status.OK:
            result["said"][check] = found["errors"]
            result["reason"] = "; ".join(filter(None, [result["reason"], f"{check}: {found['reason']}"]))


def _missed(verify: Verify, result: dict[str, Any], expected: list[Check], where: tuple[str, ...]) -> str:
    """What the gate got wrong about a planted kernel; empty when nothing."""
    if not expected:
        if verify.status is not Status.OK or result["said"]:
            return f"the honest kernel is rejected: {result['reason']}"
        if verify.worst_ratio is None or verify.worst_ratio > HONEST_ROOM:
            return f"the honest kernel passes without room: its worst error is {verify.worst_ratio} of the allowance, more than {HONEST_ROOM:g}"
        return ""
    silent = [check for check in expected if check not in result["said"]]
    not_run = {check: why for check, why in result.get("not_run", {}).items() if check in silent}
    silent = [check for check in silent if check not in not_run]
    wrong = []
    if silent:
        others = ", ".join(result["said"]) or "no check says no"
        wrong.append(f"{' and '.join(silent)} {'does' if len(silent) == 1 else 'do'} not say no ({others}{': ' + result['reason'] if result['reason'] else ''})")
    if not_run:
        wrong.append("; ".join(f"{check} was not run: {why}" for check, why in not_run.items()) + "; that proves nothing")
    if wrong:
        return "; ".join(wrong)
    strongest = next(iter(verify.checks), None)
    if strongest is not None and strongest not in expected:
        return f"rejected by {strongest} first: {verify.reason}"
    elsewhere = [case.name for case in verify.cases if case.status is Status.FAILED and where and not any(word in case.name for word in where)]
    if elsewhere:
        return f"is also wrong in {elsewhere[0]}, where it should be right"
    return ""
