/* evo-sdpa
title: one-shot wgmma, 32 rows a CTA
parent: v6_oneshot
idea: 128 CTAs instead of 64; wgmma's 64 rows are the same 32 queries twice, each time against other keys
expects: 3.9-4.1 us on the goal problem
levers: {PDL: [0, 1]}
*/

// v6 leaves half the SMs idle. With 32 query rows a CTA the goal problem makes 128 CTAs, but a warpgroup product has 64 rows. So
// they are used twice: rows 0 to 31 are the queries against key set a, rows 32 to 63 the same queries against key set b. One product
// has one B operand for all its rows; a and b therefore take turns, and while it is a's turn the lower rows' A operand is zero:
//
//   [ S_a ]   [ Q ]            [ 0 ]
//   [     ] = [   ]  K_a^T  +  [   ]  K_b^T        and likewise O_a, O_b from P_a V_a and P_b V_b.
//   [ S_b ]   [ 0 ]            [ Q ]
//
// That doubles the work of the tensor cores, which have the room, and not that of the exponential unit, which has not. A operands
// come from registers (a warp's 16 rows are all of one half, so it is either the operand or zeros). Two warpgroups, two sets each:
// four sets of 128 keys, every warp with 16 rows of one set, its own maximum and sum. At the end each warp finishes 16 columns of
// its rows from the four partial results.
//
// Predicted on an H200 at 1.98 GHz: launch 1.1 us, 0.35 us outside the kernel's clock; first K after 1100 cycles, second
// warpgroup's at 1700 (128 CTAs x 132 KB come out of L2 at about 47 B/clk/SM); scores 8 products of 64.5 cycles for each of two
// warpgroups, 1032, done at 2300; maximum 240; exponentials 1040 against products with V 1040, 1400 together; combine 400, store
// 150: 4700 cycles, 2.4 us; together 3.9-4.1 us warm.
// Measured there: 4.30 us warm, 5.02 us stream, above the range. The exponential unit is busy 18 % of the time and the tensor cores
// 20 %: they follow each other instead of overlapping. ptxas runs the exponentials ahead of the products, so that ten of the sixteen
// products of a warpgroup come after its last exponential. Holding them back with a branch between the steps made it slower, though:
// the branch costs more than the overlap gains.
//
// New against v6: half the rows, zero operands, four partial results instead of two. What is left on the table: every byte of K
// and V is read by 16 CTAs instead of 8. Not causal: a zero times
// a NaN is NaN, so a NaN in a key of one set reaches the scores of the other, which is right only where every row sees every key. An
// infinity in K or V likewise ends as NaN, also where its weight is 0.

#include "sdpa_checks.h"
#include "sdpa_launch.cuh"
#include "sdpa_mma.cuh"
#include "sdpa_tma.cuh"
#include "sdpa_wgmma.cuh"

#ifndef PDL
#define PDL 0 // 1: programmatic dependent launch
#endif
static_assert(PDL == 0 || PDL == 1, "PDL must be 0 or 1");

constexpr int DIM = 64, BLOCK_Q = 32, SET = 128, NUM_SETS = 4, MAX_KEYS = SET * NUM_SETS;
constexpr int NUM_THREADS = 256;
constexpr int PART = DIM / NUM_SETS / 2; // accumulators of the columns that one warp finishes, 16 columns of two rows

template <typename T> struct Shared {
  alignas(1024) T Q[BLOCK_Q][DIM];        // this and the next two: rows of 128 bytes, swizzled by the copy engine
  alignas(1024) T K[NUM_SETS][SET][DIM];
  alignas(1024) T V[NUM_SETS][SET][DIM];
  float4 O[NUM_SETS][BLOCK_Q / 16][NUM_SETS][PART / 4][32]; // partial results: of a set, 16 rows, for the warp that finishes them
  float row_max[NUM_SETS][BLOCK_Q], row_sum[NUM_SETS][BLOCK_Q];
  uint64_t Q_full, K_full[NUM_SETS], V_full[NUM_SETS];
};

