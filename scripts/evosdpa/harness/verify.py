"""Worker: run one variant on the correctness cases. Task: library, device, seed, tolerance, repeats."""

from __future__ import annotations

import math
from typing import Any

import torch

from evosdpa.harness import report
from evosdpa.harness.abi import Library
from evosdpa.harness.cases import Bound, CaseSpec, all_cases
from evosdpa.harness.compare import compare, pytorch, reference
from evosdpa.harness.nvtx import launch_range

POISONS = (0xFF, 0x7B)
"""Two fills for output and workspace: NaN, and a large finite number. An answer that differs read what it did not write."""

STREAM_DELAY_CYCLES = 2_000_000
"""About a millisecond: long beside any launch of a case."""

CPU_REPEAT_LIMIT = 1 << 21
"""Query-key pairs above which a case on the CPU is launched once per poison only: nothing races there."""


def _launch(library: Library, bound: Bound, stream: Any) -> None:
    with launch_range("variant", "case", "verify"):
        library.launch(bound.struct, stream.cuda_stream if stream is not None else 0)


def _keeps_to_its_stream(library: Library, bound: Bound, expected: torch.Tensor, stream: Any) -> bool:
    """Queue a delay, poison, launch and copy on one stream: work done too early is poisoned, work done too late is not copied."""
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(STREAM_DELAY_CYCLES)
        bound.poison(POISONS[0])
        _launch(library, bound, stream)
        output = bound.output.data.clone()
    torch.cuda.synchronize()
    return torch.equal(output, expected)


def _follows_its_inputs(library: Library, bound: Bound, expected: torch.Tensor, stream: Any, synchronize: Any) -> bool:
    """The same pointers with -v in place of v must give minus the answer, exactly: rounding is symmetric. v is restored."""
    v = bound.inputs[2].data
    v.neg_()
    bound.poison(POISONS[0])
    synchronize()
    _launch(library, bound, stream)
    synchronize()
    output = bound.output.data.clone()
    v.neg_()
    return torch.equal(output, -expected)


def check_case(library: Library, spec: CaseSpec, number: int, task: dict[str, Any], stream: Any) -> dict[str, Any]:
    """Judge one case. Returns the fields of an evidence `Case`.

    The variant runs before any reference exists in this process, on its own stream, into poisoned memory.
    """
    problem = spec.problem
    result: dict[str, Any] = dict(name=spec.name, problem=problem.name, family=spec.family)
    bound = Bound(spec, task["seed"] + number, task["device"])
    refusal = library.supports(bound.struct)
    if refusal:
        return {**result, "status": "unsupported", "reason": refusal}
    bound.add_workspace(library.workspace_bytes(bound.struct))
    before = [tensor.snapshot() for tensor in bound.inputs]
    synchronize = torch.cuda.synchronize if stream is not None else (lambda: None)
    few = spec.family != "normal" or (stream is None and problem.pairs * problem.head_dim > CPU_REPEAT_LIMIT)
    outputs: list[torch.Tensor] = []

    def failed(reason: str) -> dict[str, Any]:
        return {**result, "status": "failed", "reason": reason}

    for repeat in range(2 if few else task["repeats"]):
        pattern = POISONS[repeat % 2]
        bound.poison(pattern)
        synchronize()
        _launch(library, bound, stream)
        synchronize()
        outside = bound.written_outside(pattern)
        if outside:
            return failed(f"wrote outside {outside}")
        output = bound.output.data.clone()
        if outputs and not torch.equal(output.view(torch.uint8), outputs[0].view(torch.uint8)):
            what = "with another fill of the memory it should have written" if repeat == 1 else f"on launch {repeat + 1}"
            return failed(f"same inputs, another answer {what}")
        if not outputs:
            outputs.append(output)
    for name, tensor, snapshot in zip("qkv", bound.inputs, before):
        if not torch.equal(tensor.snapshot(), snapshot):
            return failed(f"changed its input {name}")
    if stream is not None and not _keeps_to_its_stream(library, bound, outputs[0], stream):
        return failed("did not do its work on the stream that it was given")
    if not _follows_its_inputs(library, bound, outputs[0], stream, synchronize):
        return failed("negating v did not negate the output: it does not read its inputs anew on each call")
    q, k, v = (tensor.data for tensor in bound.inputs)
    expected = reference(problem, q, k, v)
    judged = compare(problem, outputs[0], expected, pytorch(problem, q, k, v), task["tolerance"])
    result["worst"] = judged.worst
    for field in ("ratio", "error", "max_abs"):
        value = getattr(judged, field)
        result[field] = value if math.isfinite(value) else None
    return {**result, "status": "failed" if judged.reason else "ok", "reason": judged.reason}


def main() -> None:
    """Check every case and report each as it is done."""
    task = report.read_task()
    torch.set_num_threads(1)
    library = Library(task["library"])
    stream = torch.cuda.Stream() if task["device"] == "cuda" else None
    specs = all_cases()
    report.send(event="start", total=len(specs), torch=torch.__version__)
    for number, spec in enumerate(specs):
        report.send(event="case", name=spec.name, number=number)
        report.send(event="result", case=check_case(library, spec, number, task, stream))
    report.send(event="end")


if __name__ == "__main__":
    main()
