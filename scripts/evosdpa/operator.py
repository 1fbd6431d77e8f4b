"""A variant as a PyTorch operator (torch_op.py): is it right where it is used, and what does a Python caller pay for a call?"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from evosdpa import device as devices, evidence, isolate, keys, machine, stats
from evosdpa.config import Config
from evosdpa.device import Held
from evosdpa.evidence import Build, CallCost, Operator, OperatorCheck, Status, Verify
from evosdpa.harness.operator_names import LIBRARY, OPERATOR, PYTORCH
from evosdpa.progress import Progress
from evosdpa.variants import Variant


def problem_for(config: Config, on_cpu: bool) -> str:
    """The problem whose calls are timed."""
    return config.bench.cpu_problems[0] if on_cpu else config.goal.problem


def operator_parts(build: Build, config: Config, on_cpu: bool) -> dict[str, str]:
    """The parts of the content key as they are today."""
    settings = [config.verify.tolerance, config.verify.seed, config.bench.processes, config.bench.mode_budget_s, problem_for(config, on_cpu)]
    return {**build.key_parts, "binary": build.library_sha256, "protocol": keys.protocol(settings), "harness": keys.harness("operator"),
            "operator": keys.modules("torch_op"), "judging": keys.modules("operator", "stats")}


def measure(variant: Variant, config: Config, device: str, build: Build, verify: Verify, library: Path) -> Operator:
    """Check a variant's operator in a process of its own, then time calls in `bench.processes` fresh ones.

    A variant that is not right is not tried, and an operator that is not right is not timed.
    """
    parts = operator_parts(build, config, variant.on_cpu)
    record = Operator(variant=variant.name, device=device, started=evidence.now(), key_parts=parts, key=keys.combine(parts), git=machine.git_state(),
                      problem=problem_for(config, variant.on_cpu))
    if build.status is not Status.OK:
        record.status, record.reason = Status.NOT_RUN, f"not built: {build.reason}"
    elif verify.status is not Status.OK:
        record.status = verify.status if verify.status is Status.UNSUPPORTED else Status.NOT_RUN
        record.reason = f"not tried because verify says {verify.status.value}: {verify.reason}"
    else:
        record.seed = config.verify.seed if config.verify.seed is not None else secrets.randbelow(2**31)
        record.tools = {"compiler": build.tools.get("compiler", ""), "library": build.library_sha256}
        task = dict(device="cpu" if variant.on_cpu else "cuda", variant=variant.name, builds=str(library.parents[2]), sha256=build.library_sha256,
                    seed=record.seed)
        with devices.hold(None if variant.on_cpu else machine.gpus_for(device)) as held:
            record.started, record.device_info = evidence.now(), machine.describe(held.gpu)  # waiting for the device is no measuring
            _check(record, held, config, task)
            if record.status is Status.OK:
                _time(record, held, config, task)
    record.ended = evidence.now()
    return record


def _check(record: Operator, held: Held, config: Config, task: dict[str, Any]) -> None:
    """Run the checks and judge them."""
    progress: Progress | None = None
    running = ""

    def on_report(report: dict[str, Any]) -> None:
        nonlocal progress, running
        if report.get("event") == "start":
            progress = Progress(f"{record.variant} operator", report["total"])
            record.tools["torch"] = report["torch"]
        elif report.get("event") == "check":
            running = report["name"]
        elif report.get("event") == "result":
            record.checks.append(OperatorCheck.model_validate(report["check"]))
            running = ""
            if progress:
                progress.step(len(record.checks))

    outcome = _run(held, config, task | dict(part="checks", tolerance=config.verify.tolerance), on_report)
    judge(record, outcome, running)


def _run(held: Held, config: Config, task: dict[str, Any], on_report: Any = None) -> isolate.Outcome:
    """Run one worker to its end; an end before it was done is an error, whatever its status."""
    outcome = held.run(isolate.python_worker("operator"), config.operator.timeout_s, task, on_report)
    if outcome.status is Status.OK and not any(one.get("event") == "end" for one in outcome.reports):
        outcome.status, outcome.reason = Status.ERROR, "the process ended by itself, with status 0, before it was done"
    return outcome


def judge(record: Operator, outcome: isolate.Outcome, running: str) -> None:
    """Status and reason from the checks and from how their process ended: what is wrong comes first, then what broke; what the variant refuses is no
    fault as long as something is right."""
    by_status = {status: [one for one in record.checks if one.status is status] for status in Status}
    for status in (Status.FAILED, Status.ERROR):
        if status is Status.ERROR and outcome.status is not Status.OK:
            record.status, record.log = outcome.status, outcome.log
            record.reason = f"{outcome.reason}{f' in check {running}' if running else ''}"
            return
        if found := by_status[status]:
            record.status, record.log = status, outcome.log
            record.reason = f"{len(found)} of {len(record.checks)} checks {'say no' if status is Status.FAILED else 'broke'}; {found[0].name}: {found[0].reason}"
            return
    if not by_status[Status.OK]:
        record.status = Status.UNSUPPORTED
        record.reason = record.checks[0].reason if record.checks else "no check ran"


def _time(record: Operator, held: Held, config: Config, task: dict[str, Any]) -> None:
    """Time calls in fresh processes. One that ends badly makes the whole an error or a timeout; a problem that is refused, unsupported."""
    progress = Progress(f"{record.variant} operator's cost", config.bench.processes)
    reports: list[dict[str, Any]] = []
    for process in range(config.bench.processes):
        outcome = _run(held, config, task | dict(part="costs", problem=record.problem, process=process, budget_s=config.bench.mode_budget_s))
        refused = next((one["reason"] for one in outcome.reports if one.get("event") == "refused"), "")
        if outcome.status is not Status.OK or refused:
            record.status = Status.UNSUPPORTED if refused else outcome.status
            record.reason = f"cost of a call: {record.problem}: {refused}" if refused else f"cost of a call: {outcome.reason}"
            record.log = outcome.log
            return
        reports += [one for one in outcome.reports if one.get("event") == "cost"]
        progress.step(process + 1)
    summarise(record, reports)


def summarise(record: Operator, reports: list[dict[str, Any]]) -> None:
    """Costs from the processes' samples, and the operator's over each other one, formed within processes."""
    record.processes = len({one["process"] for one in reports})
    for name in (OPERATOR, PYTORCH, LIBRARY):
        own = sorted((one for one in reports if one["name"] == name), key=lambda one: one["process"])
        medians = [round(stats.quantile(one["host_us"], 0.5), 5) for one in own]
        between = [stats.quantile(one["event_us"], 0.5) for one in own if one["event_us"]]
        estimate = stats.of_medians(medians)
        low, high = estimate.interval() or (None, None)
        record.costs.append(CallCost(
            name=name, time_us=estimate.value, ci_low_us=low, ci_high_us=high, process_medians_us=medians,
            event_us=stats.of_medians(between).value if between else None, calls=[one["calls"] for one in own]))
    first, *others = record.costs
    for other in others:
        ratio = stats.ratio_within(first.process_medians_us, other.process_medians_us)
        low, high = ratio.interval() or (None, None)
        record.over[other.name] = dict(ratio=ratio.value, low=low, high=high, verdict=stats.verdict(ratio))
