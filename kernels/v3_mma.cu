/* evo-sdpa
title: mma.sync, S and P in registers
parent: v2_wmma
idea: FlashAttention-2's loop on mma.sync; scores, weights and output stay in registers, ldmatrix from swizzled shared memory
expects: 5-6.5 us on the goal problem; each warp waits for its own chain of products, maximum and exponentials
levers: {BLOCK_Q: [32, 64, 128], BLOCK_KV: [32, 64, 128], STAGES: [1, 2, 3]}
*/

// The streaming softmax of v2 on mma.sync, whose fragments have a documented layout (sdpa_mma.cuh): a row of S lies in the four
// lanes of a quad, so its maximum and sum are two shuffles each, and two fragments of P, packed to 16 bits, are an operand of
// P V as they are. A warp owns 16 query rows from the first key to the last and never asks another warp for anything but its
// share of the copies. K and V are separate groups of one cp.async ring: S starts when K is there, while V is still on its way.
//
// Predicted on an H200: 5-6.5 us. The goal problem gives 64 CTAs of 4 warps, one warp for each quarter of an SM, so what counts is
// the chain of one warp. Per tile of 64 keys: 32 mma for S at 6.7 clk (2048 FMA at 60 % of 512 a clk) = 213 clk; the first
// ldmatrix and the shuffles of the maximum 150; 32 exponentials a lane at 8 clk = 256; rescaling O 50; 32 mma for P V 213; two
// barriers 60: 950 clk, for 8 tiles 7,600 clk = 3.8 us at 1.98 GHz. With the launch (1.1), the first tile's way from L2 (0.4) and
// the epilogue (0.2): 5.5 us. Bytes do not count: 136 KB an SM are 2,900 clk even at 47 B/clk. Nor should BLOCK_Q: 32 gives 128
// CTAs of 2 warps, so the same chain; it halves the pressure on shared memory (4 warps read 512 KB of K and V in 4,100 of the
// 7,600 clk) and doubles the reads from L2. 64 is the default because longer problems need the reuse.
// Measured there: 8.59 us warm, 9.27 us stream, above the range. The tensor pipe is busy 8 % of the time and the special-function unit
// 15 %: the warp has an instruction every 3.6 cycles, and of those 1.4 are the fixed latency of the one before, 0.5 shared memory. So the
// units' rates, which the prediction adds up, are not the chain; the latencies between them are.
//
// New against v2: no S, P and O in shared memory, no padding (the swizzle replaces it), exp2 with log2(e) folded into the scale,
// masks only in tiles that need them. What is left on the table: one warp for each scheduler cannot overlap its exponentials with
// its products. v4 splits the keys among more warps; wgmma would read K and V from shared memory once for 64 rows.

#include "sdpa_async.cuh"
#include "sdpa_checks.h"
#include "sdpa_dtype.cuh"
#include "sdpa_launch.cuh"
#include "sdpa_mma.cuh"

#ifndef BLOCK_Q
#define BLOCK_Q 64 // query rows of a CTA, 16 for each warp: 64 CTAs on the goal problem
#endif
#ifndef BLOCK_KV
#define BLOCK_KV 64 // keys in a tile
#endif
#ifndef STAGES
#define STAGES 2 // tiles of K and V in shared memory; with 1, K arrives during P V and V during Q K^T
#endif
static_assert(BLOCK_Q == 32 || BLOCK_Q == 64 || BLOCK_Q == 128, "BLOCK_Q must be 32, 64 or 128");
static_assert(BLOCK_KV == 32 || BLOCK_KV == 64 || BLOCK_KV == 128, "BLOCK_KV must be 32, 64 or 128");
static_assert(STAGES >= 1 && STAGES <= 3, "STAGES must be 1, 2 or 3");

constexpr int WARP_ROWS = 16; // the M of m16n8k16
constexpr int NUM_WARPS = BLOCK_Q / WARP_ROWS;
constexpr int NUM_THREADS = NUM_WARPS * 32;

