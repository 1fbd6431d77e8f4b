/* evo-sdpa
title: one-shot wgmma, 64 rows a CTA
parent: v5_wgmma
idea: at most 512 keys fit into shared memory whole, so no ring and no running maximum; two warpgroups share the keys
expects: 4.6-5.0 us on the goal problem
levers: {PDL: [0, 1]}
*/

// For short sequences (at most 512 keys, head_dim 64) everything that a CTA of 64 query rows needs is 136 KB: all of it is asked for
// in the first instructions, and nothing is ever waited for twice. Four chunks of 128 keys; warpgroup 0 has chunks 0 and 2, warpgroup
// 1 has 1 and 3. Each computes all its scores (S, 64 x 256, in registers), takes the row's maximum over them once, then goes through
// them 16 keys at a time: exponentials, pack, and the product with V follows in the background while the next 16 are under way. At
// the end the two halves of the softmax meet: maxima and sums are exchanged, and each warpgroup finishes 32 of the 64 columns.
//
// Predicted on an H200 at 1.98 GHz, 64 CTAs: launch 1.1 us and 0.35 us of prologue and drain outside the kernel's own clock; first
// operands after 1100 cycles, scores 2 x 4 products of 64.5 cycles, both warpgroups on the same tensor cores:
// 1000; maximum 500; 64 x 512 exponentials at 16 a cycle are 2048 cycles, 2500 with what cannot hide; combine and store 700:
// 5800 cycles or 2.9 us, together 4.4 us; what such phases usually lose to each other makes it 4.6-5.0 us warm.
// Measured there: 4.57 us warm, 5.30 us stream, just below the range; 1.36 times as fast as v5.
//
// New against v5: no ring, no rescaling, keys split between warpgroups. What is left on the table: 64 CTAs leave half the SMs
// idle, and the exponential unit of the other half is the bottleneck.

#include "sdpa_checks.h"
#include "sdpa_launch.cuh"
#include "sdpa_mma.cuh"
#include "sdpa_tma.cuh"
#include "sdpa_wgmma.cuh"

#ifndef PDL
#define PDL 0 // 1: programmatic dependent launch
#endif
static_assert(PDL == 0 || PDL == 1, "PDL must be 0 or 1");

constexpr int DIM = 64, BLOCK_Q = 64, CHUNK = 128, NUM_CHUNKS = 4, MAX_KEYS = CHUNK * NUM_CHUNKS;
constexpr int GROUP_THREADS = 128, NUM_GROUPS = 2, NUM_THREADS = GROUP_THREADS * NUM_GROUPS;
constexpr int GROUP_CHUNKS = NUM_CHUNKS / NUM_GROUPS; // of a warpgroup

template <typename T> struct Shared {
  alignas(1024) T Q[BLOCK_Q][DIM];            // this and the next two: rows of 128 bytes, swizzled by the copy engine
  alignas(1024) T K[NUM_CHUNKS][CHUNK][DIM];
  alignas(1024) T V[NUM_CHUNKS][CHUNK][DIM];
  float4 O[NUM_GROUPS][4][GROUP_THREADS];     // what each warpgroup computed of the other's columns
  float row_max[NUM_GROUPS][BLOCK_Q], row_sum[NUM_GROUPS][BLOCK_Q];
  uint64_t Q_full, K_full[NUM_CHUNKS], V_full[NUM_CHUNKS];
};

