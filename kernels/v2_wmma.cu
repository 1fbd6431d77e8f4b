/* evo-sdpa
title: WMMA tiles, cp.async ring
parent: v1_scalar
idea: both products on tensor cores through nvcuda::wmma, K and V copied ahead of their use by cp.async
expects: 10-15 us on the goal problem; latency of the trips of S, P and O through shared memory, not arithmetic
levers: {BLOCK_Q: [32, 64, 128], BLOCK_KV: [32, 64], STAGES: [2, 3]}
*/

// The same streaming softmax, with Q K^T and P V as 16x16x16 matrix products on tensor cores. A warp owns 16 query rows from
// the first key to the last; all warps of the CTA share the ring of K and V tiles, which cp.async fills STAGES - 1 tiles
// ahead. wmma's portable interface does not say which thread holds which element of a fragment, so whatever needs rows goes
// through shared memory: scores come out of the first product there, two lanes a row turn them into P, and O lives there in
// FP32 because only there can its rows be rescaled.
//
// Predicted on an H200: 10-15 us. Measured there: 15.7 us warm, 17.0 us stream, above the range: 2 warps on each SM issue in 37 %
// of the cycles, mostly waiting for the fixed latency of the instruction before, and the tensor pipe is busy 5 % of the time.
// The trips through shared memory cost more instructions than expected, not more waiting.
//
// New against v1: tensor cores, and loads that overlap with arithmetic. What is left on the table: for each tile S, P and O
// make a round trip through shared memory. Fragments whose layout is known (mma.sync) would stay in registers. And nvcc 13.0
// loads wmma's fp16 fragments with ldmatrix but its bf16 fragments with generic 4-byte loads: bf16 should be the slower one.

#include <mma.h>

#include "sdpa_async.cuh"
#include "sdpa_checks.h"
#include "sdpa_dtype.cuh"
#include "sdpa_launch.cuh"

#ifndef BLOCK_Q
#define BLOCK_Q 32 // query rows of a CTA, 16 for each warp: 128 CTAs on the goal problem
#endif
#ifndef BLOCK_KV
#define BLOCK_KV 64 // keys in a tile
#endif
#ifndef STAGES
#define STAGES 2 // tiles of K and V in shared memory: one in use, the others on their way
#endif
static_assert(BLOCK_Q == 32 || BLOCK_Q == 64 || BLOCK_Q == 128, "BLOCK_Q must be 32, 64 or 128");
static_assert(BLOCK_KV == 32 || BLOCK_KV == 64, "BLOCK_KV must be 32 or 64");
static_assert(STAGES == 2 || STAGES == 3, "STAGES must be 2 or 3");

using namespace nvcuda;

constexpr int WARP_ROWS = 16; // the M of wmma's 16x16x16, as its N and K
constexpr int NUM_WARPS = BLOCK_Q / WARP_ROWS;
constexpr int NUM_THREADS = NUM_WARPS * 32;

// Dynamic shared memory of a CTA. Rows are 8 elements longer than their contents: 16 or 32 bytes that shift each row to
// other banks, so that neither a fragment's 8 rows nor the softmax's 4 rows of quads meet in a bank. They are never read.
// wmma wants 32-byte aligned tiles and row lengths of whole 16 bytes; both hold for every 16x16 tile of these arrays.
template <typename T, int DIM> struct Shared {
  static constexpr int PAD = 8;
  alignas(128) T Q[BLOCK_Q][DIM + PAD];
  alignas(128) T K[STAGES][BLOCK_KV][DIM + PAD];
  alignas(128) T V[STAGES][BLOCK_KV][DIM + PAD];
  alignas(128) float S[BLOCK_Q][BLOCK_KV + PAD]; // from here on each warp touches its own 16 rows only
  alignas(128) T P[BLOCK_Q][BLOCK_KV + PAD];
  alignas(128) float O[BLOCK_Q][DIM + PAD];
};

