"""Is an output right? Row by row against a float64 reference, in units of what PyTorch itself gets wrong."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as functional

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


@dataclass(frozen=True)
class Comparison:
    """How far an output is from the reference. `ratio` <= 1 passes."""

    ratio: float
    error: float
    max_abs: float
    worst: dict[str, int]
    reason: str


def reference(problem: Problem, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention in float64 of inputs already rounded: [batch, heads_q, seq_q, head_dim], float64, head by head."""
    group = problem.heads_q // problem.heads_kv
    out = torch.empty(q.shape, dtype=torch.float64, device=q.device)
    mask = None
    if problem.causal:
        mask = torch.ones(problem.seq_q, problem.seq_kv, dtype=torch.bool, device=q.device).tril()
    for batch in range(problem.batch):
        for head in range(problem.heads_q):
            scores = q[batch, head].double() @ k[batch, head // group].double().T * problem.scale
            if mask is not None:
                scores.masked_fill_(~mask, float("-inf"))
            out[batch, head] = torch.softmax(scores, dim=-1) @ v[batch, head // group].double()
    return out


def pytorch(problem: Problem, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """PyTorch's own answer in the problem's dtype: scaled_dot_product_attention with its default backend."""
    return functional.scaled_dot_product_attention(
        q, k, v, is_causal=problem.causal, scale=problem.scale, enable_gqa=problem.heads_q != problem.heads_kv)


def row_errors(output: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """Relative L2 error of each row, [batch, heads, seq]; infinite where the output is not finite."""
    norms = expected.norm(dim=-1)
    norms = torch.clamp(norms, min=max(TINY_ROW * float(norms.median()), 1e-30))
    errors = (output.double() - expected).norm(dim=-1) / norms
    return torch.where(torch.isfinite(errors), errors, torch.full_like(errors, float("inf")))


def compare(problem: Problem, output: torch.Tensor, expected: torch.Tensor, own: torch.Tensor, tolerance: float) -> Comparison:
    """Judge an output: its worst row's error over the allowance.

    `expected` is the float64 reference, `own` PyTorch's answer at this precision. The allowance is
    tolerance x PyTorch's worst row, that held between FLOOR_ROUNDOFFS and CAP_ROUNDOFFS unit roundoffs. Shapes [batch, heads_q, seq_q, head_dim].
    """
    errors = row_errors(output, expected)
    own_errors = row_errors(own, expected)
    own_worst = float(own_errors[torch.isfinite(own_errors)].max()) if bool(torch.isfinite(own_errors).any()) else 0.0
    unit = UNIT_ROUNDOFF[problem.dtype]
    allowed = tolerance * min(max(own_worst, FLOOR_ROUNDOFFS[problem.dtype] * unit), CAP_ROUNDOFFS[problem.dtype] * unit)
    flat = int(errors.argmax())
    seq, heads = problem.seq_q, problem.heads_q
    batch, head, row = flat // (heads * seq), flat // seq % heads, flat % seq
    difference = (output[batch, head, row].double() - expected[batch, head, row]).abs()
    column = int(torch.nan_to_num(difference, nan=float("inf")).argmax())
    worst = {"batch": batch, "head": head, "row": row, "column": column}
    error = float(errors.reshape(-1)[flat])
    place = f"batch {batch}, head {head}, row {row}, column {column}"
    nonfinite = int((~torch.isfinite(output) & torch.isfinite(expected)).sum())
    if nonfinite:
        return Comparison(float("inf"), float("inf"), float("inf"), worst, f"{nonfinite} values are not finite, first in {place}")
    max_abs = float((output.double() - expected).abs().max())
    ratio = error / allowed
    reason = ""
    if ratio > 1:
        bad = int((errors > allowed).sum())
        reason = (f"{bad} of {errors.numel()} rows are wrong; the worst ({place}) has relative error {error:.2e}, "
                  f"allowed {allowed:.2e}")
    return Comparison(ratio, error, max_abs, worst, reason)
