"""What a user would run instead of a variant: PyTorch's backends, Triton, and the attention packages that are installed.

Each rival turns a problem and its tensors into a call without arguments that enqueues one forward and returns the output.
Tensors are [batch, heads, seq, head_dim]; the causal mask is top-left (query i sees keys 0..i), and a rival that means
another mask by "causal" refuses the problems where that differs. A rival that cannot run says why in one line.
"""

from __future__ import annotations

import importlib
import warnings
from dataclasses import dataclass
from functools import cache, partial
from importlib import metadata
from types import ModuleType
from typing import Callable

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from evosdpa.problem import Problem

Call = Callable[[], torch.Tensor]
Build = Callable[[Problem, torch.Tensor, torch.Tensor, torch.Tensor], Call]

FLEX_RECOMPILE_LIMIT = 256
"""torch.compile's default of 8 shapes per function is less than one list of problems."""


class Unavailable(Exception):
    """A rival cannot run here or cannot run this problem; the text is one line for the user."""


@dataclass(frozen=True)
class Rival:
    """One alternative to a variant."""

    name: str
    """Stable key for files and tables, for example `sdpa-cudnn`."""
    title: str
    """The name on the page."""
    devices: tuple[str, ...]
    """Device types that it runs on: `cuda`, `cpu`."""
    version: Callable[[], str]
    """The version of what would run; `not installed` where it is missing. Never raises."""
    prepare: Build
    """prepare(problem, q, k, v) -> call. q [batch, heads_q, seq_q, head_dim], k and v [batch, heads_kv, seq_kv, head_dim],
    of the problem's dtype. The call enqueues one forward on the current stream and returns the output in q's shape and
    dtype; it has run twice (compiled, tuned, planned), so a CUDA graph can capture it. It reads these tensors or its own
    copies in another layout: contents changed afterwards may not be seen. Raises Unavailable, nothing else."""


def rivals_for(device_type: str) -> list[Rival]:
    """Every rival for `cuda` or `cpu`, always in the same order, whether installed or not. ValueError for another device."""
    if device_type not in ("cuda", "cpu"):
        raise ValueError(f"device type {device_type!r} is not 'cuda' or 'cpu'")
    return [rival for rival in _RIVALS if device_type in rival.devices]