// Starts the copies of ROWS rows from row0 on; rows behind the end arrive as zeros.
template <int ROWS, typename T, int DIM, int ROW_LENGTH>
__device__ void copy_tile_async(T (*smem)[ROW_LENGTH],                                      // [ROWS, DIM]
                                const T *global, int64_t row_stride, int row0, int num_rows) { // [num_rows, DIM]
  constexpr int CHUNKS = DIM / 8; // of 16 bytes
  static_assert(ROWS * CHUNKS % NUM_THREADS == 0, "every thread copies the same number of chunks");
#pragma unroll 4 // addresses ready ahead without taking the registers of the products
  for (int i = 0; i < ROWS * CHUNKS / NUM_THREADS; ++i) {
    const int index = i * NUM_THREADS + threadIdx.x;
    const int row = index / CHUNKS, d = index % CHUNKS * 8;
    const bool in_range = row0 + row < num_rows;
    cp_async_16(&smem[row][d], in_range ? global + (row0 + row) * row_stride + d : global, in_range);
  }
}

// Grid (q tiles, heads_q, batch). At least 1 CTA per SM is all that is asked of ptxas: shared memory limits occupancy anyway,
// and left to its own guess it saves registers until it spills.
template <typename T, int DIM>
__global__ void __launch_bounds__(NUM_THREADS, 1) sdpa_wmma(const __grid_constant__ sdpa_problem p) {
  using MatrixA = wmma::fragment<wmma::matrix_a, 16, 16, 16, T, wmma::row_major>;
  using MatrixB = wmma::fragment<wmma::matrix_b, 16, 16, 16, T, wmma::row_major>;
  using MatrixBTransposed = wmma::fragment<wmma::matrix_b, 16, 16, 16, T, wmma::col_major>;
  using Accumulator = wmma::fragment<wmma::accumulator, 16, 16, 16, float>;

  extern __shared__ __align__(128) unsigned char shared_memory[];
  using Smem = Shared<T, DIM>;
  Smem &smem = *reinterpret_cast<Smem *>(shared_memory);
  constexpr int LD_KV = DIM + Smem::PAD, LD_S = BLOCK_KV + Smem::PAD, LD_O = DIM + Smem::PAD; // row lengths; P has S's, Q K's

  const int batch = blockIdx.z, head = blockIdx.y, kv_head = head / (p.heads_q / p.heads_kv);
  const int q0 = blockIdx.x * BLOCK_Q;
  const T *Q = (const T *)p.q + batch * p.q_stride[0] + head * p.q_stride[1];    // [seq_q, DIM]
  const T *K = (const T *)p.k + batch * p.k_stride[0] + kv_head * p.k_stride[1]; // [seq_kv, DIM]
  const T *V = (const T *)p.v + batch * p.v_stride[0] + kv_head * p.v_stride[1]; // [seq_kv, DIM]
  T *O = (T *)p.o + batch * p.o_stride[0] + head * p.o_stride[1];                // [seq_q, DIM]

  // Top-left causal: row i sees keys 0 .. i. Tiles that no row of the CTA sees are not even loaded.
  const int kv_end = p.causal ? min(min(q0 + BLOCK_Q, p.seq_q), p.seq_kv) : p.seq_kv;
  const int num_tiles = (kv_end + BLOCK_KV - 1) / BLOCK_KV;

  // A group of copies for each tile, also for those behind the end, so that "all but the youngest n" always means the same.
  auto copy_kv_async = [&](int tile) {
    if (tile < num_tiles) {
      const int stage = tile % STAGES;
      copy_tile_async<BLOCK_KV, T, DIM>(smem.K[stage], K, p.k_stride[2], tile * BLOCK_KV, p.seq_kv);
      copy_tile_async<BLOCK_KV, T, DIM>(smem.V[stage], V, p.v_stride[2], tile * BLOCK_KV, p.seq_kv);
    }
    cp_async_commit();
  };
  copy_tile_async<BLOCK_Q, T, DIM>(smem.Q, Q, p.q_stride[2], q0, p.seq_q); // joins tile 0's group
#pragma unroll
  for (int tile = 0; tile < STAGES - 1; ++tile) copy_kv_async(tile);

  // The warp's rows, and in them the lane's row: lanes 2r and 2r + 1 own row r. They take turns at its quads, and both keep
  // its max and sum in registers.
  const int warp_row = threadIdx.x / 32 * WARP_ROWS;
  const int lane = threadIdx.x % 32, half = lane % 2;
  const int smem_row = warp_row + lane / 2;
  const int keys_seen = p.causal ? min(q0 + smem_row + 1, p.seq_kv) : p.seq_kv;
  float row_max = -INFINITY, row_sum = 0.0f;

#pragma unroll
  for (int c = 0; c < DIM / 8; ++c)
    *(float4 *)&smem.O[smem_row][(2 * c + half) * 4] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);

  for (int tile = 0; tile < num_tiles; ++tile) {
    const int stage = tile % STAGES, kv0 = tile * BLOCK_KV;
    cp_async_wait<STAGES - 2>(); // this thread's part of the tile (and of Q) has arrived,
    __syncthreads();             // everyone's has, and everyone is done with the tile before, whose stage is refilled now
    copy_kv_async(tile + STAGES - 1);

    if (p.causal && kv0 > q0 + warp_row + WARP_ROWS - 1) continue; // above the diagonal for all 16 rows of this warp

    // S = Q K^T. K is [key, d] in memory, so read column-major it is K^T.
    Accumulator S_frag[BLOCK_KV / 16];
#pragma unroll
    for (int n = 0; n < BLOCK_KV / 16; ++n) wmma::fill_fragment(S_frag[n], 0.0f);
#pragma unroll
    for (int k = 0; k < DIM / 16; ++k) {
      MatrixA Q_frag;
      wmma::load_matrix_sync(Q_frag, &smem.Q[warp_row][k * 16], LD_KV);
#pragma unroll
      for (int n = 0; n < BLOCK_KV / 16; ++n) {
        MatrixBTransposed K_frag;
        wmma::load_matrix_sync(K_frag, &smem.K[stage][n * 16][k * 16], LD_KV);
        wmma::mma_sync(S_frag[n], Q_frag, K_frag, S_frag[n]);
      }
    }
#pragma unroll
    for (int n = 0; n < BLOCK_KV / 16; ++n)
      wmma::store_matrix_sync(&smem.S[warp_row][n * 16], S_frag[n], LD_S, wmma::mem_row_major);
    __syncwarp(); // the warp's lanes wrote S, and O of the tile before; below each reads its row of both

    // Softmax of the row: this lane takes every other quad, its neighbour the rest.
    constexpr int QUADS = BLOCK_KV / 4 / 2;
    float S[QUADS][4];
    float new_max = row_max;
#pragma unroll
    for (int c = 0; c < QUADS; ++c) {
      const int column = (2 * c + half) * 4;
      const float4 quad = *(const float4 *)&smem.S[smem_row][column];
      const float scores[4] = {quad.x, quad.y, quad.z, quad.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        S[c][i] = kv0 + column + i < keys_seen ? scores[i] * p.scale : -INFINITY;
        new_max = fmaxf(new_max, S[c][i]); // passes over NaN, which reaches the row through its exponential instead
      }
    }
    new_max = fmaxf(new_max, __shfl_xor_sync(0xffffffff, new_max, 1));

    // While a row has seen nothing there is no max to shift by, and (-inf) - (-inf) would be NaN.
    const float shift = new_max == -INFINITY ? 0.0f : new_max;
    const float rescale = __expf(row_max - shift); // 0 on the first tile, 1 when the max stands
    float tile_sum = 0.0f;
#pragma unroll
    for (int c = 0; c < QUADS; ++c) {
      Pack<T, 4> P;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float weight = __expf(S[c][i] - shift);
        tile_sum += weight;
        P.x[i] = from_float<T>(weight);
      }
      *(Pack<T, 4> *)&smem.P[smem_row][(2 * c + half) * 4] = P;
    }
    tile_sum += __shfl_xor_sync(0xffffffff, tile_sum, 1);
    row_max = new_max;
    row_sum = row_sum * rescale + tile_sum;

