/* evo-sdpa
title: streaming softmax on CUDA cores
parent: v0_reference
idea: one small group of lanes for each query row, K and V tiles shared through shared memory, scalar FMAs only
expects: 35-70 us on the goal problem; bound by shared memory reads, one 16-byte load for every 4 FMAs of a lane
levers: {BLOCK_Q: [16, 32, 64], BLOCK_KV: [8, 16, 32], LANES_PER_ROW: [4, 8]}
*/

// The reference's loop, with every query row in flight at once. A CTA owns BLOCK_Q rows of one head and walks over the keys in
// tiles of BLOCK_KV that it converts to float on their way into shared memory. LANES_PER_ROW neighbouring lanes own a row:
// each holds its part of Q and O in registers, and shuffles add up their partial scores. The max, the sum and the scores
// are then in all lanes of the group, so that nothing but K and V goes through shared memory.
//
// Predicted on an H200: 35-70 us. Measured there: 70.4 us warm, 96.1 us stream. It is latency, not FMAs: with 4 warps on each SM
// the FMA pipe is busy 13 % of the time, and warps wait for global loads and then for shared memory between each two
// instructions. Loads from beyond L2 are waited for in full, hence the distance from warm to stream.
//
// New against v0: rows run in parallel. What is left on the table: the tensor cores, which do 16 times the FMAs of the
// CUDA cores, and loads that overlap with arithmetic.

#include "sdpa_dtype.cuh"

#ifndef BLOCK_Q
#define BLOCK_Q 32 // query rows of a CTA: 128 CTAs on the goal problem, one for each SM
#endif
#ifndef BLOCK_KV
#define BLOCK_KV 32 // keys in a tile; a lane keeps that many scores in registers
#endif
#ifndef LANES_PER_ROW
#define LANES_PER_ROW 4
#endif
static_assert(BLOCK_Q == 16 || BLOCK_Q == 32 || BLOCK_Q == 64, "BLOCK_Q must be 16, 32 or 64");
static_assert(BLOCK_KV == 8 || BLOCK_KV == 16 || BLOCK_KV == 32, "BLOCK_KV must be 8, 16 or 32");
static_assert(LANES_PER_ROW == 4 || LANES_PER_ROW == 8, "LANES_PER_ROW must be 4 or 8");

constexpr int NUM_THREADS = BLOCK_Q * LANES_PER_ROW; // whole warps: 64 to 512

// BLOCK_KV rows from kv0 on, as floats. Rows behind the end become zeros: their scores are masked, but 0 * garbage in the
// sum over V could still be NaN. Single elements, neighbouring threads next to each other: coalesced, at any alignment.
template <typename T, int DIM>
__device__ void load_tile(float (*smem)[DIM],                                      // [BLOCK_KV, DIM]
                          const T *global, int64_t row_stride, int kv0, int seq_kv) { // [seq_kv, DIM]
#pragma unroll 16 // loads in flight: enough to hide their latency, and few enough to leave registers for the rest
  for (int i = 0; i < BLOCK_KV * DIM / NUM_THREADS; ++i) {
    const int index = i * NUM_THREADS + threadIdx.x;
    const int key = index / DIM, d = index % DIM;
    smem[key][d] = kv0 + key < seq_kv ? to_float(global[(kv0 + key) * row_stride + d]) : 0.0f;
  }
}