def default_backend(problem: Problem, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> str:
    """What `sdpa-default` runs for these tensors: the name of that rival, for example `sdpa-cudnn`; else `unknown`.

    Asks the function by which scaled_dot_product_attention itself chooses. It is private to PyTorch, so any failure is
    `unknown`. Tensors as for Rival.prepare, on any device; nothing is run, nothing is raised.
    """
    try:
        choice = torch._fused_sdp_choice(q, k, v, is_causal=problem.causal, **_sdpa_options(problem))
        return {int(backend): name for name, backend in _FORCED.items()}.get(int(choice), "unknown")
    except Exception:
        return "unknown"


_FORCED = {
    "sdpa-cudnn": SDPBackend.CUDNN_ATTENTION,
    "sdpa-flash": SDPBackend.FLASH_ATTENTION,
    "sdpa-efficient": SDPBackend.EFFICIENT_ATTENTION,
    "sdpa-math": SDPBackend.MATH,
}


def _sdpa_options(problem: Problem) -> dict[str, object]:
    return {"scale": problem.scale, "enable_gqa": problem.heads_q != problem.heads_kv}


def _sdpa_default(problem: Problem, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Call:
    return partial(scaled_dot_product_attention, q, k, v, is_causal=problem.causal, **_sdpa_options(problem))


def _sdpa_forced(backend: SDPBackend, problem: Problem, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Call:
    """One backend, forced around each call as PyTorch documents it.

    Entering sdpa_kernel is host time (about 10 us a call) that an eager time contains, because a user who writes this pays
    it; a program that enters it once around its whole model does not. Times of CUDA graphs contain none of it.
    """
    attend = _sdpa_default(problem, q, k, v)

    def call() -> torch.Tensor:
        with sdpa_kernel([backend]):
            return attend()

    return call


def _top_left(batch, head, query, key):
    return key <= query


@cache
def _compiled(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    torch._dynamo.config.recompile_limit = FLEX_RECOMPILE_LIMIT
    # dynamic=False: each shape gets its own kernel. By default the second shape would get a slower one for any shape.
    return torch.compile(function, dynamic=False, fullgraph=True)


def _flex_attention(problem: Problem, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Call:
    _import("triton", "Triton")  # else torch.compile fails late, in several lines
    flex = _import("torch.nn.attention.flex_attention", "flex_attention")
    lengths = (problem.seq_q, problem.seq_kv)
    mask = flex.create_block_mask(_top_left, None, None, *lengths, device=q.device) if problem.causal else None
    return partial(_compiled(flex.flex_attention), q, k, v, block_mask=mask, **_sdpa_options(problem))


def _triton_fa2(problem: Problem, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Call:
    _import("triton", "Triton")
    kernel = _import("evosdpa.harness.triton_fa2", "the Triton kernel")
    return partial(kernel.attention, q, k, v, problem.causal, problem.scale)


def _seq_first(*tensors: torch.Tensor) -> list[torch.Tensor]:
    """[batch, heads, seq, head_dim] -> [batch, seq, heads, head_dim], contiguous.

    Done once, outside the call that is timed: a user of a package with this layout keeps the tensors in it from the
    projections on. The way back on the output is a view, which costs the GPU nothing.
    """
    return [tensor.transpose(1, 2).contiguous() for tensor in tensors]


def _refuse_bottom_right(problem: Problem, title: str) -> None:
    if problem.causal and problem.seq_q != problem.seq_kv:
        raise Unavailable(f"{title} aligns the causal mask bottom-right: another result where seq_q and seq_kv differ")


def _xformers(problem: Problem, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Call:
    ops = _import("xformers.ops", "xformers")
    q, k, v = _seq_first(q, k, v)
    if problem.heads_q != problem.heads_kv:  # GQA is [batch, seq, heads_kv, queries per kv head, head_dim]
        q = q.unflatten(2, (problem.heads_kv, -1))
        k, v = (tensor.unsqueeze(3).expand(-1, -1, -1, q.shape[3], -1) for tensor in (k, v))
    mask = ops.LowerTriangularMask() if problem.causal else None  # top-left, unlike its ...FromBottomRightMask
    attend = partial(ops.memory_efficient_attention, q, k, v, attn_bias=mask, scale=problem.scale)
    return lambda: attend().flatten(2, -2).transpose(1, 2)


def _flash_attn(module: str, title: str, problem: Problem, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Call:
    attend = _import(module, title).flash_attn_func
    _refuse_bottom_right(problem, title)
    q, k, v = _seq_first(q, k, v)

    def call() -> torch.Tensor:
        output = attend(q, k, v, softmax_scale=problem.scale, causal=problem.causal)
        # Older builds of FlashAttention-3 return the log-sum-exp too.
        return (output[0] if isinstance(output, tuple) else output).transpose(1, 2)

    return call


@cache
def _flashinfer_workspace(device: torch.device) -> torch.Tensor:
    """The 128 MB that FlashInfer recommends, one for all calls: they follow each other on one stream."""
    return torch.zeros(128 << 20, dtype=torch.uint8, device=device)


def _flashinfer(problem: Problem, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Call:
    flashinfer = _import("flashinfer", "flashinfer")
    _refuse_bottom_right(problem, "flashinfer")
    # Its prefill takes the batch as one ragged sequence [batch * seq, heads, head_dim]; here all have the same length.
    q, k, v = (tensor.flatten(0, 1) for tensor in _seq_first(q, k, v))
    batches = torch.arange(problem.batch + 1, dtype=torch.int32, device=q.device)
    prefill = flashinfer.BatchPrefillWithRaggedKVCacheWrapper(_flashinfer_workspace(q.device), "NHD")
    starts = (batches * problem.seq_q, batches * problem.seq_kv)
    options = {"causal": problem.causal, "sm_scale": problem.scale, "q_data_type": q.dtype, "kv_data_type": q.dtype}
    prefill.plan(*starts, problem.heads_q, problem.heads_kv, problem.head_dim, **options)
    # Programmatic dependent launch would overlap the repeats of a timing loop, which no protocol here allows.
    return lambda: prefill.run(q, k, v, enable_pdl=False).unflatten(0, (problem.batch, -1)).transpose(1, 2)


@cache
def _cudnn_plan(problem: Problem, *strides: tuple[int, ...]) -> Callable[..., torch.Tensor]:
    """Build cuDNN's graph once for all q, k and v with these strides; returns the function of q, k and v that runs it."""
    cudnn = _import("cudnn", "cudnn-frontend")
    fp32 = cudnn.data_type.FLOAT
    element = {"fp16": cudnn.data_type.HALF, "bf16": cudnn.data_type.BFLOAT16, "fp32": fp32}[problem.dtype]
    handle = cudnn.create_handle()
    graph = cudnn.pygraph(io_data_type=element, intermediate_data_type=fp32, compute_data_type=fp32, handle=handle)
    q_shape = [problem.batch, problem.heads_q, problem.seq_q, problem.head_dim]
    kv_shape = [problem.batch, problem.heads_kv, problem.seq_kv, problem.head_dim]
    q, k, v = (
        graph.tensor(name=name, dim=shape, stride=list(stride), data_type=element)
        for name, shape, stride in zip("qkv", (q_shape, kv_shape, kv_shape), strides)
    )
    o, _ = graph.sdpa(q=q, k=k, v=v, is_inference=True, attn_scale=problem.scale, use_causal_mask=problem.causal)
    o.set_output(True).set_dim(q_shape).set_stride(list(torch.empty(q_shape, device="meta").stride()))
    graph.build([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
    workspace = torch.empty(max(1, graph.get_workspace_size()), dtype=torch.uint8, device="cuda")

    def run(q_data: torch.Tensor, k_data: torch.Tensor, v_data: torch.Tensor) -> torch.Tensor:
        o_data = torch.empty(q_shape, dtype=q_data.dtype, device=q_data.device)
        # A handle has a stream of its own: follow the current one, which in a graph capture is another than before.
        cudnn.set_stream(handle=handle, stream=torch.cuda.current_stream().cuda_stream)
        graph.execute({q: q_data, k: k_data, v: v_data, o: o_data}, workspace, handle=handle)
        return o_data

    return run


def _cudnn_frontend(problem: Problem, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Call:
    return partial(_cudnn_plan(problem, q.stride(), k.stride(), v.stride()), q, k, v)


def _import(module: str, title: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except Exception as error:  # a package built for another torch or CUDA fails in many ways
        if isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]:
            raise Unavailable(f"{title} is not installed") from None
        raise Unavailable(f"{title} does not import: {_first_line(error)}") from error


def _first_line(error: Exception | Warning) -> str:
    """The first line that says something: not empty, no heading such as "backend='inductor' raised:"."""
    for line in str(error).splitlines():
        line = line.partition(" (Triggered internally at ")[0].strip()
        if line and not line.endswith(":"):
            return (line if " " in line else f"{type(error).__name__}: {line}")[:300]  # a KeyError's text is just the key
    return type(error).__name__


def _cause(error: Exception, caught: list[warnings.WarningMessage]) -> str:
    """Why a rival failed, in one line.

    Of a forced backend PyTorch only says "No available kernel". Its reasons are warnings, one heading ("... kernel not used
    because:") and one line for each backend; those of the others are that they are switched off, which is no reason.
    """
    messages = [str(warning.message) for warning in caught]
    headings = [number for number, message in enumerate(messages) if "not used because" in message]
    for warning in caught[headings[0] :] if headings else ():
        if not any(text in str(warning.message) for text in ("not used because", "runtime disabled")):
            return _first_line(warning.message)
    return _first_line(error)


def _prepare(build: Build, problem: Problem, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Call:
    """Build a call and run it twice; see Rival.prepare."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            call = build(problem, q, k, v)
            for _ in range(2):
                call()
            if q.is_cuda:
                torch.cuda.synchronize()  # an error on the device belongs to this rival, not to whoever synchronises next
        except Unavailable:
            raise
        except Exception as error:
            raise Unavailable(_cause(error, caught)) from error
    return call


def _version(distribution: str) -> str:
    if distribution == "torch":  # its backends also stand on the cuDNN it loads
        cudnn = torch.backends.cudnn.version() if torch.cuda.is_available() else None
        return f"torch {torch.__version__}" + (f", cuDNN {cudnn}" if cudnn else "")
    try:
        return f"{distribution} {metadata.version(distribution)}"
    except metadata.PackageNotFoundError:
        return "not installed"


def _rival(name: str, title: str, build: Build, distribution: str = "torch", devices: tuple[str, ...] = ("cuda",)) -> Rival:
    return Rival(name, title, devices, partial(_version, distribution), partial(_prepare, build))


_RIVALS = (
    _rival("sdpa-default", "PyTorch SDPA (its own choice)", _sdpa_default, devices=("cuda", "cpu")),
    _rival("sdpa-cudnn", "PyTorch SDPA, cuDNN", partial(_sdpa_forced, _FORCED["sdpa-cudnn"])),
    _rival("sdpa-flash", "PyTorch SDPA, FlashAttention-2", partial(_sdpa_forced, _FORCED["sdpa-flash"])),
    _rival("sdpa-efficient", "PyTorch SDPA, memory-efficient", partial(_sdpa_forced, _FORCED["sdpa-efficient"])),
    _rival("sdpa-math", "PyTorch SDPA, math", partial(_sdpa_forced, _FORCED["sdpa-math"]), devices=("cuda", "cpu")),
    _rival("flex-attention", "PyTorch flex_attention, compiled", _flex_attention),
    _rival("triton-fa2", "Triton FlashAttention-2, autotuned", _triton_fa2, "triton"),
    _rival("xformers", "xFormers", _xformers, "xformers"),
    _rival("flash-attn", "FlashAttention-2 (flash-attn)", partial(_flash_attn, "flash_attn", "flash-attn"), "flash-attn"),
    _rival("flash-attn-3", "FlashAttention-3", partial(_flash_attn, "flash_attn_interface", "flash-attn-3"), "flash-attn-3"),
    _rival("flashinfer", "FlashInfer", _flashinfer, "flashinfer-python"),
    _rival("cudnn-frontend", "cuDNN graph API (cudnn-frontend)", _cudnn_frontend, "nvidia-cudnn-frontend"),
)