// Grid (q tiles, heads_q, batch). MASKED: causal, or other than 512 keys.
template <typename T, bool MASKED>
__global__ void __launch_bounds__(NUM_THREADS, 1)
    sdpa_oneshot(const __grid_constant__ tiled_problem p, const __grid_constant__ CUtensorMap Q_map,
                 const __grid_constant__ CUtensorMap K_map, const __grid_constant__ CUtensorMap V_map) {
#if SDPA_HOPPER
  extern __shared__ __align__(1024) unsigned char shared_memory[];
  Shared<T> &smem = *reinterpret_cast<Shared<T> *>(shared_memory);

  const int batch = blockIdx.z, head = blockIdx.y, q0 = blockIdx.x * BLOCK_Q;
  const int warp = warp_index(), lane = threadIdx.x % 32;
  const int group = warp / 4;
  const int kv_end = MASKED ? p.causal ? min(min(q0 + BLOCK_Q, p.seq_q), p.seq_kv) : p.seq_kv : MAX_KEYS;
  const int num_chunks = MASKED ? (kv_end + CHUNK - 1) / CHUNK : NUM_CHUNKS;

  // One thread makes the barriers and fetches all, in the order in which it is needed.
  const bool loader = warp == 0 && elect_one();
  if (loader) {
    mbarrier_init(&smem.Q_full, 1);
#pragma unroll
    for (int chunk = 0; chunk < NUM_CHUNKS; ++chunk) {
      mbarrier_init(&smem.K_full[chunk], 1);
      mbarrier_init(&smem.V_full[chunk], 1);
    }
    mbarrier_init_fence();
  }
  if (PDL) {
    allow_next_launch();
    wait_for_previous_launch();
  }
  if (loader) {
    const int kv_head = kv_head_of(p, head);
    mbarrier_expect(&smem.Q_full, sizeof smem.Q);
    tma_load(smem.Q, &Q_map, &smem.Q_full, 0, q0, head, batch);
#pragma unroll
    for (int chunk = 0; chunk < NUM_CHUNKS; ++chunk)
      if (chunk < num_chunks) {
        mbarrier_expect(&smem.K_full[chunk], sizeof smem.K[0]);
        tma_load(smem.K[chunk], &K_map, &smem.K_full[chunk], 0, chunk * CHUNK, kv_head, batch);
      }
#pragma unroll
    for (int chunk = 0; chunk < NUM_CHUNKS; ++chunk)
      if (chunk < num_chunks) {
        mbarrier_expect(&smem.V_full[chunk], sizeof smem.V[0]);
        tma_load(smem.V[chunk], &V_map, &smem.V_full[chunk], 0, chunk * CHUNK, kv_head, batch);
      }
  }
  __syncthreads(); // nobody waits at a barrier before it is made

  // S = Q K^T, all keys of this warpgroup.
  float S[GROUP_CHUNKS][CHUNK / 2];
  const uint64_t Q_matrix = matrix_descriptor(smem.Q);
  mbarrier_wait(&smem.Q_full, 0);
#pragma unroll
  for (int i = 0; i < GROUP_CHUNKS; ++i) {
    const int chunk = i * NUM_GROUPS + group;
    if (!MASKED || chunk < num_chunks) {
      const uint64_t K_matrix = matrix_descriptor(smem.K[chunk]);
      mbarrier_wait(&smem.K_full[chunk], 0);
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < DIM / 16; ++k)
        wgmma_m64n128k16_ss<T>(S[i], Q_matrix + k * STEP_ALONG_ROW, K_matrix + k * STEP_ALONG_ROW, k > 0);
      wgmma_commit();
      if (MASKED) { // ptxas would serialise products that are still under way where two branches meet
        wgmma_wait<0>();
        pin(S[i]);
      }
    }
  }

  // This thread's two rows of the tile, and where its column pairs begin.
  const int row = warp % 4 * 16 + lane / 4, column = lane % 4 * 2;
  float row_max[2] = {-INFINITY, -INFINITY}, row_sum[2] = {0.0f, 0.0f};