#pragma unroll
    for (int c = 0; c < DIM / 8; ++c) {
      float4 &o = *(float4 *)&smem.O[smem_row][(2 * c + half) * 4];
      o = make_float4(o.x * rescale, o.y * rescale, o.z * rescale, o.w * rescale);
    }
    __syncwarp(); // P and O of all 16 rows are ready

    // O += P V.
    MatrixA P_frag[BLOCK_KV / 16];
#pragma unroll
    for (int k = 0; k < BLOCK_KV / 16; ++k) wmma::load_matrix_sync(P_frag[k], &smem.P[warp_row][k * 16], LD_S);
#pragma unroll
    for (int n = 0; n < DIM / 16; ++n) {
      Accumulator O_frag;
      wmma::load_matrix_sync(O_frag, &smem.O[warp_row][n * 16], LD_O, wmma::mem_row_major);
#pragma unroll
      for (int k = 0; k < BLOCK_KV / 16; ++k) {
        MatrixB V_frag;
        wmma::load_matrix_sync(V_frag, &smem.V[stage][k * 16][n * 16], LD_KV);
        wmma::mma_sync(O_frag, P_frag[k], V_frag, O_frag);
      }
      wmma::store_matrix_sync(&smem.O[warp_row][n * 16], O_frag, LD_O, wmma::mem_row_major);
    }
  }
  __syncwarp(); // O of all 16 rows is complete

  // The warp writes its rows 16 bytes a lane, a row after the other; the row's factor comes from the lane that owns it.
  const float normalise = row_sum == 0.0f ? 0.0f : 1.0f / row_sum; // no weight at all: 0; NaN stays NaN
  constexpr int CHUNKS = DIM / 8;