template <typename T, int DIM> // grid (q tiles, heads_q, batch)
__global__ void __launch_bounds__(NUM_THREADS) sdpa_scalar(const __grid_constant__ sdpa_problem p) {
  __shared__ __align__(16) float K_smem[BLOCK_KV][DIM];
  __shared__ __align__(16) float V_smem[BLOCK_KV][DIM];
  static_assert(BLOCK_KV * DIM % NUM_THREADS == 0, "every thread loads the same number of elements");

  const int batch = blockIdx.z, head = blockIdx.y, kv_head = head / (p.heads_q / p.heads_kv);
  const int q0 = blockIdx.x * BLOCK_Q;
  const int row = q0 + threadIdx.x / LANES_PER_ROW;
  const int lane = threadIdx.x % LANES_PER_ROW; // within the row's group
  const T *Q = (const T *)p.q + batch * p.q_stride[0] + head * p.q_stride[1] + row * p.q_stride[2]; // [DIM]
  const T *K = (const T *)p.k + batch * p.k_stride[0] + kv_head * p.k_stride[1];                    // [seq_kv, DIM]
  const T *V = (const T *)p.v + batch * p.v_stride[0] + kv_head * p.v_stride[1];                    // [seq_kv, DIM]
  T *O = (T *)p.o + batch * p.o_stride[0] + head * p.o_stride[1] + row * p.o_stride[2];             // [DIM]

  // A lane owns every LANES_PER_ROW-th quad of the row, not one long piece: the lanes of a group then read neighbouring
  // quads of shared memory, in different banks, and the other groups of the warp read the same addresses (a broadcast).
  constexpr int QUADS = DIM / 4 / LANES_PER_ROW;
  float Q_reg[QUADS][4], O_reg[QUADS][4];
#pragma unroll
  for (int c = 0; c < QUADS; ++c)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      Q_reg[c][i] = row < p.seq_q ? to_float(Q[(c * LANES_PER_ROW + lane) * 4 + i]) : 0.0f;
      O_reg[c][i] = 0.0f;
    }
  float row_max = -INFINITY, row_sum = 0.0f;

  // Top-left causal: row i sees keys 0 .. i. The CTA stops after the last key that its last row sees.
  const int keys_seen = p.causal ? min(row + 1, p.seq_kv) : p.seq_kv;
  const int kv_end = p.causal ? min(min(q0 + BLOCK_Q, p.seq_q), p.seq_kv) : p.seq_kv;

  for (int kv0 = 0; kv0 < kv_end; kv0 += BLOCK_KV) {
    __syncthreads(); // everyone is done with the tile before
    load_tile<T, DIM>(K_smem, K, p.k_stride[2], kv0, p.seq_kv);
    load_tile<T, DIM>(V_smem, V, p.v_stride[2], kv0, p.seq_kv);
    __syncthreads();

    // S = scale * Q K^T, -inf where the row does not see the key.
    float S[BLOCK_KV];
    float new_max = row_max;
#pragma unroll
    for (int key = 0; key < BLOCK_KV; ++key) {
      float score = 0.0f;
#pragma unroll
      for (int c = 0; c < QUADS; ++c) {
        const float4 k = *(const float4 *)&K_smem[key][(c * LANES_PER_ROW + lane) * 4];
        score = fmaf(Q_reg[c][0], k.x, score);
        score = fmaf(Q_reg[c][1], k.y, score);
        score = fmaf(Q_reg[c][2], k.z, score);
        score = fmaf(Q_reg[c][3], k.w, score);
      }
#pragma unroll
      for (int offset = 1; offset < LANES_PER_ROW; offset *= 2) score += __shfl_xor_sync(0xffffffff, score, offset);
      S[key] = kv0 + key < keys_seen ? score * p.scale : -INFINITY;
      new_max = fmaxf(new_max, S[key]); // passes over NaN, which reaches the row through its exponential instead
    }

    // While a row has seen nothing there is no max to shift by, and (-inf) - (-inf) would be NaN.
    const float shift = new_max == -INFINITY ? 0.0f : new_max;
    const float rescale = __expf(row_max - shift); // 0 on the first tile, 1 when the max stands
    row_max = new_max;
    row_sum *= rescale;
#pragma unroll
    for (int c = 0; c < QUADS; ++c)
#pragma unroll
      for (int i = 0; i < 4; ++i) O_reg[c][i] *= rescale;

    // O += P V with P = exp(S - max).
#pragma unroll
    for (int key = 0; key < BLOCK_KV; ++key) {
      const float P = __expf(S[key] - shift);
      row_sum += P;
#pragma unroll
      for (int c = 0; c < QUADS; ++c) {
        const float4 v = *(const float4 *)&V_smem[key][(c * LANES_PER_ROW + lane) * 4];
        O_reg[c][0] = fmaf(P, v.x, O_reg[c][0]);
        O_reg[c][1] = fmaf(P, v.y, O_reg[c][1]);
        O_reg[c][2] = fmaf(P, v.z, O_reg[c][2]);
        O_reg[c][3] = fmaf(P, v.w, O_reg[c][3]);
      }
    }
  }

  if (row >= p.seq_q) return;
  const float normalise = row_sum == 0.0f ? 0.0f : 1.0f / row_sum; // no weight at all: 0; NaN stays NaN
#pragma unroll
  for (int c = 0; c < QUADS; ++c)
#pragma unroll
    for (int i = 0; i < 4; ++i) O[(c * LANES_PER_ROW + lane) * 4 + i] = from_float<T>(O_reg[c][i] * normalise);
}

static dim3 grid_of(const sdpa_problem &p) { return dim3((p.seq_q + BLOCK_Q - 1) / BLOCK_Q, p.heads_q, p.batch); }

const char *sdpa_supports(const sdpa_problem *p) {
  if (const char *reason = sizes_reason(*p)) return reason;
  return instance_reason(*p);
}

size_t sdpa_workspace_bytes(const sdpa_problem *) { return 0; }

int sdpa_launch(const sdpa_problem *problem, void *stream) {
  return with_instance(*problem, [&](auto instance) -> int {
    using I = decltype(instance);
    sdpa_scalar<typename I::T, I::DIM><<<grid_of(*problem), NUM_THREADS, 0, (cudaStream_t)stream>>>(*problem);
    return cudaGetLastError();
  });
}

int sdpa_describe(const sdpa_problem *problem, sdpa_launch_info *info, int capacity) {
  if (sdpa_supports(problem) || capacity < 1) return 0;
  const dim3 grid = grid_of(*problem);
  const bool fp16 = problem->dtype == SDPA_FP16, dim64 = problem->head_dim == 64;
  *info = {{(int)grid.x, (int)grid.y, (int)grid.z}, {NUM_THREADS, 1, 1}, 0,
           fp16 ? (dim64 ? "sdpa_scalarI6__halfLi64E" : "sdpa_scalarI6__halfLi128E")
                : (dim64 ? "sdpa_scalarI13__nv_bfloat16Li64E" : "sdpa_scalarI13__nv_bfloat16Li128E")};
  return 1;
}