#pragma unroll
  for (int i = 0; i < GROUP_CHUNKS; ++i) {
    const int chunk = i * NUM_GROUPS + group;
    if (!MASKED) {
      i == 0 ? wgmma_wait<GROUP_CHUNKS - 1>() : wgmma_wait<0>();
      pin(S[i]);
    }
    if (MASKED && chunk * CHUNK + CHUNK > (p.causal ? min(q0 + 1, p.seq_kv) : p.seq_kv)) {
#pragma unroll
      for (int e = 0; e < CHUNK / 2; ++e) {
        const int key = chunk * CHUNK + e / 4 * 8 + column + e % 2;
        const int seen = p.causal ? min(q0 + row + e / 2 % 2 * 8 + 1, p.seq_kv) : p.seq_kv;
        if (key >= seen) S[i][e] = -INFINITY; // also where no product was made: rows that are stored see nothing of that chunk
      }
    }
#pragma unroll
    for (int e = 0; e < CHUNK / 2; ++e) row_max[e / 2 % 2] = fmaxf(row_max[e / 2 % 2], S[i][e]); // passes over NaN: the exponential does not
  }
  // The maximum is scaled, and rounded, once, so that all that is shifted by it is shifted alike. A row that has seen nothing has none, and
  // (-inf) - (-inf) would be NaN.
  float shift[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    row_max[r] = quad_max(row_max[r]) * p.scale;
    shift[r] = row_max[r] == -INFINITY ? 0.0f : row_max[r];
    if (lane % 4 == 0) smem.row_max[group][row + 8 * r] = row_max[r];
  }

  // O = P V, 16 keys at a time: their accumulators, packed, are the A operand. A product runs while the next weights are computed.
  float O[DIM / 2] = {};
#pragma unroll
  for (int i = 0; i < GROUP_CHUNKS; ++i) {
    const int chunk = i * NUM_GROUPS + group;
    if (!MASKED || chunk < num_chunks) {
      const uint64_t V_matrix = matrix_descriptor(smem.V[chunk]);
#pragma unroll
      for (int k = 0; k < CHUNK / 16; ++k) {
        uint32_t P[4];
#pragma unroll
        for (int e = 0; e < 4; ++e) { // pairs: this thread's two rows, then the same 8 keys further on
          const float low = exp2_approx(fmaf(S[i][8 * k + 2 * e], p.scale, -shift[e % 2]));
          const float high = exp2_approx(fmaf(S[i][8 * k + 2 * e + 1], p.scale, -shift[e % 2]));
          row_sum[e % 2] += low + high;
          P[e] = pack2<T>(low, high);
        }
        if (k == 0) mbarrier_wait(&smem.V_full[chunk], 0);
        wgmma_fence();
        wgmma_m64n64k16_rs_down<T>(O, P, V_matrix + k * STEP_DOWN_ROWS, true);
        wgmma_commit();
      }
      if (MASKED) {
        wgmma_wait<0>();
        pin(O);
      }
    }
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    row_sum[r] = quad_sum(row_sum[r]);
    if (lane % 4 == 0) smem.row_sum[group][row + 8 * r] = row_sum[r];
  }
  wgmma_wait<0>();
  pin(O);

  // Warpgroup g finishes columns 32 g .. 32 g + 31 and hands over the others.
  const int thread = threadIdx.x % GROUP_THREADS;
  float kept[DIM / 4];
#pragma unroll
  for (int i = 0; i < DIM / 4; ++i) kept[i] = group == 0 ? O[i] : O[DIM / 4 + i];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float *low = O + 4 * i, *high = O + DIM / 4 + 4 * i;
    smem.O[group][i][thread] = group == 0 ? make_float4(high[0], high[1], high[2], high[3]) : make_float4(low[0], low[1], low[2], low[3]);
  }
  __syncthreads();
  float own[2], theirs[2]; // what the two partial rows are multiplied with
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float other_max = smem.row_max[1 - group][row + 8 * r], other_sum = smem.row_sum[1 - group][row + 8 * r];
    const float both_max = fmaxf(row_max[r], other_max); // finite: every row sees a key of one half
    own[r] = exp2_approx(row_max[r] - both_max);
    theirs[r] = exp2_approx(other_max - both_max);
    const float sum = row_sum[r] * own[r] + other_sum * theirs[r];
    const float normalise = reciprocal(sum);
    own[r] *= normalise, theirs[r] *= normalise;
  }
  uint32_t out[2][4]; // pairs of columns 8 i + column of 4 fragments, rows `row` and `row + 8`
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float4 partial = smem.O[1 - group][i][thread];
    out[0][i] = pack2<T>(kept[4 * i] * own[0] + partial.x * theirs[0], kept[4 * i + 1] * own[0] + partial.y * theirs[0]);
    out[1][i] = pack2<T>(kept[4 * i + 2] * own[1] + partial.z * theirs[1], kept[4 * i + 3] * own[1] + partial.w * theirs[1]);
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    quad_transpose(out[r]);
    const int q = q0 + row + 8 * r;
    T *O_row = (T *)p.o + batch * p.o_stride[0] + head * p.o_stride[1] + q * p.o_stride[2];
    if (q < p.seq_q) *(uint4 *)(O_row + group * (DIM / 2) + lane % 4 * 8) = make_uint4(out[r][0], out[r][1], out[r][2], out[r][3]);
  }