// Grid (q tiles, heads_q, batch). MASKED: fewer than 512 keys.
template <typename T, bool MASKED>
__global__ void __launch_bounds__(NUM_THREADS, 1)
    sdpa_rows32(const __grid_constant__ tiled_problem p, const __grid_constant__ CUtensorMap Q_map,
                const __grid_constant__ CUtensorMap K_map, const __grid_constant__ CUtensorMap V_map) {
#if SDPA_HOPPER
  extern __shared__ __align__(1024) unsigned char shared_memory[];
  Shared<T> &smem = *reinterpret_cast<Shared<T> *>(shared_memory);

  const int batch = blockIdx.z, head = blockIdx.y, q0 = blockIdx.x * BLOCK_Q;
  const int warp = warp_index(), lane = threadIdx.x % 32;
  const int group = warp / 4, half = warp % 4 / 2, set = group * 2 + half, block = warp % 2; // of 16 rows

  // Warps 0 to 3 fetch a set of K each, behind barriers that they have made themselves; warp 4 fetches Q. Rows behind the end of a head
  // arrive as zeros.
  const bool loader = warp <= NUM_SETS && elect_one();
  if (loader) {
    mbarrier_init(warp < NUM_SETS ? &smem.K_full[warp] : &smem.Q_full, 1);
    if (warp < NUM_SETS) mbarrier_init(&smem.V_full[warp], 1);
    mbarrier_init_fence();
  }
  if (PDL) {
    allow_next_launch();
    wait_for_previous_launch();
  }
  if (loader && warp < NUM_SETS) {
    mbarrier_expect(&smem.K_full[warp], sizeof smem.K[0]);
    tma_load(smem.K[warp], &K_map, &smem.K_full[warp], 0, warp * SET, kv_head_of(p, head), batch);
  }
  if (loader && warp == NUM_SETS) {
    mbarrier_expect(&smem.Q_full, sizeof smem.Q);
    tma_load(smem.Q, &Q_map, &smem.Q_full, 0, q0, head, batch);
  }
  __syncthreads(); // nobody waits at a barrier before it is made

  // Q as A operand of the own half, zeros in the other's turn. Chosen at run time: ptxas serialises products of constant zeros.
  uint32_t Q[2][DIM / 16][4];
  mbarrier_wait(&smem.Q_full, 0);
#pragma unroll
  for (int k = 0; k < DIM / 16; ++k) {
    uint32_t fragment[4];
    ldmatrix_x4(fragment, &smem.Q[0][0] + swizzled<DIM>(block * 16 + lane % 16, k * 2 + lane / 16));
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      Q[0][k][i] = half == 0 ? fragment[i] : 0;
      Q[1][k][i] = half == 1 ? fragment[i] : 0;
    }
  }

  // S = Q K^T: 16 rows of this warp, the 128 keys of its set.
  float S[SET / 2];
#pragma unroll
  for (int turn = 0; turn < 2; ++turn) {
    const int s = group * 2 + turn;
    const uint64_t K_matrix = matrix_descriptor(smem.K[s]);
    mbarrier_wait(&smem.K_full[s], 0);
    if (warp % 4 == turn && elect_one()) { // V only now: K, which is needed first, should not share L2's bandwidth with it
      mbarrier_expect(&smem.V_full[s], sizeof smem.V[0]);
      tma_load(smem.V[s], &V_map, &smem.V_full[s], 0, s * SET, kv_head_of(p, head), batch);
    }
#pragma unroll
    for (int k = 0; k < DIM / 16; ++k) {
      wgmma_fence(); // operands from registers
      wgmma_m64n128k16_rs<T>(S, Q[turn][k], K_matrix + k * STEP_ALONG_ROW, turn + k > 0);
    }
  }
  wgmma_commit();
  wgmma_wait<0>();
  pin(S);

  // This thread's two rows of the tile, and where its column pairs begin.
  const int row = block * 16 + lane / 4, column = lane % 4 * 2;
  if (MASKED && (set + 1) * SET > p.seq_kv) {
#pragma unroll
    for (int e = 0; e < SET / 2; ++e)
      if (set * SET + e / 4 * 8 + column + e % 2 >= p.seq_kv) S[e] = -INFINITY;
  }
  float row_max[2] = {-INFINITY, -INFINITY}, row_sum[2] = {0.0f, 0.0f};
#pragma unroll
  for (int e = 0; e < SET / 2; ++e) row_max[e / 2 % 2] = fmaxf(row_max[e / 2 % 2], S[e]); // passes over NaN: the exponential does not
  // The maximum is scaled, and rounded, once, so that all that is shifted by it is shifted alike. A set behind the end has none, and
  // (-inf) - (-inf) would be NaN.
  float shift[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    row_max[r] = quad_max(row_max[r]) * p.scale;
    shift[r] = row_max[r] == -INFINITY ? 0.0f : row_max[r];
  }

  // O = P V, 16 keys of each set at a time; a product runs while the next weights are computed.
  float O[DIM / 2] = {};
  const uint64_t V_matrix[2] = {matrix_descriptor(smem.V[group * 2]), matrix_descriptor(smem.V[group * 2 + 1])};
#pragma unroll
  for (int k = 0; k < SET / 16; ++k) {
    uint32_t P[2][4];
#pragma unroll
    for (int e = 0; e < 4; ++e) { // pairs: this thread's two rows, then the same 8 keys further on
      const float low = exp2_approx(fmaf(S[8 * k + 2 * e], p.scale, -shift[e % 2]));
      const float high = exp2_approx(fmaf(S[8 * k + 2 * e + 1], p.scale, -shift[e % 2]));
      row_sum[e % 2] += low + high;
      const uint32_t pair = pack2<T>(low, high);
      P[0][e] = half == 0 ? pair : 0;
      P[1][e] = half == 1 ? pair : 0;
    }
    if (k == 0) {
      mbarrier_wait(&smem.V_full[group * 2], 0);
      mbarrier_wait(&smem.V_full[group * 2 + 1], 0);
    }
    wgmma_fence();
#pragma unroll
    for (int turn = 0; turn < 2; ++turn) wgmma_m64n64k16_rs_down<T>(O, P[turn], V_matrix[turn] + k * STEP_DOWN_ROWS, true);
    wgmma_commit();
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    row_sum[r] = quad_sum(row_sum[r]);
    if (lane % 4 == 0) {
      smem.row_max[set][row + 8 * r] = row_max[r];
      smem.row_sum[set][row + 8 * r] = row_sum[r];
    }
  }
  wgmma_wait<0>();
  pin(O);

  // The warp of set s finishes columns 16 s .. 16 s + 15 of its rows; it hands over all others and reads its own from three.
