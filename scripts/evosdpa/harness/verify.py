"""Worker: run one variant on the correctness cases.

Task: library, sha256, device, seed, tolerance, repeats; fill_shared (path and hash of the library that fills shared memory,
GPU only); stop_after (end after this many failed cases; null: never), leave_out (kinds of cases).
"""

from __future__ import annotations

import contextlib
import ctypes
import math
from dataclasses import dataclass
from typing import Any

import torch

from evosdpa.harness import report
from evosdpa.harness.abi import ContractError, LaunchError, Library, load
from evosdpa.harness.cases import Bound, CaseSpec, all_cases
from evosdpa.harness.checks import Check
from evosdpa.harness.compare import Comparison, compare, pytorch, reference, same_values
from evosdpa.harness.nvtx import launch_range

POISONS = (0xFF, 0x7B)
"""Two fills for output, workspace and shared memory: NaN, and a large finite number. An answer that differs read what nobody
wrote."""

STREAM_DELAY_CYCLES = 2_000_000
"""About a millisecond: long beside any launch of a case."""

CPU_REPEAT_LIMIT = 1 << 21
"""Query-key pairs x head_dim above which a case on the CPU is launched once per poison only; so are families other than normal."""

CHAIN_LAUNCHES = 6
"""Launches in a row, each with the output of the one before as an input."""

OTHER_INPUTS = 1_000_003
"""Added to a case's seed for the other inputs that follow behind the same pointers."""

Fault = tuple[Check, str]
"""Which check says no, and why, in one line."""


@dataclass
class Gate:
    """A variant under test with what its launches need."""

    library: Library
    task: dict[str, Any]
    stream: Any = None
    """A torch.cuda.Stream of its own; None on the CPU."""
    shared: ctypes.CDLL | None = None
    """The library that fills shared memory; None on the CPU."""

    def synchronize(self) -> None:
        """Wait for everything on the device."""
        if self.stream is not None:
            torch.cuda.synchronize()

    def fill_shared(self, pattern: int) -> None:
        """Fill every multiprocessor's shared memory with one byte, on the variant's stream."""
        if self.shared is not None and (code := self.shared.fill_shared(pattern, ctypes.c_void_p(self.stream.cuda_stream))):
            raise ContractError(f"fill_shared returned CUDA error {code}")

    def launch(self, bound: Bound) -> None:
        """Enqueue one launch. Raises LaunchError."""
        with launch_range("variant", "case", "verify"):
            self.library.launch(bound.struct, self.stream.cuda_stream if self.stream is not None else 0)

    def answer(self, bound: Bound, pattern: int) -> torch.Tensor:
        """One launch into memory filled with a pattern; the output's values once it is done."""
        bound.poison(pattern)
        self.synchronize()  # the fill is on another stream
        self.fill_shared(pattern)
        self.launch(bound)
        self.synchronize()
        return bound.output.data.clone()


