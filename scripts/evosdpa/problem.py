"""Attention problems: their names, their sizes, and the work that no kernel can avoid."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

DTYPES = {"fp16": 0, "bf16": 1, "fp32": 2}
"""Names of the element types and their codes in `sdpa.h`."""

ELEMENT_BYTES = {"fp16": 2, "bf16": 2, "fp32": 4}

_NAME = re.compile(
    r"b(?P<batch>\d+)h(?P<heads_q>\d+)s(?P<seq_q>\d+)d(?P<head_dim>\d+)-(?P<dtype>fp16|bf16|fp32)"
    r"(?P<causal>-causal)?(?:-hkv(?P<heads_kv>\d+))?(?:-kv(?P<seq_kv>\d+))?"
)


@dataclass(frozen=True)
class Problem:
    """One forward attention: shape, dtype and mask. Tensors are [batch, heads, seq, head_dim]."""

    batch: int
    heads_q: int
    heads_kv: int
    seq_q: int
    seq_kv: int
    head_dim: int
    dtype: str
    causal: bool

    def __post_init__(self) -> None:
        for field in ("batch", "heads_q", "heads_kv", "seq_q", "seq_kv", "head_dim"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}")
        if self.heads_q % self.heads_kv:
            raise ValueError(f"heads_kv={self.heads_kv} does not divide heads_q={self.heads_q}")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype {self.dtype!r} is not one of {', '.join(DTYPES)}")

    @property
    def scale(self) -> float:
        """The factor on q.k: 1/sqrt(head_dim), as PyTorch's default."""
        return 1.0 / math.sqrt(self.head_dim)

    @property
    def name(self) -> str:
        """The canonical name, for example `b1h8s512d64-fp16-causal`."""
        text = f"b{self.batch}h{self.heads_q}s{self.seq_q}d{self.head_dim}-{self.dtype}"
        if self.causal:
            text += "-causal"
        if self.heads_kv != self.heads_q:
            text += f"-hkv{self.heads_kv}"
        if self.seq_kv != self.seq_q:
            text += f"-kv{self.seq_kv}"
        return text

    @property
    def pairs(self) -> int:
        """Query-key pairs that contribute, over all heads; under the causal mask query i sees keys 0..i."""
        if not self.causal:
            per_head = self.seq_q * self.seq_kv
        else:
            full = min(self.seq_q, self.seq_kv)
            per_head = full * (full + 1) // 2 + max(0, self.seq_q - self.seq_kv) * self.seq_kv
        return self.batch * self.heads_q * per_head

    @property
    def flops(self) -> int:
        """Floating-point operations of both products: 2 x 2 x head_dim for each pair (FlashAttention's count)."""
        return 4 * self.head_dim * self.pairs

    @property
    def bytes(self) -> int:
        """Bytes that must move: q, k and v read once, o written once."""
        elements = 2 * self.batch * self.heads_q * self.seq_q * self.head_dim
        elements += 2 * self.batch * self.heads_kv * self.seq_kv * self.head_dim
        return elements * ELEMENT_BYTES[self.dtype]


def parse(name: str) -> Problem:
    """The problem that a name stands for.

    Raises ValueError with one line that says what is wrong and shows the form.
    """
    match = _NAME.fullmatch(name)
    if not match:
        raise ValueError(
            f"{name!r} is not a problem name; the form is b<batch>h<heads>s<seq>d<head_dim>-<fp16|bf16|fp32>"
            "[-causal][-hkv<n>][-kv<n>], for example b1h8s512d64-fp16-causal"
        )
    group = match.groupdict()
    heads_q, seq_q = int(group["heads_q"]), int(group["seq_q"])
    try:
        problem = Problem(
            batch=int(group["batch"]), heads_q=heads_q, heads_kv=int(group["heads_kv"] or heads_q),
            seq_q=seq_q, seq_kv=int(group["seq_kv"] or seq_q), head_dim=int(group["head_dim"]),
            dtype=group["dtype"], causal=bool(group["causal"]),
        )
    except ValueError as error:
        raise ValueError(f"problem {name!r}: {error}") from None
    if problem.name != name:
        raise ValueError(f"problem {name!r} is written {problem.name!r}")
    return problem