#pragma unroll
  for (int part = 0; part < NUM_SETS; ++part)
    if (part != set) {
#pragma unroll
      for (int i = 0; i < PART / 4; ++i) {
        const float *from = O + part * PART + 4 * i;
        smem.O[set][block][part][i][lane] = make_float4(from[0], from[1], from[2], from[3]);
      }
    }
  float sum[PART];
#pragma unroll
  for (int i = 0; i < PART; ++i) sum[i] = set == 0 ? O[i] : set == 1 ? O[PART + i] : set == 2 ? O[2 * PART + i] : O[3 * PART + i];
  __syncthreads();

  float all_max[2] = {-INFINITY, -INFINITY}, all_sum[2] = {0.0f, 0.0f}, own[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
#pragma unroll
    for (int s = 0; s < NUM_SETS; ++s) all_max[r] = fmaxf(all_max[r], smem.row_max[s][row + 8 * r]);
    own[r] = exp2_approx(row_max[r] - all_max[r]);
    all_sum[r] = row_sum[r] * own[r];
  }
#pragma unroll
  for (int i = 0; i < PART; ++i) sum[i] *= own[i / 2 % 2];
#pragma unroll
  for (int step = 1; step < NUM_SETS; ++step) {
    const int s = (set + step) % NUM_SETS;
    float factor[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      factor[r] = exp2_approx(smem.row_max[s][row + 8 * r] - all_max[r]);
      all_sum[r] += smem.row_sum[s][row + 8 * r] * factor[r];
    }
#pragma unroll
    for (int i = 0; i < PART / 4; ++i) {
      const float4 partial = smem.O[s][block][set][i][lane];
      sum[4 * i] += partial.x * factor[0], sum[4 * i + 1] += partial.y * factor[0];
      sum[4 * i + 2] += partial.z * factor[1], sum[4 * i + 3] += partial.w * factor[1];
    }
  }
  uint32_t out[4]; // pairs of columns: row `row` of both fragments, then row `row + 8`
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float normalise = reciprocal(all_sum[r]);
#pragma unroll
    for (int i = 0; i < 2; ++i) out[2 * r + i] = pack2<T>(sum[4 * i + 2 * r] * normalise, sum[4 * i + 2 * r + 1] * normalise);
  }
  quad_transpose(out); // 16 bytes a lane: lanes 0 and 1 of a quad row `row`, lanes 2 and 3 row `row + 8`
  const int q = q0 + row + lane % 4 / 2 * 8;
  T *O_row = (T *)p.o + batch * p.o_stride[0] + head * p.o_stride[1] + q * p.o_stride[2];
  if (q < p.seq_q) *(uint4 *)(O_row + set * 16 + lane % 2 * 8) = make_uint4(out[0], out[1], out[2], out[3]);
#endif
}

static dim3 grid_of(const sdpa_problem &p) { return dim3((p.seq_q + BLOCK_Q - 1) / BLOCK_Q, p.heads_q, p.batch); }

static bool masked(const sdpa_problem &p) { return p.seq_kv != MAX_KEYS; }

template <typename F> static auto with_kernel(const sdpa_problem &p, F f) {
  if (p.dtype == SDPA_FP16) return masked(p) ? f(sdpa_rows32<__half, true>) : f(sdpa_rows32<__half, false>);
  return masked(p) ? f(sdpa_rows32<__nv_bfloat16, true>) : f(sdpa_rows32<__nv_bfloat16, false>);
}

constexpr int SHARED_BYTES = sizeof(Shared<__half>); // and of bf16

static const char *oneshot_reason(const sdpa_problem &p) {
  if (p.head_dim != DIM) return "head_dim must be 64: the keys of a head must fit into shared memory whole";
  if (p.seq_kv > MAX_KEYS) return "seq_kv must be at most 512: the keys of a head must fit into shared memory whole";
  if (p.causal) return "causal is not supported: half of each product is zero times the other half's keys, so a NaN there would reach rows that do not see it";
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
  if (!error) error = make_tensor_map(&K_map, p.k, p.batch, p.heads_kv, p.seq_kv, DIM, p.k_stride, p.dtype, SET);
  if (!error) error = make_tensor_map(&V_map, p.v, p.batch, p.heads_kv, p.seq_kv, DIM, p.v_stride, p.dtype, SET);
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
           fp16 ? (masked(p) ? "sdpa_rows32I6__halfLb1E" : "sdpa_rows32I6__halfLb0E")
                : (masked(p) ? "sdpa_rows32I13__nv_bfloat16Lb1E" : "sdpa_rows32I13__nv_bfloat16Lb0E")};
  return 1;
}
