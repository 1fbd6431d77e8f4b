"""Is an output right? Row by row against a float64 reference, in units of what PyTorch itself gets wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as functional

from evosdpa.harness.checks import Check
from evosdpa.problem import Problem

UNIT_ROUNDOFF = {"fp16": 2.0**-11, "bf16": 2.0**-8, "fp32": 2.0**-24}
"""Largest relative error of rounding to nearest."""

FLOOR_ROUNDOFFS = {"fp16": 0.5, "bf16": 0.5, "fp32": 8.0}
"""The allowance never falls below tolerance x this many unit roundoffs. Half precision: with the default tolerance of 2, a
correctly rounded result always passes, also where PyTorch's own error is 0 by luck (one key: the output is v itself). fp32:
nothing is rounded away, so the order of summation over head_dim and keys shows, a few roundoffs either way."""

CAP_ROUNDOFFS = {"fp16": 4.0, "bf16": 4.0, "fp32": 512.0}
"""Nor does it rise above tolerance x this many: if PyTorch's own answer were wrong, the check must still be able to fail."""

TINY_ROW = 1e-3
"""Rows whose norm is below this share of the case's median row norm are measured against that share instead: where values
cancel, relative error says nothing."""

ONE_KEY, NEXT_KEY = 0.95, 0.8
"""A row's error is one key's doing when it points (cosine) at least this much along that key and at most this much along any
other. A random direction in 64 dimensions has a cosine near 0.1."""


@dataclass(frozen=True)
class Comparison:
    """How far an output is from the reference. `ratio` <= 1 and no `check` that says no: it passes."""

    ratio: float
    error: float
    max_abs: float
    worst: dict[str, int] = field(default_factory=dict)
    check: Check | None = None
    reason: str = ""


