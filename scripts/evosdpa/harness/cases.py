"""The correctness cases: which problems, which inputs, and tensors laid out so that mistakes show."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from evosdpa.harness.abi import Strides, WORKSPACE_ALIGNMENT, struct_for
from evosdpa.harness.dtypes import TORCH_DTYPES
from evosdpa.problem import Problem

FAMILIES = ("normal", "peaked", "sentinel", "large", "outliers", "equal", "nan")
"""normal: N(0,1). peaked: q x 4. sentinel: each query is one key, so each row must return one row of v. large: q x 8,
k x 8, where exp overflows fp32 unless the row's maximum is subtracted first. outliers: N(0,1) + N(0,100)*Bernoulli(0.001),
FlashAttention-3's accuracy input. equal: all keys alike, so every row is a plain mean. nan: normal, and one element of one key
is NaN, which must reach every row that sees this key and no other. Never uniform [0,1): mean(V) passes there."""

_SHAPES = (
    # kind, batch, heads_q, heads_kv, seq_q, seq_kv
    ("tile multiple", 1, 2, 2, 128, 128),
    ("tile - 1", 1, 2, 2, 127, 127),
    ("tile + 1", 1, 2, 2, 129, 129),
    ("seq 1", 1, 1, 1, 1, 1),
    ("one query", 2, 3, 3, 1, 77),
    ("one key", 1, 2, 2, 33, 1),
    ("below a tile", 1, 2, 2, 17, 17),
    ("primes, more keys", 1, 2, 2, 97, 211),
    ("primes, more queries", 1, 2, 2, 211, 97),
    ("odd batch x heads", 3, 5, 5, 61, 61),
    ("GQA", 2, 4, 2, 100, 100),
    ("one kv head", 1, 6, 1, 65, 190),
    ("strided", 2, 3, 3, 96, 96),
    ("scale", 1, 2, 2, 96, 96),
    ("goal", 1, 8, 8, 512, 512),
)
_ALL_FAMILIES = ("tile multiple", "tile + 1", "primes, more keys", "goal")
"""Kinds that are checked with every family: whole tiles, ragged ones, and the goal's own size, where fast paths are taken. The others
with `normal` and one more in turn."""

SCALE = 0.2
"""The scale of kind `scale`, unlike 1/sqrt(head_dim) of every head_dim here."""

_GAPS = {"q": 16, "k": 24, "v": 40, "o": 32}
"""Elements between the rows of strided tensors, another number each, so that no tensor can be read or written with another's
strides; multiples of 8, so that rows of 16-bit elements stay 16-byte aligned."""

_ONE_HEAD_DIM = ("goal",)
"""Kinds that exist for head_dim 64 only: the goal's size is the slow one on a CPU."""

_FP32_KINDS = ("tile + 1", "GQA")


@dataclass(frozen=True)
class CaseSpec:
    """A problem with an input family. Strided q, k and v are views of [batch, seq, heads, head_dim] storage, o is one of
    [batch, heads, seq, head_dim]; each has gaps of its own."""

    kind: str
    problem: Problem
    family: str

    @property
    def strided(self) -> bool:
        """Whether the tensors are views that are not contiguous."""
        return self.kind == "strided"

    @property
    def scale(self) -> float:
        """What multiplies q.k: PyTorch's default, but for kind `scale`."""
        return SCALE if self.kind == "scale" else self.problem.scale

    @property
    def name(self) -> str:
        """Unique and readable: `tile + 1/b1h2s129d64-fp16-causal/peaked`."""
        return f"{self.kind}/{self.problem.name}/{self.family}"


def all_cases() -> list[CaseSpec]:
    """Every case, in a fixed order: all kinds for head_dim 64 and 128, causal and not, fp16 and bf16, some in fp32."""
    specs = []
    turn = 0
    for kind, batch, heads_q, heads_kv, seq_q, seq_kv in _SHAPES:
        dtypes = ("fp16", "bf16", "fp32") if kind in _FP32_KINDS else ("fp16", "bf16")
        for dtype in dtypes:
            for head_dim in (64,) if kind in _ONE_HEAD_DIM else (64, 128):
                for causal in (False, True):
                    problem = Problem(batch, heads_q, heads_kv, seq_q, seq_kv, head_dim, dtype, causal)
                    if kind in _ALL_FAMILIES:
                        families: tuple[str, ...] = FAMILIES
                    else:
                        turn += 1
                        families = ("normal", FAMILIES[1 + turn % (len(FAMILIES) - 1)])
                    specs += [CaseSpec(kind, problem, family) for family in families]
    return specs


def sanitizer_cases() -> list[CaseSpec]:
    """A few small cases for compute-sanitizer, which slows kernels a hundredfold."""
    kinds = ("tile multiple", "tile + 1", "primes, more queries", "GQA")
    return [spec for spec in all_cases()
            if spec.kind in kinds and spec.family == "normal" and spec.problem.dtype in ("fp16", "bf16")]


