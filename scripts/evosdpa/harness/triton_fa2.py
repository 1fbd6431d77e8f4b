"""FlashAttention-2 forward in Triton, autotuned: the rival that a user without any CUDA source would write.

One program computes BLOCK_M query rows of one head. It keeps its Q tile and a running (maximum, sum, output) per row and
walks over the keys in blocks of BLOCK_N. Blocks that every row sees in full need no mask; the ones at the causal diagonal or
at a ragged end of the keys go through a second, masked loop. Importing this module without Triton raises ImportError.
"""

from __future__ import annotations

from typing import Any, Callable

import torch
import triton
import triton.language as tl

HEAD_DIMS = (64, 128)
DTYPES = (torch.float16, torch.bfloat16)

LOG2_E = 1.4426950408889634
MAX_BLOCK_N = 128

# One warp holds 16 rows of a matrix instruction, so more than BLOCK_M / 16 warps would only repeat work. BLOCK_M 32 with two
# warps is there for small problems: it gives twice the programs of 64 where 64 leaves most of the chip idle.
CONFIGS = [
    triton.Config({"BLOCK_M": block_m, "BLOCK_N": block_n}, num_warps=num_warps, num_stages=num_stages)
    for block_m, num_warps, block_n in (
        (32, 2, 64), (64, 4, 32), (64, 4, 64), (64, 4, MAX_BLOCK_N), (128, 4, 64), (128, 8, 64), (128, 8, MAX_BLOCK_N))
    for num_stages in (2, 3)
]


