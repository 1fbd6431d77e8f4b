"""NVTX ranges around launches, for Nsight and people: an outer range `evosdpa`, inside it variant, problem and mode."""

import contextlib

import torch

from evosdpa.harness.nvtx_names import RANGE


@contextlib.contextmanager
def launch_range(name: str, problem: str, mode: str):
    """Mark what is enqueued inside; does nothing without a GPU."""
    if not torch.cuda.is_available():
        yield
        return
    torch.cuda.nvtx.range_push(RANGE)
    torch.cuda.nvtx.range_push(f"{name} {problem} {mode}")
    try:
        yield
    finally:
        torch.cuda.nvtx.range_pop()
        torch.cuda.nvtx.range_pop()
