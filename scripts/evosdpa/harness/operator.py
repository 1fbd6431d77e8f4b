"""Worker: check a variant's operator, or time what a Python caller pays for a call.

Task: part (checks or costs), device, variant, builds (results/build), sha256 (of the library that must be there), seed; checks: tolerance; costs:
problem, process, budget_s.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from evosdpa import problem as problems, torch_op
from evosdpa.harness import report
from evosdpa.harness.abi import ContractError
from evosdpa.harness.compare import pytorch
from evosdpa.harness.operator_checks import Call, Checks, attempt, tensors
from evosdpa.harness.operator_names import LIBRARY, OPERATOR, PYTORCH

MOST_CALLS = 1000
"""Calls in a row of one repeat, where they are fast: about as many as a GPU queues, so that the wait at the end is a small part."""

REPEATS = 15

WARM_UP = 3


def check(task: dict[str, Any]) -> None:
    """Run every check and report each as it is done."""
    checks = Checks(task["device"], task["variant"], task["builds"], task["seed"], task["tolerance"]).all()
    report.send(event="start", total=len(checks), torch=torch.__version__)
    for name, one in checks.items():
        report.send(event="check", name=name)
        report.send(event="result", check=dict(name=name, **attempt(one)))


def callables(task: dict[str, Any]) -> dict[str, Callable[[], Tensor]]:
    """What is timed, by name: the operator, PyTorch's default, and the library's launch alone. All read the same q, k and v; the first two allocate an
    output at each call, as a caller's do, the last writes into the same one. Raises UnsupportedError."""
    problem = problems.parse(task["problem"])
    q, k, v = tensors(Call(task["problem"]), task["device"], task["seed"])
    built, output = torch_op.library(task["variant"], q.device, task["builds"]), torch.empty_like(q)
    struct = torch_op.struct_of(q, k, v, output, problem.causal, problem.scale)
    if reason := built.supports(struct):
        raise torch_op.UnsupportedError(reason)
    workspace = torch.empty(built.workspace_bytes(struct), dtype=torch.uint8, device=q.device)
    struct.workspace, struct.scratch = workspace.data_ptr() or None, workspace  # of a tensor the struct has only the address; this keeps it
    stream = torch.cuda.current_stream().cuda_stream if q.is_cuda else 0

    def launch() -> Tensor:
        built.launch(struct, stream)
        return output

    options = dict(is_causal=problem.causal, enable_gqa=problem.heads_kv != problem.heads_q, variant=task["variant"], builds=task["builds"])
    return {OPERATOR: lambda: torch_op.sdpa(q, k, v, **options), PYTORCH: lambda: pytorch(problem, q, k, v), LIBRARY: launch}


def repeat(call: Callable[[], Tensor], calls: int, on_gpu: bool) -> tuple[float, float | None]:
    """Microseconds a call of so many in a row: by the host's clock from the first call to the end of the last one's work, and, on a GPU, between
    two events around them."""
    if not on_gpu:
        started = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - started) * 1e6 / calls, None
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    started = time.perf_counter()
    begin.record()
    for _ in range(calls):
        call()
    end.record()
    torch.cuda.synchronize()
    return (time.perf_counter() - started) * 1e6 / calls, begin.elapsed_time(end) * 1e3 / calls


def cost(task: dict[str, Any]) -> None:
    """Time what there is to call, interleaved in an order that is drawn anew for each repeat, and report each one's samples.

    The calls are enqueued in a row, so a sample is what a Python caller pays per call as long as that is more than the kernel takes; else it is the
    kernel's time, because the GPU's queue is full.
    """
    on_gpu = task["device"] == "cuda"
    order = random.Random(task["seed"] + task["process"])
    try:
        subjects = callables(task)
    except torch_op.UnsupportedError as reason:
        report.send(event="refused", reason=str(reason))
        return
    slowest_us = 0.0
    for call in subjects.values():
        repeat(call, WARM_UP, on_gpu)
        slowest_us = max(slowest_us, repeat(call, WARM_UP, on_gpu)[0])
    calls = max(1, min(MOST_CALLS, int(task["budget_s"] * 1e6 / REPEATS / slowest_us)))
    samples: dict[str, list[tuple[float, float | None]]] = {name: [] for name in subjects}
    for _ in range(REPEATS):
        for name in order.sample(list(subjects), len(subjects)):
            samples[name].append(repeat(subjects[name], calls, on_gpu))
    for name, found in samples.items():
        report.send(event="cost", process=task["process"], name=name, calls=calls, host_us=[host for host, _ in found],
                    event_us=[between for _, between in found if between is not None])


def main() -> None:
    """Check or time, as the task says, the very library that was built."""
    task = report.read_task()
    if task["device"] == "cpu":
        torch.set_num_threads(1)
    loaded = torch_op.library(task["variant"], torch.empty(0, device=task["device"]).device, task["builds"]).sha256
    if loaded != task["sha256"]:
        raise ContractError(f"the operator takes a library with hash {loaded}, not {task['sha256']}: this chip's own, and `arch` in config.yaml is another")
    with torch.no_grad():
        {"checks": check, "costs": cost}[task["part"]](task)
    report.send(event="end")


if __name__ == "__main__":
    report.run(main)