def bits_differ(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors differ in any bit."""
    return not torch.equal(one.view(torch.uint8), other.view(torch.uint8))


def repeats(gate: Gate, bound: Bound, count: int) -> tuple[torch.Tensor, Fault | None]:
    """Launch again and again with alternating fills: nothing written outside, always the same bits. Returns the first answer."""
    first = None
    for repeat in range(count):
        pattern = POISONS[repeat % 2]
        output = gate.answer(bound, pattern)
        if outside := bound.written_outside(pattern):
            return output, (Check.BOUNDS, f"wrote outside {outside}")
        if first is None:
            first = output
        elif bits_differ(output, first):
            return first, _changed_answer(gate, bound, first, repeat)
    return first, None


def _changed_answer(gate: Gate, bound: Bound, first: torch.Tensor, repeat: int) -> Fault:
    """Tell an answer that follows the fill of memory from one that changes by itself: the same fills, twice more."""
    again = [gate.answer(bound, pattern) for pattern in POISONS * 2]
    by_fill = not bits_differ(again[0], first) and not bits_differ(again[2], first) and not bits_differ(again[1], again[3])
    if not by_fill or not bits_differ(again[1], first):
        return Check.REPEATABLE, f"same inputs, another answer on launch {repeat + 1}"
    size = first.element_size()
    unwritten = torch.ones(first.shape, dtype=torch.bool, device=first.device)
    for output, pattern in zip(again, POISONS):
        unwritten &= (output.contiguous().view(torch.uint8) == pattern).unflatten(-1, (-1, size)).all(dim=-1)
    count = int(unwritten.sum())
    if count:
        batch, head, row, column = (int(index) for index in unwritten.nonzero()[0])
        return Check.POISON, (
            f"{count} values of o are what memory was filled with, first in batch {batch}, head {head}, row {row}, column {column}: not written, or "
            "read from where nobody wrote")
    return Check.POISON, "another answer with another fill of o, workspace and shared memory: it reads what nobody wrote"


def stays_on_its_stream(gate: Gate, bound: Bound, expected: torch.Tensor) -> Fault | None:
    """Queue a delay, poison, launch and copy on one stream: work done too early is poisoned, work done too late is not copied."""
    torch.cuda.synchronize()
    with torch.cuda.stream(gate.stream):
        torch.cuda._sleep(STREAM_DELAY_CYCLES)
        bound.poison(POISONS[0])
        gate.launch(bound)
        output = bound.output.data.clone()
    torch.cuda.synchronize()
    return None if same_values(output, expected) else (Check.STREAM, "did not do its work on the stream that it was given")


def can_be_captured(gate: Gate, bound: Bound, expected: torch.Tensor) -> Fault | None:
    """Capture one launch in a CUDA graph (global mode: allocating and synchronising are errors) and replay it."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.stream(gate.stream):
        graph.capture_begin(capture_error_mode="global")
        try:
            gate.launch(bound)
            graph.capture_end()
        except (LaunchError, RuntimeError) as error:
            with contextlib.suppress(RuntimeError):  # it would hide what went wrong
                graph.capture_end()
            # The variant's own CUDA runtime remembers the refusal until somebody asks: the next case must not be told of it.
            with contextlib.suppress(LaunchError):
                gate.launch(bound)
            torch.cuda.synchronize()
            return Check.CAPTURE, f"cannot be captured in a CUDA graph, as when it allocates or synchronises: {report.first_line(error)}"
        bound.poison(POISONS[0])
        graph.replay()
    torch.cuda.synchronize()
    if same_values(bound.output.data, expected):
        return None
    return Check.CAPTURE, "a replay of the CUDA graph that captured a launch gives another answer than the launch"


def follows_its_inputs(gate: Gate, bound: Bound, expected: torch.Tensor) -> Fault | None:
    """The same pointers with -v in place of v must give minus the answer, exactly: rounding is symmetric. v is restored."""
    v = bound.inputs[2].data
    v.neg_()
    output = gate.answer(bound, POISONS[0])
    v.neg_()
    if same_values(output, -expected):
        return None
    return Check.FRESH, "negating v did not negate the output: it does not read its inputs anew on each launch"


def waits_for_its_predecessor(gate: Gate, bound: Bound) -> Fault | None:
    """Launches queued one behind the other, each taking the output of the one before as its q, must give what they give one at a time;
    as its k, and as its v, too, where o has their shape.

    With programmatic dependent launch a kernel may begin while the one before still writes; one that reads this input before it has
    waited finds the NaN that outputs are filled with.
    """
    q, k, _ = (tensor.data for tensor in bound.inputs)
    for name in "qkv" if q.shape == k.shape else "q":
        if fault := _chain(gate, bound, name):
            return fault
    return None


def _chain(gate: Gate, bound: Bound, name: str) -> Fault | None:
    """A chain through one input."""
    outputs = [torch.empty_like(bound.inputs[0].data, memory_format=torch.contiguous_format) for _ in range(CHAIN_LAUNCHES)]
    structs = []
    for number, output in enumerate(outputs):
        struct = type(bound.struct).from_buffer_copy(bound.struct)
        struct.o, struct.o_stride = output.data_ptr(), type(struct.o_stride)(*output.stride()[:3])
        if number:
            setattr(struct, name, outputs[number - 1].data_ptr())
            setattr(struct, f"{name}_stride", struct.o_stride)
        if gate.library.supports(struct):
            return None  # it takes no input that lies in memory as this one does
        structs.append(struct)
    answers = []
    for together in (False, True):
        torch.cuda.synchronize()
        with torch.cuda.stream(gate.stream):
            for output in outputs:
                output.fill_(float("nan"))
            if together:
                torch.cuda._sleep(STREAM_DELAY_CYCLES)  # all of them are queued before the first begins
            try:
                for struct in structs:
                    with launch_range("variant", "chain", "verify"):
                        gate.library.launch(struct, gate.stream.cuda_stream)
                    if not together:
                        gate.stream.synchronize()
            finally:
                gate.stream.synchronize()  # what is queued writes into `outputs`
        answers.append([output.clone() for output in outputs])
    for number, (alone, chained) in enumerate(zip(*answers)):
        if not same_values(alone, chained):
            where = f"the output of the one before, which is its {name}" if number else "its inputs"
            return Check.CHAINED, f"launch {number + 1} of {CHAIN_LAUNCHES} in a row did not see {where}"
    return None


def behaves(gate: Gate, bound: Bound, count: int) -> tuple[torch.Tensor, Fault | None]:
    """Every check that needs no reference, in the order in which they stand in harness/checks.py; the first that says no ends it."""
    before = [tensor.snapshot() for tensor in bound.inputs]
    output, fault = repeats(gate, bound, count)
    if fault is None:
        changed = [name for name, tensor, snapshot in zip("qkv", bound.inputs, before) if not torch.equal(tensor.snapshot(), snapshot)]
        fault = (Check.INPUTS, f"changed its input {changed[0]}") if changed else None
    if gate.stream is not None:
        fault = fault or stays_on_its_stream(gate, bound, output) or can_be_captured(gate, bound, output)
    return output, fault or follows_its_inputs(gate, bound, output)


def judge(gate: Gate, spec: CaseSpec, bound: Bound, output: torch.Tensor) -> Comparison:
    """Compare an output with the reference of the inputs as they are now."""
    q, k, v = (tensor.data for tensor in bound.inputs)
    expected, own = reference(spec.problem, q, k, v, spec.scale), pytorch(spec.problem, q, k, v, spec.scale)
    return compare(spec.problem, output, expected, own, gate.task["tolerance"], (q, k, v))


def takes_other_inputs(gate: Gate, spec: CaseSpec, bound: Bound, number: int) -> Fault | None:
    """Entirely other q, k and v behind the same pointers: whatever was kept of the first ones is now wrong."""
    bound.renew(spec, gate.task["seed"] + number + OTHER_INPUTS)
    judged = judge(gate, spec, bound, gate.answer(bound, POISONS[0]))
    return (Check.FRESH, f"with other inputs behind the same pointers: {judged.reason}") if judged.check else None


def check_case(gate: Gate, spec: CaseSpec, number: int) -> dict[str, Any]:
    """Judge one case. Returns the fields of an evidence `Case`.

    The variant runs before any reference exists in this process, on its own stream, into poisoned memory.
    """
    problem = spec.problem
    result: dict[str, Any] = dict(name=spec.name, problem=problem.name, family=spec.family)
    bound = Bound(spec, gate.task["seed"] + number, gate.task["device"])
    if refusal := gate.library.supports(bound.struct):
        return {**result, "status": "unsupported", "reason": refusal}
    bound.add_workspace(gate.library.workspace_bytes(bound.struct))
    few = gate.stream is None and (spec.family != "normal" or problem.pairs * problem.head_dim > CPU_REPEAT_LIMIT)
    try:
        output, fault = behaves(gate, bound, 2 if few else gate.task["repeats"])
    except LaunchError as error:
        fault = Check.LAUNCH, str(error)
    if fault:
        return {**result, "status": "failed", "check": fault[0], "reason": fault[1]}
    judged = judge(gate, spec, bound, output)
    if judged.check is None and spec.family == "normal":
        try:
            fault = takes_other_inputs(gate, spec, bound, number)
            if gate.stream is not None:  # last: its launches make kernels forget what they may have kept of the others
                fault = fault or waits_for_its_predecessor(gate, bound)
        except LaunchError as error:
            fault = Check.LAUNCH, str(error)
    for field in ("ratio", "error", "max_abs"):
        value = getattr(judged, field)
        result[field] = value if math.isfinite(value) else None
    check, reason = fault or (judged.check or "", judged.reason)
    return {**result, "status": "failed" if check else "ok", "check": check, "reason": reason, "worst": judged.worst}


def main() -> None:
    """Check every case and report each as it is done."""
    task = report.read_task()
    torch.set_num_threads(1)
    gate = Gate(Library(task["library"], task["sha256"]), task)
    if task["device"] == "cuda":
        gate.stream = torch.cuda.Stream()
        gate.shared = load(**task["fill_shared"])
    specs = [(number, spec) for number, spec in enumerate(all_cases()) if spec.kind not in task.get("leave_out", ())]
    report.send(event="start", total=len(specs), torch=torch.__version__)
    failed = 0
    for number, spec in specs:
        report.send(event="case", name=spec.name, number=number)
        case = check_case(gate, spec, number)
        report.send(event="result", case=case)
        failed += case["status"] == "failed"
        if failed and failed == task.get("stop_after"):
            break
    report.send(event="end")


if __name__ == "__main__":
    report.run(main)