@triton.jit
def _attend_blocks(
    acc, row_sum, row_max,  # running output [BLOCK_M, HEAD_DIM] and softmax state [BLOCK_M], all FP32
    q_tile,  # [BLOCK_M, HEAD_DIM]
    k_head, v_head, k_stride_row, v_stride_row,  # this head's first key and value
    rows,  # [BLOCK_M] query indices
    first_key, end_key, seq_kv, scale_log2,
    MASKED: tl.constexpr, CAUSAL: tl.constexpr,
    HEAD_DIM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Fold the keys first_key..end_key, in blocks of BLOCK_N, into the running state; returns the new state."""
    block = tl.arange(0, BLOCK_N)
    dims = tl.arange(0, HEAD_DIM)
    for start in tl.range(first_key, end_key, BLOCK_N):
        start = tl.multiple_of(start, BLOCK_N)
        # 64-bit only for the scalar part: a long sequence with wide rows passes 2^31 elements, an offset in a tile does not.
        k_ptrs = k_head + tl.cast(start, tl.int64) * k_stride_row + (block[None, :] * k_stride_row + dims[:, None])
        v_ptrs = v_head + tl.cast(start, tl.int64) * v_stride_row + (block[:, None] * v_stride_row + dims[None, :])
        keys = start + block
        if MASKED:
            k_tile = tl.load(k_ptrs, mask=keys[None, :] < seq_kv, other=0.0)
        else:
            k_tile = tl.load(k_ptrs)

        scores = tl.dot(q_tile, k_tile)
        if MASKED:
            visible = keys[None, :] < seq_kv
            if CAUSAL:
                visible = visible & (keys[None, :] <= rows[:, None])
            # Scaled before the mask: a scale of 0 must not turn -inf into NaN.
            scores = tl.where(visible, scores * scale_log2, float("-inf"))
            new_max = tl.maximum(row_max, tl.max(scores, 1))
            p = tl.exp2(scores - new_max[:, None])
        else:
            # scale >= 0, so it can be taken out of the maximum; what is left is one multiply-add per score.
            new_max = tl.maximum(row_max, tl.max(scores, 1) * scale_log2)
            p = tl.exp2(scores * scale_log2 - new_max[:, None])

        # Key 0 is visible to every row and is in the first block, so new_max is finite from then on.
        correction = tl.exp2(row_max - new_max)
        row_sum = row_sum * correction + tl.sum(p, 1)
        row_max = new_max
        if MASKED:
            v_tile = tl.load(v_ptrs, mask=keys[:, None] < seq_kv, other=0.0)
        else:
            v_tile = tl.load(v_ptrs)
        acc = tl.dot(p.to(v_tile.dtype), v_tile, acc * correction[:, None])
    return acc, row_sum, row_max


@triton.jit
def _attention_kernel(
    q, k, v, o,  # [batch, heads, seq, HEAD_DIM], last dimension contiguous
    q_stride_batch, q_stride_head, q_stride_row,
    k_stride_batch, k_stride_head, k_stride_row,
    v_stride_batch, v_stride_head, v_stride_row,
    o_stride_batch, o_stride_head, o_stride_row,
    batch_heads, heads_q, queries_per_kv_head, seq_q, seq_kv, scale_log2,
    HEAD_DIM: tl.constexpr, CAUSAL: tl.constexpr, MASKED_END: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """One program per (head, tile of BLOCK_M queries); the grid is flat: batch * heads_q * ceil(seq_q / BLOCK_M)."""
    tiles = tl.cdiv(seq_q, BLOCK_M)
    tile = tl.program_id(0) % tiles
    batch_head = tl.program_id(0) // tiles
    if CAUSAL:
        tile = tiles - 1 - tile  # the longest rows first, so that none of them is left for the end
    batch = tl.cast(batch_head // heads_q, tl.int64)
    head = tl.cast(batch_head % heads_q, tl.int64)
    kv_head = tl.cast(batch_head % heads_q // queries_per_kv_head, tl.int64)

    first_row = tile * BLOCK_M
    block = tl.arange(0, BLOCK_M)
    dims = tl.arange(0, HEAD_DIM)
    rows = first_row + block
    row_exists = rows[:, None] < seq_q
    q_head = q + batch * q_stride_batch + head * q_stride_head + tl.cast(first_row, tl.int64) * q_stride_row
    q_tile = tl.load(q_head + block[:, None] * q_stride_row + dims[None, :], mask=row_exists, other=0.0)
    k_head = k + batch * k_stride_batch + kv_head * k_stride_head
    v_head = v + batch * v_stride_batch + kv_head * v_stride_head

    # Keys that some row of the tile sees, and of those the whole blocks that every row sees.
    if CAUSAL:
        end_key = tl.minimum(seq_kv, first_row + BLOCK_M)
        end_full = tl.minimum(seq_kv, first_row + 1) // BLOCK_N * BLOCK_N
    else:
        end_key = seq_kv
        end_full = seq_kv // BLOCK_N * BLOCK_N

    acc = tl.zeros([BLOCK_M, HEAD_DIM], tl.float32)
    row_sum = tl.zeros([BLOCK_M], tl.float32)
    row_max = tl.full([BLOCK_M], float("-inf"), tl.float32)
    acc, row_sum, row_max = _attend_blocks(
        acc, row_sum, row_max, q_tile, k_head, v_head, k_stride_row, v_stride_row, rows,
        0, end_full, seq_kv, scale_log2, False, CAUSAL, HEAD_DIM, BLOCK_M, BLOCK_N,
    )  # fmt: skip
    if MASKED_END:
        acc, row_sum, row_max = _attend_blocks(
            acc, row_sum, row_max, q_tile, k_head, v_head, k_stride_row, v_stride_row, rows,
            end_full, end_key, seq_kv, scale_log2, True, CAUSAL, HEAD_DIM, BLOCK_M, BLOCK_N,
        )  # fmt: skip

    o_head = o + batch * o_stride_batch + head * o_stride_head + tl.cast(first_row, tl.int64) * o_stride_row
    o_tile = (acc / row_sum[:, None]).to(o.dtype.element_ty)
    tl.store(o_head + block[:, None] * o_stride_row + dims[None, :], o_tile, mask=row_exists)


def _bench_in_graph(launch: Callable[[], None], quantiles: tuple[float, ...]) -> list[float]:
    """Time a configuration the way the headline is timed: back to back in a CUDA graph, on a warm L2."""
    return triton.testing.do_bench_cudagraph(launch, rep=10, quantiles=quantiles)


# batch_heads is in the key because it decides how many programs there are: the best tile of 8 heads is not that of 64.
_tuned_kernel = triton.autotune(
    configs=CONFIGS,
    key=["batch_heads", "queries_per_kv_head", "seq_q", "seq_kv", "HEAD_DIM", "CAUSAL"],
    do_bench=_bench_in_graph,
)(_attention_kernel)


def attention_into(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, o: torch.Tensor,
    is_causal: bool, scale: float, config: triton.Config | None = None,
) -> None:  # fmt: skip
    """Write softmax(scale * q k^T) v into `o`: enqueued on the current stream, nothing allocated, nothing synchronised.

    q, o    [batch, heads_q, seq_q, head_dim], fp16 or bf16, head_dim 64 or 128
    k, v    [batch, heads_kv, seq_kv, head_dim], same dtype; heads_kv divides heads_q
    scale   >= 0
    config  a triton.Config to use as it is; None takes the best of CONFIGS

    Any strides with a contiguous last dimension. is_causal: query i sees keys 0..i (top-left, as in PyTorch). With
    config=None the first call for a shape compiles and times CONFIGS, which synchronises; later calls can be captured
    in a CUDA graph. Raises ValueError for what the kernel does not cover.
    """
    batch, heads_q, seq_q, head_dim = q.shape
    _, heads_kv, seq_kv, _ = k.shape
    if q.dtype not in DTYPES or not q.dtype == k.dtype == v.dtype == o.dtype:
        raise ValueError(f"the Triton kernel takes fp16 or bf16 throughout, not {q.dtype}, {k.dtype}, {v.dtype}, {o.dtype}")
    if head_dim not in HEAD_DIMS:
        raise ValueError(f"the Triton kernel takes head_dim 64 or 128, not {head_dim}")
    if o.shape != q.shape or v.shape != k.shape or k.shape != (batch, heads_kv, seq_kv, head_dim) or heads_q % heads_kv:
        raise ValueError(f"shapes do not fit: q {[*q.shape]}, k {[*k.shape]}, v {[*v.shape]}, o {[*o.shape]}")
    if not q.stride(3) == k.stride(3) == v.stride(3) == o.stride(3) == 1:
        raise ValueError("the last dimension of q, k, v and o must be contiguous")
    if scale < 0:
        raise ValueError(f"the Triton kernel takes a scale >= 0, not {scale}")

    def grid(meta: dict[str, Any]) -> tuple[int]:
        return (batch * heads_q * triton.cdiv(seq_q, meta["BLOCK_M"]),)

    kernel = _tuned_kernel if config is None else _attention_kernel
    kernel[grid](
        q, k, v, o,
        *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *o.stride()[:3],
        batch * heads_q, heads_q, heads_q // heads_kv, seq_q, seq_kv, scale * LOG2_E,
        HEAD_DIM=head_dim, CAUSAL=is_causal, MASKED_END=is_causal or seq_kv % MAX_BLOCK_N != 0,
        **(config.all_kwargs() if config is not None else {}),
    )  # fmt: skip


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, is_causal: bool, scale: float) -> torch.Tensor:
    """Return softmax(scale * q k^T) v as a new contiguous tensor; shapes, dtypes and errors as in attention_into().

    q [batch, heads_q, seq_q, head_dim]; k, v [batch, heads_kv, seq_kv, head_dim]; the result has q's shape and dtype.
    """
    o = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    attention_into(q, k, v, o, is_causal, scale)
    return o