#pragma unroll
  for (int i = 0; i < WARP_ROWS * CHUNKS / 32; ++i) {
    const int r = (i * 32 + lane) / CHUNKS, d = lane % CHUNKS * 8;
    const float factor = __shfl_sync(0xffffffff, normalise, 2 * r);
    const float4 low = *(const float4 *)&smem.O[warp_row + r][d];
    const float4 high = *(const float4 *)&smem.O[warp_row + r][d + 4];
    const Pack<T, 8> out = {from_float<T>(low.x * factor),  from_float<T>(low.y * factor),
                            from_float<T>(low.z * factor),  from_float<T>(low.w * factor),
                            from_float<T>(high.x * factor), from_float<T>(high.y * factor),
                            from_float<T>(high.z * factor), from_float<T>(high.w * factor)};
    const int row = q0 + warp_row + r;
    if (row < p.seq_q) *(Pack<T, 8> *)(O + row * p.o_stride[2] + d) = out;
  }
}

static dim3 grid_of(const sdpa_problem &p) { return dim3((p.seq_q + BLOCK_Q - 1) / BLOCK_Q, p.heads_q, p.batch); }

static int shared_bytes(const sdpa_problem &p) {
  return with_instance(p, [](auto i) { return (int)sizeof(Shared<typename decltype(i)::T, decltype(i)::DIM>); });
}

const char *sdpa_supports(const sdpa_problem *p) {
  if (const char *reason = sizes_reason(*p)) return reason;
  if (const char *reason = instance_reason(*p)) return reason;
  if (const char *reason = alignment_reason(*p)) return reason;
  return shared_memory_reason(*p, shared_bytes(*p), "BLOCK_Q, BLOCK_KV or STAGES");
}

size_t sdpa_workspace_bytes(const sdpa_problem *) { return 0; }

int sdpa_launch(const sdpa_problem *problem, void *stream) {
  const int bytes = shared_bytes(*problem);
  return with_instance(*problem, [&](auto instance) -> int {
    using I = decltype(instance);
    return launch_kernel(sdpa_wmma<typename I::T, I::DIM>, grid_of(*problem), NUM_THREADS, bytes, stream, false, *problem);
  });
}

int sdpa_describe(const sdpa_problem *problem, sdpa_launch_info *info, int capacity) {
  if (sizes_reason(*problem) || instance_reason(*problem) || capacity < 1) return 0;
  const dim3 grid = grid_of(*problem);
  const bool fp16 = problem->dtype == SDPA_FP16, dim64 = problem->head_dim == 64;
  *info = {{(int)grid.x, (int)grid.y, (int)grid.z}, {NUM_THREADS, 1, 1}, shared_bytes(*problem),
           fp16 ? (dim64 ? "sdpa_wmmaI6__halfLi64E" : "sdpa_wmmaI6__halfLi128E")
                : (dim64 ? "sdpa_wmmaI13__nv_bfloat16Li64E" : "sdpa_wmmaI13__nv_bfloat16Li128E")};
  return 1;
}
