"""A built variant as a PyTorch operator: what F.scaled_dot_product_attention computes, by one of this project's kernels.

    from evosdpa.torch_op import sdpa
    output = sdpa(query, key, value, is_causal=True)

It is registered as `torch.ops.evosdpa.sdpa` with a fake implementation, so torch.compile traces through it without a graph break, and a
launch can be captured in a CUDA graph: it enqueues on the current stream, and scratch comes from PyTorch's allocator. Forward only.
"""

from __future__ import annotations

import functools
import math
import os
from pathlib import Path

import torch
from torch import Tensor

from evosdpa import evidence
from evosdpa.evidence import Build, Status
from evosdpa.harness.abi import Library, SdpaProblem, Strides
from evosdpa.problem import DTYPES

BUILDS = Path(__file__).resolve().parents[2] / "results" / "build"
"""Where this project's workflow puts libraries, wherever the caller works."""

DEFAULTS = {"cpu": "v0_reference", "cuda": "sdpa"}
"""The variant for a kind of device when none is named: the one that takes most problems there; `sdpa` is for every chip from sm_80 on."""

CODES = {torch.float16: DTYPES["fp16"], torch.bfloat16: DTYPES["bf16"], torch.float32: DTYPES["fp32"]}


class UnsupportedError(ValueError):
    """What the operator or the variant cannot do; one line."""


def sdpa(query: Tensor, key: Tensor, value: Tensor, is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False, *,
         variant: str | None = None, builds: Path | str = BUILDS) -> Tensor:
    """softmax(scale * query key^T) value, as F.scaled_dot_product_attention without a mask and dropout.

    query: [batch, heads_q, seq_q, head_dim]; key, value: [batch, heads_kv, seq_kv, head_dim]; fp16, bf16 or fp32, all alike, on one device.
    `is_causal`: query i sees keys 0..i (top-left aligned, as PyTorch). `scale`: 1/sqrt(head_dim) by default. `enable_gqa`: heads_kv may
    divide heads_q. `variant`: the kernel by name, built by `snakemake --cores 1 <variant>`; DEFAULTS without. `builds`: its results/build.

    Returns [batch, heads_q, seq_q, head_dim], contiguous, of query's dtype. Raises UnsupportedError, one line, for inputs that do not fit
    together and for what the variant refuses; EvidenceError when it is not built; LaunchError for a CUDA error.
    """
    _check(query, key, value, enable_gqa)
    name = variant or DEFAULTS.get(query.device.type)
    if name is None:
        raise UnsupportedError(f"sdpa runs on cpu and cuda, not on {query.device.type}")
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else float(scale)
    return torch.ops.evosdpa.sdpa(query, key, value, name, str(builds), is_causal, factor)


def _check(query: Tensor, key: Tensor, value: Tensor, enable_gqa: bool) -> None:
    """Raises UnsupportedError for tensors that do not fit together."""
    tensors = (query, key, value)
    if any(one.dim() != 4 for one in tensors):
        raise UnsupportedError(f"query, key and value must be [batch, heads, seq, head_dim], not of {', '.join(str(one.dim()) for one in tensors)} dimensions")
    if query.dtype not in CODES or any(one.dtype != query.dtype for one in tensors):
        raise UnsupportedError(f"query, key and value must all be fp16, bf16 or fp32, not {', '.join(str(one.dtype) for one in tensors)}")
    if any(one.device != query.device for one in tensors):
        raise UnsupportedError(f"query, key and value must be on one device, not {', '.join(str(one.device) for one in tensors)}")
    batch, heads, _, head_dim = query.shape
    if key.shape != value.shape or key.shape[0] != batch or key.shape[3] != head_dim:
        raise UnsupportedError(f"shapes do not fit together: query {list(query.shape)}, key {list(key.shape)}, value {list(value.shape)}")
    if key.shape[1] != heads and not (enable_gqa and heads % key.shape[1] == 0):
        raise UnsupportedError(f"{heads} query heads and {key.shape[1]} key heads: they must be equal, or with enable_gqa=True a multiple")
    if torch.is_grad_enabled() and any(one.requires_grad for one in tensors):
        raise UnsupportedError("sdpa is forward only: call it under torch.no_grad(), or with tensors that need no gradient")


def library(variant: str, device: torch.device, builds: Path | str = BUILDS) -> Library:
    """The built library that a call on a device uses. Raises EvidenceError or ContractError, one line."""
    folder = f"{builds}/{_architecture(device)}/{variant}"
    try:
        built = os.stat(f"{folder}/build.json").st_mtime_ns
    except OSError:
        raise evidence.EvidenceError(f"{folder} is not built: snakemake --cores 1 {folder}/kernel.so") from None
    return _loaded(folder, built)


@functools.cache
def _architecture(device: torch.device) -> str:
    """What variants for a device are compiled for, as the folders under results/build name it. Asked by the operator while it runs and not by its
    caller, since torch.compile cannot trace the question."""
    if device.type == "cpu":
        return "host"
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}{'a' if (major, minor) == (9, 0) else ''}"


@functools.cache
def _loaded(folder: str, built: int) -> Library:
    """The very bytes that a folder's build.json of that time describes: built again, it is another library."""
    place = Path(folder)
    build = evidence.read(place / "build.json", Build)
    if build.status is not Status.OK:
        raise evidence.EvidenceError(f"{place}: {build.reason}")
    return Library(str((place / "kernel.so").resolve()), build.library_sha256)


@torch.library.custom_op("evosdpa::sdpa", mutates_args=(), device_types=("cpu", "cuda"))
def _launch(query: Tensor, key: Tensor, value: Tensor, variant: str, builds: str, is_causal: bool, scale: float) -> Tensor:
    built = library(variant, query.device, builds)
    query, key, value = (one if one.stride(-1) == 1 else one.contiguous() for one in (query, key, value))
    output = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    if not output.numel():
        return output
    struct = struct_of(query, key, value, output, is_causal, scale)
    if reason := built.supports(struct):
        raise UnsupportedError(f"{variant} does not take this problem: {reason}")
    workspace = torch.empty(built.workspace_bytes(struct), dtype=torch.uint8, device=query.device)  # PyTorch aligns to 512 bytes on a GPU
    struct.workspace = workspace.data_ptr() or None
    if query.device.type == "cpu":
        built.launch(struct)
    else:
        with torch.cuda.device(query.device):
            built.launch(struct, torch.cuda.current_stream().cuda_stream)
    return output


@_launch.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, variant: str, builds: str, is_causal: bool, scale: float) -> Tensor:
    return torch.empty(query.shape, dtype=query.dtype, device=query.device)


def struct_of(query: Tensor, key: Tensor, value: Tensor, output: Tensor, is_causal: bool, scale: float) -> SdpaProblem:
    """The problem as sdpa.h has it, without scratch. Rows of all tensors are contiguous."""
    batch, heads_q, seq_q, head_dim = query.shape
    named = (("q", query), ("k", key), ("v", value), ("o", output))
    return SdpaProblem(
        batch=batch, heads_q=heads_q, heads_kv=key.shape[1], seq_q=seq_q, seq_kv=key.shape[2], head_dim=head_dim, dtype=CODES[query.dtype],
        causal=int(is_causal), scale=scale, **{name: tensor.data_ptr() for name, tensor in named},
        **{f"{name}_stride": Strides(*tensor.stride()[:3]) for name, tensor in named})
