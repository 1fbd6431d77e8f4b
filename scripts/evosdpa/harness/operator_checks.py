"""Is the operator right where it is used? Called as it is, by torch.library.opcheck, and in a transformer block that runs eager, compiled or as a
CUDA graph. The kernel behind it has been verified; these checks are about what lies between it and its callers."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch._dynamo
import torch.nn.functional as F
from torch import Tensor, nn

from evosdpa import problem as problems, torch_op
from evosdpa.harness.abi import LaunchError
from evosdpa.harness.compare import compare, pytorch, reference
from evosdpa.harness.dtypes import TORCH_DTYPES
from evosdpa.harness.report import first_line
from evosdpa.problem import Problem

Attention = Callable[..., Tensor]
"""Called as F.scaled_dot_product_attention."""

Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Call:
    """One call of the operator by itself: the problem, how q, k and v lie in memory, and the scale (None: the default)."""

    problem: str
    layout: str = "contiguous"
    scale: float | None = None

    @property
    def name(self) -> str:
        """What the check is called."""
        layout = "" if self.layout == "contiguous" else f", {self.layout}"
        return f"call {self.problem}{layout}{'' if self.scale is None else f', scale {self.scale:g}'}"


PACKED, TURNED = "packed", "turned"
"""q, k and v as views of one [batch, seq, 3, heads, head_dim], as a transformer makes them; rows that are not contiguous, which are copied."""

CALLS = (
    Call("b1h8s512d64-fp16"), Call("b1h8s512d64-fp16-causal"), Call("b2h3s100d128-bf16-causal"), Call("b1h8s65d64-bf16-hkv2-kv130"), Call("b1h2s33d64-fp32"),
    Call("b3h15s1100d64-fp16-causal", PACKED), Call("b3h15s1100d128-bf16-hkv5"),  # enough that CTAs which stay have more than one piece of work
    Call("b2h4s100d64-fp16-causal", PACKED), Call("b2h4s100d128-bf16", PACKED), Call("b1h2s64d64-fp16", TURNED), Call("b1h2s64d64-bf16", scale=0.05),
    # Few rows and many keys, which CTAs share: by fives, sixes, sevens (causal, so that some have none), in runs of several tiles.
    Call("b1h2s300d128-fp16-kv600"), Call("b1h1s700d64-bf16-causal"), Call("b1h2s211d64-fp16-causal-kv850"), Call("b1h3s700d128-bf16-causal"),
    Call("b1h1s65d64-fp16-kv3000"), Call("b1h2s130d128-bf16-kv5000"),
    # Decoding: heads that share keys.
    Call("b2h8s1d128-fp16-hkv2-kv500"), Call("b2h8s1d64-bf16-hkv2-kv2000"), Call("b2h6s1d64-fp16-hkv1-kv700"),
)

BLOCKS = ("b2h2s100d64-fp16-causal", "b2h2s100d64-bf16-causal")
"""The attention of the blocks, one a precision."""

INPUTS = 2
"""Inputs that a block gets one after the other: what compiled or captured its first input must follow the second."""


class Block(nn.Module):
    """A small transformer block, [batch, seq, width] to the same, whose attention is given; it can be replaced."""

    def __init__(self, attention: Attention, heads: int, head_dim: int) -> None:
        super().__init__()
        width = heads * head_dim
        self.attention, self.heads = attention, heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Causal attention and an MLP, each behind a norm and beside a residual."""
        q, k, v = self.qkv(self.norms[0](x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(self.attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norms[1](x))


def compiled(block: Block, x: Tensor) -> Forward:
    """The block through torch.compile without a graph break: by the default backend on a GPU, on a CPU without generating code, which would need a
    compiler and try nothing more of the operator."""
    return torch.compile(block, fullgraph=True, dynamic=False, backend="inductor" if x.is_cuda else "aot_eager")


def captured(block: Block, x: Tensor) -> Forward:
    """The block as a CUDA graph, captured for an input like `x`: each call writes its input in place of the last one and replays."""
    mine = x.clone()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        block(mine)  # everything lazy happens before the capture
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = block(mine)

    def replayed(values: Tensor) -> Tensor:
        mine.copy_(values)
        output.fill_(math.nan)  # only the replay can make it right
        graph.replay()
        return output.clone()

    return replayed


WAYS: dict[str, Callable[[Block, Tensor], Forward]] = {"eager": lambda block, x: block, "torch.compile": compiled, "CUDA graph": captured}
"""How a block is run. A CPU has no CUDA graph."""


def tensors(call: Call, device: str, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v of a call, [batch, heads, seq, head_dim], unit normal."""
    problem = problems.parse(call.problem)
    generator = torch.Generator(device).manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device).to(TORCH_DTYPES[problem.dtype])

    if call.layout == PACKED:
        q, k, v = normal(problem.batch, problem.seq_q, 3, problem.heads_q, problem.head_dim).permute(2, 0, 3, 1, 4)
        return q, k, v
    sizes = [(problem.heads_q, problem.seq_q), *2 * [(problem.heads_kv, problem.seq_kv)]]
    if call.layout == TURNED:
        q, k, v = (normal(problem.batch, heads, problem.head_dim, seq).transpose(-1, -2) for heads, seq in sizes)
    else:
        q, k, v = (normal(problem.batch, heads, seq, problem.head_dim) for heads, seq in sizes)
    return q, k, v


def judged(problem: Problem, output: Tensor, expected: Tensor, own: Tensor, tolerance: float) -> dict[str, Any]:
    """Status, reason, error and ratio (those of evidence.OperatorCheck) of an output, beside the float64 answer and PyTorch's own at that precision."""
    if output.shape != own.shape or output.dtype != own.dtype:
        return dict(status="failed", reason=f"gives {output.dtype} {list(output.shape)} where PyTorch gives {own.dtype} {list(own.shape)}")
    found = compare(problem, output, expected, own, tolerance)
    return dict(status="failed" if found.reason else "ok", reason=found.reason, error=found.error if math.isfinite(found.error) else None,
                ratio=found.ratio if math.isfinite(found.ratio) else None)


class Checks:
    """All checks of one variant's operator on a device. `builds`: results/build. `tolerance`: the allowed multiple of PyTorch's own error."""

    def __init__(self, device: str, variant: str, builds: str, seed: int, tolerance: float) -> None:
        self.device, self.variant, self.builds, self.seed, self.tolerance = device, variant, builds, seed, tolerance

    def all(self) -> dict[str, Callable[[], dict[str, Any]]]:
        """Every check by name; each gives status, reason, error and ratio, or raises."""
        ways = [way for way in WAYS if self.device == "cuda" or way != "CUDA graph"]
        return {**{call.name: functools.partial(self.call, call) for call in CALLS}, "opcheck": self.opcheck,
                **{f"block {problems.parse(name).dtype}, {way}": functools.partial(self.block, name, WAYS[way]) for name in BLOCKS for way in ways}}

    def attention(self, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        """The operator, as a user calls it."""
        return torch_op.sdpa(q, k, v, variant=self.variant, builds=self.builds, **options)

    def call(self, call: Call) -> dict[str, Any]:
        """The operator by itself."""
        problem = problems.parse(call.problem)
        q, k, v = tensors(call, self.device, self.seed)
        output = self.attention(q, k, v, is_causal=problem.causal, scale=call.scale, enable_gqa=problem.heads_kv != problem.heads_q)
        if not output.is_contiguous():
            return dict(status="failed", reason=f"gives strides {list(output.stride())}, which are not contiguous")
        return judged(problem, output, reference(problem, q, k, v, call.scale), pytorch(problem, q, k, v, call.scale), self.tolerance)

    def opcheck(self) -> dict[str, Any]:
        """What torch.library.opcheck asks: schema, autograd registration, fake implementation, dynamic shapes."""
        q, k, v = tensors(Call("b1h2s64d64-fp16"), self.device, self.seed)
        self.attention(q, k, v)  # what the variant refuses is told as such
        said = torch.library.opcheck(torch.ops.evosdpa.sdpa.default, (q, k, v, self.variant, self.builds, False, 0.125), raise_exception=False)
        wrong = [f"{test}: {first_line(error) if isinstance(error, Exception) else error}" for test, error in said.items() if error != "SUCCESS"]
        return dict(status="failed" if wrong else "ok", reason="; ".join(wrong))

    def block(self, name: str, way: Callable[[Block, Tensor], Forward]) -> dict[str, Any]:
        """A block with the operator beside the same block in float64 and the same with PyTorch's attention; the worst of several inputs."""
        problem = problems.parse(name)
        dtype = TORCH_DTYPES[problem.dtype]
        torch.manual_seed(self.seed)
        theirs = Block(F.scaled_dot_product_attention, problem.heads_q, problem.head_dim).to(self.device, dtype).eval()
        exact, mine = copy.deepcopy(theirs).double(), copy.deepcopy(theirs)
        mine.attention = self.attention
        inputs = torch.randn(INPUTS, problem.batch, problem.seq_q, problem.heads_q * problem.head_dim, device=self.device).to(dtype)
        forward = way(mine, inputs[0])
        found = []
        for number, x in enumerate(inputs):
            outputs = [one.unsqueeze(1) for one in (forward(x), exact(x.double()), theirs(x))]  # compare() wants [batch, heads, seq, width]
            found.append(judged(problem, *outputs, self.tolerance))
            if found[-1]["reason"]:
                return found[-1] | dict(reason=f"{'with other inputs: ' if number else ''}{found[-1]['reason']}")
        return max(found, key=lambda one: one["ratio"])


def attempt(check: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A check's outcome, also where it does not come to one: what the variant refuses is `unsupported`; a launch that the device refuses and a graph
    break are `failed`; whatever else is raised is `error`."""
    torch._dynamo.reset()  # nothing compiled for another check stands in for this one
    try:
        with torch.no_grad():
            return check()
    except torch_op.UnsupportedError as reason:
        return dict(status="unsupported", reason=str(reason))
    except (LaunchError, torch._dynamo.exc.Unsupported) as error:
        return dict(status="failed", reason=first_line(error))
    except Exception as error:  # one that breaks must not end the others
        return dict(status="error", reason=first_line(error))