// Dynamic shared memory of a CTA; every array is swizzled (sdpa_mma.cuh). Q's rows take O's at the end.
template <typename T, int DIM> struct Shared {
  alignas(128) T Q[BLOCK_Q * DIM];
  alignas(128) T K[STAGES][BLOCK_KV * DIM];
  alignas(128) T V[STAGES][BLOCK_KV * DIM];
};

// Grid (q tiles, heads_q, batch). At least 1 CTA per SM is all that is asked of ptxas, as in v2.
template <typename T, int DIM>
__global__ void __launch_bounds__(NUM_THREADS, 1) sdpa_mma(const __grid_constant__ sdpa_problem p) {
  extern __shared__ __align__(128) unsigned char shared_memory[];
  Shared<T, DIM> &smem = *reinterpret_cast<Shared<T, DIM> *>(shared_memory);

  const int batch = blockIdx.z, head = blockIdx.y;
  const int kv_head = p.heads_q == p.heads_kv ? head : head / (p.heads_q / p.heads_kv); // two divisions before the first address
  const int q0 = blockIdx.x * BLOCK_Q;
  const T *Q = (const T *)p.q + batch * p.q_stride[0] + head * p.q_stride[1];    // [seq_q, DIM]
  const T *K = (const T *)p.k + batch * p.k_stride[0] + kv_head * p.k_stride[1]; // [seq_kv, DIM]
  const T *V = (const T *)p.v + batch * p.v_stride[0] + kv_head * p.v_stride[1]; // [seq_kv, DIM]
  T *O = (T *)p.o + batch * p.o_stride[0] + head * p.o_stride[1];                // [seq_q, DIM]

  // Top-left causal: row i sees keys 0 .. i. Tiles that no row of the CTA sees are not even loaded.
  const int kv_end = p.causal ? min(min(q0 + BLOCK_Q, p.seq_q), p.seq_kv) : p.seq_kv;
  const int num_tiles = (kv_end + BLOCK_KV - 1) / BLOCK_KV;

  // A group of copies for each tile of K and each of V, in the order K0 V0 K1 V1 ..., also for those behind the end. K of tile
  // t + STAGES starts when all warps are done with K of tile t, and V likewise, so when a tile is needed, exactly the
  // 2 * STAGES - 2 groups behind it may still be under way.
  auto copy_k_async = [&](int tile) {
    if (tile < num_tiles)
      copy_rows_async<BLOCK_KV, NUM_THREADS, DIM>(smem.K[tile % STAGES], K, p.k_stride[2], tile * BLOCK_KV, p.seq_kv, threadIdx.x);
    cp_async_commit();
  };
  auto copy_v_async = [&](int tile) {
    if (tile < num_tiles)
      copy_rows_async<BLOCK_KV, NUM_THREADS, DIM>(smem.V[tile % STAGES], V, p.v_stride[2], tile * BLOCK_KV, p.seq_kv, threadIdx.x);
    cp_async_commit();
  };
  copy_rows_async<BLOCK_Q, NUM_THREADS, DIM>(smem.Q, Q, p.q_stride[2], q0, p.seq_q, threadIdx.x); // joins K0's group
#pragma unroll
  for (int tile = 0; tile < STAGES; ++tile) {
    copy_k_async(tile);
    if (tile < STAGES - 1) copy_v_async(tile); // the last one follows in the loop, whose order is that of all later tiles
  }

  // The warp's 16 rows, and the two of them that this lane sees a quarter of: group and group + 8.
  const int warp_row = warp_index() * WARP_ROWS;
  const int lane = threadIdx.x % 32, group = lane / 4, place = lane % 4;
  const int first_row = q0 + warp_row;
  // Keys that some row of the warp sees (none when all its rows are behind the end), that all of them see, that each row sees.
  const int warp_keys = first_row >= p.seq_q ? 0 : p.causal ? min(first_row + WARP_ROWS, kv_end) : kv_end;
  const int unmasked_keys = p.causal ? min(first_row + 1, p.seq_kv) : p.seq_kv;
  const int keys_seen[2] = {p.causal ? min(first_row + group + 1, p.seq_kv) : p.seq_kv,
                            p.causal ? min(first_row + group + 9, p.seq_kv) : p.seq_kv};
  const float scale_log2 = p.scale * LOG2_E;

  uint32_t Q_rmem[DIM / 16][4];
  float O_rmem[DIM / 8][4] = {};
  float row_max[2] = {-INFINITY, -INFINITY}; // of scores times scale_log2; the same in the row's four lanes
  float row_sum[2] = {};                     // this lane's columns only; the quad's sums meet after the last tile

  for (int tile = 0; tile < num_tiles; ++tile) {
    const T *K_smem = smem.K[tile % STAGES], *V_smem = smem.V[tile % STAGES];
    const int kv0 = tile * BLOCK_KV;
    const bool active = kv0 < warp_keys; // otherwise above the diagonal for all 16 rows of this warp
    uint32_t P_rmem[BLOCK_KV / 16][4];

    cp_async_wait<2 * STAGES - 2>(); // this thread's part of K (and of Q) has arrived,
    __syncthreads();                 // everyone's has, and everyone is done with the V whose stage is refilled now
    copy_v_async(tile + STAGES - 1);

    if (tile == 0) {
#pragma unroll
      for (int k = 0; k < DIM / 16; ++k)
        ldmatrix_x4(Q_rmem[k], smem.Q + swizzled<DIM>(warp_row + lane % 16, 2 * k + lane / 16));
    }
    if (active) {
      // S = Q K^T.
      float S_rmem[BLOCK_KV / 8][4] = {};
#pragma unroll
      for (int k = 0; k < DIM / 16; ++k)
#pragma unroll
        for (int n = 0; n < BLOCK_KV / 16; ++n) {
          uint32_t K_rmem[4];
          ldmatrix_x4(K_rmem, K_smem + swizzled<DIM>(n * 16 + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
          mma_m16n8k16<T>(S_rmem[2 * n], Q_rmem[k], K_rmem[0], K_rmem[1]);
          mma_m16n8k16<T>(S_rmem[2 * n + 1], Q_rmem[k], K_rmem[2], K_rmem[3]);
        }

      // The exponent is s c - m with m the row's largest s c, rounded like all others, so no weight exceeds 1 whatever the size
      // of the scores or the sign of the scale. fma(s, c, -m) would save a slot that is hidden behind the exponentials anyway
      // (8 clk each), but its product is not rounded as m was: from |s c| = 2^28 on a weight could be beyond fp16.
#pragma unroll
      for (int n = 0; n < BLOCK_KV / 8; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) S_rmem[n][i] *= scale_log2;
      if (kv0 + BLOCK_KV > unmasked_keys) { // the diagonal or the end of the keys runs through this tile
#pragma unroll
        for (int n = 0; n < BLOCK_KV / 8; ++n)
#pragma unroll
          for (int i = 0; i < 4; ++i)
            if (kv0 + n * 8 + place * 2 + i % 2 >= keys_seen[i / 2]) S_rmem[n][i] = -INFINITY;
      }

      float shift[2], rescale[2];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float new_max = row_max[r];
#pragma unroll
        for (int n = 0; n < BLOCK_KV / 8; ++n) new_max = fmaxf(new_max, fmaxf(S_rmem[n][2 * r], S_rmem[n][2 * r + 1]));
        new_max = quad_max(new_max); // passes over NaN, which reaches the row through its exponential instead
        // While a row has seen nothing there is no max to shift by, and (-inf) - (-inf) would be NaN.
        shift[r] = new_max == -INFINITY ? 0.0f : new_max;
        rescale[r] = exp2_approx(row_max[r] - shift[r]); // 0 on the first tile, 1 when the max stands
        row_max[r] = new_max;
        row_sum[r] *= rescale[r];
      }
#pragma unroll
      for (int n = 0; n < BLOCK_KV / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          S_rmem[n][i] = exp2_approx(S_rmem[n][i] - shift[i / 2]);
          row_sum[i / 2] += S_rmem[n][i];
        }
        P_rmem[n / 2][n % 2 * 2] = pack2<T>(S_rmem[n][0], S_rmem[n][1]);
        P_rmem[n / 2][n % 2 * 2 + 1] = pack2<T>(S_rmem[n][2], S_rmem[n][3]);
      }
#pragma unroll
      for (int n = 0; n < DIM / 8; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) O_rmem[n][i] *= rescale[i / 2];
    }

    cp_async_wait<2 * STAGES - 2>(); // the same for V;
    __syncthreads();                 // everyone is done with this tile's K
    copy_k_async(tile + STAGES);

    if (active) {
      // O += P V.
#pragma unroll
      for (int k = 0; k < BLOCK_KV / 16; ++k)
#pragma unroll
        for (int n = 0; n < DIM / 16; ++n) {
          uint32_t V_rmem[4];
          ldmatrix_x4_trans(V_rmem, V_smem + swizzled<DIM>(k * 16 + lane % 16, 2 * n + lane / 16));
          mma_m16n8k16<T>(O_rmem[2 * n], P_rmem[k], V_rmem[0], V_rmem[1]);
          mma_m16n8k16<T>(O_rmem[2 * n + 1], P_rmem[k], V_rmem[2], V_rmem[3]);
        }
    }
  }

  // A lane holds 4 bytes here and there of a row: stored from registers, O would take DIM / 4 stores of 4 bytes. Through the
  // warp's rows of Q, which nobody else reads, it takes a quarter of that in stores of 16 bytes, for a few cycles in shared memory
  // (without conflicts, by the same swizzle).
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float sum = quad_sum(row_sum[r]);
    const float normalise = sum == 0.0f ? 0.0f : reciprocal(sum); // no weight at all: 0; NaN stays NaN
#pragma unroll
    for (int n = 0; n < DIM / 8; ++n)
      *(uint32_t *)(smem.Q + swizzled<DIM>(warp_row + group + 8 * r, n) + place * 2) =
          pack2<T>(O_rmem[n][2 * r] * normalise, O_rmem[n][2 * r + 1] * normalise);
  }
  __syncwarp();
  constexpr int CHUNKS = DIM / 8;