def inputs(spec: CaseSpec, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """q, k, v of a case on the CPU, [batch, heads, seq, head_dim], rounded to the problem's dtype.

    The same seed gives the same values on every machine.
    """
    problem = spec.problem
    generator = torch.Generator().manual_seed(seed)

    def normal(heads: int, seq: int) -> torch.Tensor:
        return torch.randn(problem.batch, heads, seq, problem.head_dim, generator=generator)

    q = normal(problem.heads_q, problem.seq_q)
    k = normal(problem.heads_kv, problem.seq_kv)
    v = normal(problem.heads_kv, problem.seq_kv)
    if spec.family == "peaked":
        q = q * 4
    elif spec.family == "sentinel":
        # Under the causal mask a query may only point at a key that it sees.
        rows = torch.arange(problem.seq_q)
        limit = torch.clamp(rows + 1, max=problem.seq_kv) if problem.causal else torch.full_like(rows, problem.seq_kv)
        target = (torch.rand(problem.seq_q, generator=generator) * limit).long()
        group = problem.heads_q // problem.heads_kv
        q = 4 * k.repeat_interleave(group, dim=1)[:, :, target]
    elif spec.family == "large":
        q, k = q * 8, k * 8
    elif spec.family == "outliers":
        def spread(tensor: torch.Tensor) -> torch.Tensor:
            hit = torch.rand(tensor.shape, generator=generator) < 0.001
            return tensor + 10 * torch.randn(tensor.shape, generator=generator) * hit
        q, k, v = spread(q), spread(k), spread(v)
    elif spec.family == "equal":
        k = k[:, :, :1].expand(-1, -1, problem.seq_kv, -1)
    elif spec.family == "nan":
        place = [int(torch.randint(size, (), generator=generator)) for size in k.shape]
        k[tuple(place)] = float("nan")
    dtype = TORCH_DTYPES[problem.dtype]
    return q.to(dtype), k.to(dtype), v.to(dtype)


class Guarded:
    """A tensor inside a larger buffer whose margins hold a pattern, so that writes outside show.

    `data` is [batch, heads, seq, head_dim] on `device`, its rows `gap` elements apart beyond the data; with `rows_first` it is a
    view of [batch, seq, heads, head_dim] storage.
    """

    MARGIN_BYTES = 4096

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: str, gap: int = 0, rows_first: bool = False) -> None:
        batch, heads, seq, head_dim = shape
        width = torch.empty((), dtype=dtype).element_size()
        self._margin = self.MARGIN_BYTES // width
        pitch = head_dim + gap
        elements = batch * heads * seq * pitch
        self.buffer = torch.empty(elements + 2 * self._margin, dtype=dtype, device=device)
        inner = self.buffer[self._margin:self._margin + elements]
        if rows_first:
            self.data = inner.view(batch, seq, heads, pitch)[..., :head_dim].transpose(1, 2)
        else:
            self.data = inner.view(batch, heads, seq, pitch)[..., :head_dim]

    def poison(self, pattern: int) -> None:
        """Fill buffer, data and margins alike, with one byte (0xFF is NaN in every dtype; 0x7B is large and finite)."""
        self.buffer.view(torch.uint8).fill_(pattern)

    def intact(self, pattern: int) -> bool:
        """Whether everything outside `data` still holds the pattern."""
        copy = self.buffer.clone()
        view = torch.as_strided(copy, self.data.shape, self.data.stride(), self.data.storage_offset())
        view.view(torch.uint8)[...] = pattern
        return bool((copy.view(torch.uint8) == pattern).all())

    def snapshot(self) -> torch.Tensor:
        """A copy of the whole buffer as bytes."""
        return self.buffer.view(torch.uint8).clone()


class Bound:
    """A problem's tensors on a device and the struct that points at them."""

    def __init__(self, spec: CaseSpec, seed: int, device: str) -> None:
        problem = spec.problem
        self.inputs = []
        gaps = _GAPS if spec.strided else dict.fromkeys("qkvo", 0)
        for name, tensor in zip("qkv", inputs(spec, seed)):
            guarded = Guarded(tuple(tensor.shape), tensor.dtype, device, gaps[name], spec.strided)
            guarded.poison(0xFF)  # a read beyond a row's end meets NaN
            guarded.data.copy_(tensor)
            self.inputs.append(guarded)
        shape = (problem.batch, problem.heads_q, problem.seq_q, problem.head_dim)
        self.output = Guarded(shape, TORCH_DTYPES[problem.dtype], device, gaps["o"])
        self.struct = struct_for(problem)
        self.struct.scale = spec.scale
        for name, guarded in zip("qkvo", [*self.inputs, self.output]):
            setattr(self.struct, name, guarded.data.data_ptr())
            setattr(self.struct, f"{name}_stride", Strides(*guarded.data.stride()[:3]))
        self.workspace: torch.Tensor | None = None
        self._device = device

    def renew(self, spec: CaseSpec, seed: int) -> None:
        """Give q, k and v the values of another seed, behind the same pointers."""
        for guarded, tensor in zip(self.inputs, inputs(spec, seed)):
            guarded.data.copy_(tensor)

    def add_workspace(self, size: int) -> None:
        """Give the problem `size` bytes of scratch with guarded margins."""
        if size:
            margin = Guarded.MARGIN_BYTES
            self.workspace = torch.empty(size + 2 * margin + WORKSPACE_ALIGNMENT, dtype=torch.uint8, device=self._device)
            start = self.workspace.data_ptr() + margin
            start += -start % WORKSPACE_ALIGNMENT
            self._workspace_range = start - self.workspace.data_ptr(), start - self.workspace.data_ptr() + size
            self.struct.workspace = start

    def poison(self, pattern: int) -> None:
        """Fill output and workspace with one byte."""
        self.output.poison(pattern)
        if self.workspace is not None:
            self.workspace.fill_(pattern)

    def written_outside(self, pattern: int) -> str:
        """Which buffer was written outside its bounds; empty when none was."""
        if not self.output.intact(pattern):
            return "o"
        if self.workspace is not None:
            first, last = self._workspace_range
            if not bool((self.workspace[:first] == pattern).all() and (self.workspace[last:] == pattern).all()):
                return "workspace"
        return ""

