"""compute-sanitizer over one variant: memcheck, racecheck, initcheck, synccheck, each in a process of its own, side by side."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

from evosdpa import build as building, device as devices, evidence, isolate, keys, machine
from evosdpa.config import Config
from evosdpa.device import Held
from evosdpa.evidence import Build, Sanitize, Status, Verify
from evosdpa.progress import Progress
from evosdpa.variants import Variant, includes

ERROR_EXIT = 86
"""Exit status that compute-sanitizer is told to use for findings, unlike any that the worker has."""

_FINDING = re.compile(r"^=+ (?P<text>(?!COMPUTE-SANITIZER|ERROR SUMMARY|RACECHECK SUMMARY|LEAK SUMMARY|Target application).*\S)", re.MULTILINE)
_LINE = re.compile(r"\bin (?:\S*/)?(?P<file>[\w.-]+\.(?:cu|cuh|h)):(?P<line>\d+)")
_SUMMARY = re.compile(r"(?:ERROR SUMMARY: (\d+) error|RACECHECK SUMMARY: (\d+) hazard)")


def sanitize_parts(build: Build, config: Config) -> dict[str, str]:
    """The parts of the content key as they are today."""
    return {**build.key_parts, "binary": build.library_sha256,
            "protocol": keys.protocol(config.sanitize.model_dump(include={"tools"})), "harness": keys.harness("sanitize")}


def findings(log: str) -> tuple[int, list[str]]:
    """Number of errors or hazards in compute-sanitizer's output, and its first lines about them."""
    counts = [int(one or other) for one, other in _SUMMARY.findall(log)]
    lines = [match["text"].strip() for match in _FINDING.finditer(log)]
    return max(counts, default=0), lines[:40]


def offending_line(log: str, sources: list[Path]) -> str:
    """The first line of one of these sources that compute-sanitizer's output names, as file:line; empty when it names none."""
    by_name = {path.name: path for path in sources}
    for match in _LINE.finditer(log):
        if match["file"] in by_name:
            return f"{by_name[match['file']]}:{match['line']}"
    return ""


def sanitize_variant(variant: Variant, config: Config, device: str, build: Build, verify: Verify, library: Path) -> Sanitize:
    """Run every configured tool on small cases. Findings make the status `failed`; the offending lines are kept."""
    parts = sanitize_parts(build, config)
    record = Sanitize(variant=variant.name, device=device, started=evidence.now(), key_parts=parts, key=keys.combine(parts),
                      git=machine.git_state())
    program = machine.tool("compute-sanitizer")
    if build.status is not Status.OK:
        record.status, record.reason = Status.NOT_RUN, f"not built: {build.reason}"
    elif verify.status is Status.TIMEOUT:
        record.status, record.reason = Status.NOT_RUN, "verify did not end; a hang under the sanitizer would say no more"
    elif program is None:
        record.status, record.reason = Status.NOT_RUN, "compute-sanitizer was not found; it comes with the CUDA toolkit"
    else:
        record.tools = {"compute-sanitizer": machine.version(program)}
        progress = Progress(f"{variant.name} sanitize", len(config.sanitize.tools))
        # At once: nothing is timed here, and each spends most of its seconds starting up.
        with devices.hold(machine.gpus_for(device), alone=False) as held:
            record.started, record.device_info = evidence.now(), machine.describe(held.gpu)
            tools = config.sanitize.tools
            for result in devices.side_by_side(held, lambda tool: run_tool(program, tool, held, variant, config, library, build), tools, len(tools)):
                record.results.append(result)
                progress.step(len(record.results), result["tool"])
        bad = [one for one in record.results if one["status"] != Status.OK]
        if bad:
            failed = [one for one in bad if one["status"] == Status.FAILED]
            first = (failed or bad)[0]
            record.status = Status.FAILED if failed else Status(first["status"])
            record.reason = f"{first['tool']}: {first['reason']}"
    record.ended = evidence.now()
    return record


def run_tool(program: str, tool: str, held: Held, variant: Variant, config: Config, library: Path, build: Build) -> dict[str, Any]:
    """One tool's result: tool, status, reason, errors, findings, seconds, launches, and on findings the offending line.

    What is sanitized is the binary that is timed, which has no line numbers (they would make a reworded comment another
    binary). Only on findings the source is built once more with them, and the tool runs again for the line alone.
    """
    outcome = _under(program, tool, held, config, library, build.library_sha256)
    errors, lines = findings(outcome.log)
    launched = sum(report.get("event") == "launched" for report in outcome.reports)
    result = dict(tool=tool, errors=errors, findings=lines if errors else [], seconds=round(outcome.seconds, 1), launches=launched)
    if errors:
        where = _line_of(program, tool, held, variant, config, build)
        reason = f"{errors} found: {lines[0] if lines else 'see the log'}{f' at {where}' if where else ''}"
        return {**result, "status": Status.FAILED.value, "reason": reason, "where": where}
    if outcome.status is not Status.OK:
        return {**result, "status": outcome.status.value, "reason": outcome.reason, "findings": outcome.log.splitlines()[-20:]}
    if not launched:
        return {**result, "status": Status.UNSUPPORTED.value, "reason": "the variant takes none of the small cases"}
    return {**result, "status": Status.OK.value, "reason": ""}


def _under(program: str, tool: str, held: Held, config: Config, library: Path, sha256: str) -> isolate.Outcome:
    """Run the worker under one tool."""
    command = [program, "--tool", tool, "--error-exitcode", str(ERROR_EXIT), "--print-limit", "20",
               *(["--padding", "4096"] if tool == "memcheck" else []), *isolate.python_worker("sanitize")]
    # Without PyTorch's caching each tensor is an allocation of its own, so that the tools see where it ends.
    environment = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    return held.run(command, config.sanitize.timeout_s, {"library": str(library.resolve()), "sha256": sha256}, env=environment, finding=ERROR_EXIT)


def _line_of(program: str, tool: str, held: Held, variant: Variant, config: Config, build: Build) -> str:
    """Where in the sources the tool finds something, in a build for the same architecture; empty when that build or run does not tell."""
    with tempfile.TemporaryDirectory(prefix="evosdpa-") as scratch:
        folder = Path(scratch)
        built = building.compile_variant(variant, config, build.arch or held.gpu.arch, folder, extra_flags=("-lineinfo",))
        if built.status is not Status.OK:
            return ""
        outcome = _under(program, tool, held, config, folder / "kernel.so", built.library_sha256)
    return offending_line(outcome.log, [variant.source, *includes(variant.source)])