def reference(problem: Problem, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float | None = None) -> torch.Tensor:
    """Attention in float64 of inputs already rounded: [batch, heads_q, seq_q, head_dim], float64, head by head. `scale` is the
    problem's unless given."""
    scale = problem.scale if scale is None else scale
    group = problem.heads_q // problem.heads_kv
    out = torch.empty(q.shape, dtype=torch.float64, device=q.device)
    mask = None
    if problem.causal:
        mask = torch.ones(problem.seq_q, problem.seq_kv, dtype=torch.bool, device=q.device).tril()
    for batch in range(problem.batch):
        for head in range(problem.heads_q):
            scores = q[batch, head].double() @ k[batch, head // group].double().T * scale
            if mask is not None:
                scores.masked_fill_(~mask, float("-inf"))
            out[batch, head] = torch.softmax(scores, dim=-1) @ v[batch, head // group].double()
    return out


def pytorch(problem: Problem, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float | None = None) -> torch.Tensor:
    """PyTorch's own answer in the problem's dtype: scaled_dot_product_attention with its default backend."""
    return functional.scaled_dot_product_attention(
        q, k, v, is_causal=problem.causal, scale=problem.scale if scale is None else scale, enable_gqa=problem.heads_q != problem.heads_kv)


def same_values(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors hold the same values; NaN is the same as NaN, whatever its bits."""
    return bool(((one == other) | (torch.isnan(one) & torch.isnan(other))).all())


def row_errors(output: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """Relative L2 error of each row, [batch, heads, seq]: infinite where the output is not finite, 0 where the reference is not."""
    defined = torch.isfinite(expected).all(dim=-1)
    norms = expected.norm(dim=-1)
    typical = float(norms[defined].median()) if bool(defined.any()) else 0.0
    errors = (output.double() - expected).norm(dim=-1) / torch.clamp(norms, min=max(TINY_ROW * typical, 1e-30))
    errors = torch.where(torch.isfinite(errors), errors, torch.full_like(errors, float("inf")))
    return torch.where(defined, errors, torch.zeros_like(errors))


def compare(problem: Problem, output: torch.Tensor, expected: torch.Tensor, own: torch.Tensor, tolerance: float,
            inputs: tuple[torch.Tensor, ...] | None = None) -> Comparison:
    """Judge an output: its worst row's error over the allowance.

    `expected` is the float64 reference, `own` PyTorch's answer at this precision, both [batch, heads_q, seq_q, head_dim]. The
    allowance is tolerance x PyTorch's worst row, that held between FLOOR_ROUNDOFFS and CAP_ROUNDOFFS unit roundoffs. With
    `inputs` (q, k, v) the reason also names the key whose weight is wrong, where one key explains the worst row.
    """
    lost = ~torch.isfinite(output) & torch.isfinite(expected)
    if bool(lost.any()):
        return _at_first(lost, Check.FINITE, "values are not finite")
    hidden = torch.isnan(expected) & ~torch.isnan(output)
    if bool(hidden.any()):
        return _at_first(hidden, Check.NAN, "values should be NaN, as their inputs are, and are not")
    errors = row_errors(output, expected)
    own_errors = row_errors(own, expected)
    own_worst = float(own_errors[torch.isfinite(own_errors)].max()) if bool(torch.isfinite(own_errors).any()) else 0.0
    unit = UNIT_ROUNDOFF[problem.dtype]
    allowed = tolerance * min(max(own_worst, FLOOR_ROUNDOFFS[problem.dtype] * unit), CAP_ROUNDOFFS[problem.dtype] * unit)
    batch, head, row = _place(int(errors.argmax()), errors.shape)
    difference = (output[batch, head, row].double() - expected[batch, head, row]).abs()
    worst = {"batch": batch, "head": head, "row": row, "column": int(torch.nan_to_num(difference, nan=-1.0).argmax())}
    error = float(errors[batch, head, row])
    max_abs = float(torch.nan_to_num(output.double() - expected, nan=0.0).abs().max())
    ratio = error / allowed
    if ratio <= 1:
        return Comparison(ratio, error, max_abs, worst)
    bad = int((errors > allowed).sum())
    reason = f"{bad} of {errors.numel()} rows are wrong; the worst ({_words(worst)}) has relative error {error:.2e}, allowed {allowed:.2e}"
    if inputs is not None and (blamed := guilty_key(problem, output, expected, inputs, batch, head, row)):
        worst["key"] = blamed[0]
        reason += f"; key {blamed[0]} counts too {'little' if blamed[1] > 0 else 'much'}"
    return Comparison(ratio, error, max_abs, worst, Check.ACCURACY, reason)


def _place(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Indexes of a flat position, last dimension fastest."""
    place = []
    for size in reversed(shape):
        flat, index = divmod(flat, size)
        place.append(index)
    return tuple(reversed(place))


def _words(place: dict[str, int]) -> str:
    return ", ".join(f"{name} {index}" for name, index in place.items())


def _at_first(wrong: torch.Tensor, check: Check, what: str) -> Comparison:
    """A comparison that says no because of single values, and where the first of them is."""
    place = _place(int(wrong.flatten().to(torch.uint8).argmax()), wrong.shape)
    worst = dict(zip(("batch", "head", "row", "column"), place))
    return Comparison(math.inf, math.inf, math.inf, worst, check, f"{int(wrong.sum())} {what}, first in {_words(worst)}")


def guilty_key(problem: Problem, output: torch.Tensor, expected: torch.Tensor, inputs: tuple[torch.Tensor, ...],
               batch: int, head: int, row: int) -> tuple[int, int] | None:
    """The one key whose weight explains a wrong row, and +1 when it counts too little, -1 when too much; None when no key does.

    Taking weight from key j moves the row along expected - v[j], giving it more moves it the other way.
    """
    kv_head = head // (problem.heads_q // problem.heads_kv)
    seen = min(row + 1, problem.seq_kv) if problem.causal else problem.seq_kv
    right = expected[batch, head, row]
    error = output[batch, head, row].double() - right
    towards = right - inputs[2][batch, kv_head, :seen].double()
    cosines = torch.nan_to_num(towards @ error / (towards.norm(dim=-1) * error.norm()), nan=0.0)
    strength, order = cosines.abs().sort(descending=True)
    if float(strength[0]) < ONE_KEY or (seen > 1 and float(strength[1]) > NEXT_KEY):
        return None
    key = int(order[0])
    return key, 1 if float(cosines[key]) > 0 else -1
