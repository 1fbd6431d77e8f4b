"""Verify one variant: the worker judges case by case, this side keeps the account and survives whatever happens there."""

from __future__ import annotations

import collections
import math
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evosdpa import device as devices, evidence, isolate, keys, machine
from evosdpa.config import Config
from evosdpa.device import Held
from evosdpa.evidence import Build, Case, Status, Verify
from evosdpa.harness.checks import Check
from evosdpa.progress import Progress
from evosdpa.variants import FILL_SHARED, Variant


def verify_parts(build: Build, config: Config) -> dict[str, str]:
    """The parts of the verdict's content key as they are today."""
    settings = config.verify.model_dump(include={"repeats", "tolerance", "seed"})
    return {**build.key_parts, "binary": build.library_sha256, "protocol": keys.protocol(settings),
            "harness": keys.harness("verify", FILL_SHARED)}


def verify_variant(variant: Variant, config: Config, device: str, build: Build, library: Path, fill_shared: Path | None = None) -> Verify:
    """Run the correctness cases in a process of their own and return the verdict.

    `ok`: every case the variant accepts is right, and it accepts at least one. A crash or a hang becomes `error` or `timeout`
    and names the case that was running. `fill_shared` is the built library that fills shared memory; a GPU needs it.
    """
    parts = verify_parts(build, config)
    record = Verify(variant=variant.name, device=device, started=evidence.now(), key_parts=parts, key=keys.combine(parts),
                    git=machine.git_state(), tools={"compiler": build.tools.get("compiler", "")})
    if build.status is not Status.OK:
        record.status, record.reason = Status.NOT_RUN, f"not built: {build.reason}"
    else:
        with devices.hold(None if variant.on_cpu else machine.gpus_for(device), alone=False) as held:
            record.started, record.device_info = evidence.now(), machine.describe(held.gpu)
            run_cases(record, held, config, build, library, fill_shared)
    record.ended = evidence.now()
    return record


def run_cases(record: Verify, held: Held, config: Config, build: Build, library: Path, fill_shared: Path | None,
              stop_after: int | None = None, leave_out: Sequence[str] = (), quiet: bool = False) -> None:
    """Run the cases on a held device and fill in the record. `stop_after` failed cases the run ends; kinds to `leave_out`."""
    record.seed = config.verify.seed if config.verify.seed is not None else secrets.randbelow(2**31)
    progress: Progress | None = None
    running, ended = "", False

    def on_report(report: dict[str, Any]) -> None:
        nonlocal progress, running, ended
        if report.get("event") == "start":
            progress = None if quiet else Progress(f"{record.variant} verify", report["total"])
            record.tools["torch"] = report["torch"]
        elif report.get("event") == "case":
            running = report["name"]
        elif report.get("event") == "result":
            record.cases.append(Case.model_validate(report["case"]))
            if progress:
                progress.step(len(record.cases))
        elif report.get("event") == "end":
            ended = True

    task = {"library": str(library.resolve()), "sha256": build.library_sha256, "device": "cuda" if held.gpu else "cpu", "seed": record.seed,
            "tolerance": config.verify.tolerance, "repeats": config.verify.repeats, "stop_after": stop_after, "leave_out": list(leave_out)}
    if held.gpu:
        if fill_shared is None or not fill_shared.stat().st_size:
            record.status, record.reason = Status.NOT_RUN, f"{FILL_SHARED} is not built; shared memory cannot be filled before each launch"
            return
        task["fill_shared"] = {"path": str(fill_shared.resolve()), "sha256": keys.digest_file(fill_shared)}
    record.tools["library"] = build.library_sha256
    outcome = held.run(isolate.python_worker("verify"), config.verify.timeout_s, task, on_report)
    if outcome.status is Status.OK and not ended:
        outcome.status, outcome.reason = Status.ERROR, f"the process ended by itself, with status 0, after {len(record.cases)} cases and before all had run,"
    judge(record, outcome, running)


def judge(record: Verify, outcome: isolate.Outcome, running: str) -> None:
    """Turn the cases and the way the process ended into status, reason and the check that says no."""
    record.counts = dict(sorted(collections.Counter(case.status.value for case in record.cases).items()))
    ratios = [case.ratio for case in record.cases if case.ratio is not None]
    record.worst_ratio = max(ratios) if ratios else None
    failed = [case for case in record.cases if case.status is Status.FAILED]
    supported = [case for case in record.cases if case.status in (Status.OK, Status.FAILED)]
    record.checks = dict(collections.Counter(case.check for case in failed).most_common())
    if outcome.status is not Status.OK:
        where = f" in case {running}" if running else ""
        record.status, record.reason, record.log = outcome.status, f"{outcome.reason}{where}", outcome.log
        if running:
            record.checks[Check.TIMEOUT if outcome.status is Status.TIMEOUT else Check.CRASH] = 1
    elif failed:
        typical = [case for case in failed if case.check == next(iter(record.checks))]
        worst = max(typical, key=lambda case: case.ratio if case.ratio is not None else math.inf)
        record.status = Status.FAILED
        record.reason = f"{len(failed)} of {len(supported)} cases are wrong; {worst.name}: {worst.reason}"
    elif not supported:
        record.status = Status.UNSUPPORTED
        record.reason = record.cases[0].reason if record.cases else "no case ran"
    else:
        record.status = Status.OK