#pragma unroll
  for (int i = 0; i < WARP_ROWS * CHUNKS / 32; ++i) {
    const int r = warp_row + (i * 32 + lane) / CHUNKS, chunk = lane % CHUNKS;
    if (q0 + r < p.seq_q)
      *(uint4 *)(O + (q0 + r) * p.o_stride[2] + chunk * 8) = *(const uint4 *)(smem.Q + swizzled<DIM>(r, chunk));
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
    const auto kernel = sdpa_mma<typename I::T, I::DIM>;
    return launch_kernel(kernel, grid_of(*problem), NUM_THREADS, bytes, stream, false, *problem);
  });
}

int sdpa_describe(const sdpa_problem *problem, sdpa_launch_info *info, int capacity) {
  if (sizes_reason(*problem) || instance_reason(*problem) || capacity < 1) return 0;
  const dim3 grid = grid_of(*problem);
  const bool fp16 = problem->dtype == SDPA_FP16, dim64 = problem->head_dim == 64;
  *info = {{(int)grid.x, (int)grid.y, (int)grid.z}, {NUM_THREADS, 1, 1}, shared_bytes(*problem),
           fp16 ? (dim64 ? "sdpa_mmaI6__halfLi64E" : "sdpa_mmaI6__halfLi128E")
                : (dim64 ? "sdpa_mmaI13__nv_bfloat16Li64E" : "sdpa_mmaI13__nv_bfloat16Li128E")};
  return 1;
}