#endif
}

static dim3 grid_of(const sdpa_problem &p) { return dim3((p.seq_q + BLOCK_Q - 1) / BLOCK_Q, p.heads_q, p.batch); }

static bool masked(const sdpa_problem &p) { return p.causal || p.seq_kv != MAX_KEYS; }

template <typename F> static auto with_kernel(const sdpa_problem &p, F f) {
  if (p.dtype == SDPA_FP16) return masked(p) ? f(sdpa_oneshot<__half, true>) : f(sdpa_oneshot<__half, false>);
  return masked(p) ? f(sdpa_oneshot<__nv_bfloat16, true>) : f(sdpa_oneshot<__nv_bfloat16, false>);
}

constexpr int SHARED_BYTES = sizeof(Shared<__half>); // and of bf16

static const char *oneshot_reason(const sdpa_problem &p) {
  if (p.head_dim != DIM) return "head_dim must be 64: the keys of a head must fit into shared memory whole";
  if (p.seq_kv > MAX_KEYS) return "seq_kv must be at most 512: the keys of a head must fit into shared memory whole";
  if (!(p.scale > 0.0f)) return "scale must be positive: the maximum of a row is taken before scaling";
  return nullptr;
}

const char *sdpa_supports(const sdpa_problem *p) {
  if (const char *reason = sizes_reason(*p)) return reason;
  if (const char *reason = instance_reason(*p)) return reason;
  if (const char *reason = oneshot_reason(*p)) return reason;
  if (const char *reason = alignment_reason(*p)) return reason;
  if (const char *reason = tensor_map_reason(*p)) return reason;
  return hopper_reason();
}

size_t sdpa_workspace_bytes(const sdpa_problem *) { return 0; }

int sdpa_launch(const sdpa_problem *problem, void *stream) {
  const sdpa_problem &p = *problem;
  CUtensorMap Q_map, K_map, V_map;
  int error = make_tensor_map(&Q_map, p.q, p.batch, p.heads_q, p.seq_q, DIM, p.q_stride, p.dtype, BLOCK_Q);
  if (!error) error = make_tensor_map(&K_map, p.k, p.batch, p.heads_kv, p.seq_kv, DIM, p.k_stride, p.dtype, CHUNK);
  if (!error) error = make_tensor_map(&V_map, p.v, p.batch, p.heads_kv, p.seq_kv, DIM, p.v_stride, p.dtype, CHUNK);
  if (error) return error;
  return with_kernel(p, [&](auto kernel) {
    return launch_kernel(kernel, grid_of(p), NUM_THREADS, SHARED_BYTES, stream, PDL, tiled(p), Q_map, K_map, V_map);
  });
}

int sdpa_describe(const sdpa_problem *problem, sdpa_launch_info *info, int capacity) {
  const sdpa_problem &p = *problem;
  if (sizes_reason(p) || instance_reason(p) || oneshot_reason(p) || capacity < 1) return 0;
  const dim3 grid = grid_of(p);
  const bool fp16 = p.dtype == SDPA_FP16;
  *info = {{(int)grid.x, (int)grid.y, (int)grid.z}, {NUM_THREADS, 1, 1}, SHARED_BYTES,
           fp16 ? (masked(p) ? "sdpa_oneshotI6__halfLb1E" : "sdpa_oneshotI6__halfLb0E")
                : (masked(p) ? "sdpa_oneshotI13__nv_bfloat16Lb1E" : "sdpa_oneshotI13__nv_bfloat16Lb0E")};
  return 1;
}
