/* evo-sdpa
title: keys split among warps
parent: v3_mma
idea: 8 warps on 32 query rows, each with a quarter of the keys; all of K and V in flight at once, partial results meet at the end
expects: 3.5-4.5 us on the goal problem; the bytes that each SM reads from L2 and the instructions of 2 warps a scheduler
levers: {BLOCK_Q: [32, 64], WARP_ROWS: [16, 32], NUM_WARPS: [8, 16], PANEL: [256, 512]}
*/

// v3's chain of one warp, cut into pieces that run side by side. The warps of a CTA stand in BLOCK_Q / WARP_ROWS rows and
// KV_SPLIT key groups. A key group owns every KV_SPLIT-th piece of the keys, copies them itself, and has a maximum, a sum and an
// output of its own; only at the end do the groups meet, in shared memory, where each thread finalises 8 columns of a row.
// The keys come in panels of PANEL (half of it for head_dim 128). Of the first panel everything is asked for at once: Q, then the
// pieces of K, then those of V, each piece a cp.async group, so that S and the exponentials run while V is on its way. A warp
// takes a panel's scores as one: one maximum, no rescaling inside. The goal problem is one panel. Longer ones loop: K of the next
// panel is asked for when the group is done with this one's K, V likewise. No barrier of the whole CTA stands in that loop.
//
// Predicted on an H200: 3.5-4.5 us. 128 CTAs, each alone on its SM. In clk at 1.98 GHz: until the first bytes come 700; 132 KB of
// Q, K, V at 47 to 100 B/clk 2,900 to 1,400. Most of the rest hides behind the loads: mma, 32 x 512 x 64 x 2 at 60 % of 2,048
// a clk = 1,700, exponentials 32 x 512 / 16 = 1,000, shared memory (next paragraph) 3,100. After V's last piece: its products 250,
// the combination 700 with its barrier, the stores 400. At 47 B/clk that is 4,950 clk = 2.5 us, with the launch (1.1) 3.6 us. If L2
// is faster, two others take its place: shared memory, and instructions: a warp issues about 1,600 (counted in the SASS), two
// warps a scheduler 3,200; v2's single warps issued in 38 % of the cycles, two should in 65 %: 4,900 clk. So no less than 3.5 us;
// where these do not overlap as they should, and if straight-line code waits for its instructions, up to 4.5.
// Measured there: 5.20 us warm, 5.62 us stream, above the range, but 1.65 times as fast as v3. A second warp for each scheduler lets it
// issue in 39 % of the cycles instead of 25 %. Bytes are not the reason: a warp waits for global memory 2 % of the time, for the
// latency of the instruction before 29 %, for shared memory 17 %.
//
// WARP_ROWS: every warp row reads all of K and V by ldmatrix, every key group writes and reads a partial O of 32 x 64 FP32. At
// 128 B/clk, besides the 1,050 clk in which cp.async writes its 132 KB:
//     WARP_ROWS 16: 2 rows x 128 KB = 2,050 clk, 4 groups x 8 KB x 2 =   512 clk, all of it after the last product
//     WARP_ROWS 32: 1 row  x 128 KB = 1,020 clk, 8 groups x 8 KB x 2 = 1,024 clk, likewise
// The default is 16: it has less to do when everything waits, and the rest hides as long as L2 delivers less than 100 B/clk/SM. It
// also needs half the accumulators. 16 warps of 16 rows (NUM_WARPS 16) hide more latency, combine 8 groups and have 128 registers
// each: enough for head_dim 64, while head_dim 128 spills. 64 rows (BLOCK_Q 64) would read K and V from L2 half as often, but on
// 64 SMs with twice the products each, 3,400 clk: the goal problem does not want that, long ones do.
//
// New against v3: keys split among warps, two warps for each scheduler, no CTA-wide barrier but the first and the last, no ring.
// What is left on the table: each of 128 SMs reads all of a head's K and V, 17 MB in all; a cluster could share them by multicast.
// wgmma would read K and V from shared memory without ldmatrix.

#include "sdpa_async.cuh"
#include "sdpa_checks.h"
#include "sdpa_dtype.cuh"
#include "sdpa_launch.cuh"
#include "sdpa_mma.cuh"

#ifndef BLOCK_Q
#define BLOCK_Q 32 // query rows of a CTA: 128 CTAs on the goal problem
#endif
#ifndef WARP_ROWS
#define WARP_ROWS 16 // query rows of a warp
#endif
#ifndef NUM_WARPS
#define NUM_WARPS 8 // warps of a CTA
#endif
#ifndef PANEL
#define PANEL 512 // keys in shared memory at once for head_dim 64; half as many for head_dim 128
#endif
static_assert(BLOCK_Q == 32 || BLOCK_Q == 64, "BLOCK_Q must be 32 or 64");
static_assert(WARP_ROWS == 16 || WARP_ROWS == 32, "WARP_ROWS must be 16 or 32");
static_assert(NUM_WARPS == 8 || NUM_WARPS == 16, "NUM_WARPS must be 8 or 16");
static_assert(NUM_WARPS * WARP_ROWS <= 256, "NUM_WARPS 16 needs WARP_ROWS 16: 512 threads have 128 registers each, and shared "
                                            "memory no room for the partial outputs of more than 256 rows");
static_assert(PANEL == 256 || PANEL == 512, "PANEL must be 256 or 512");

constexpr int NUM_THREADS = NUM_WARPS * 32;
constexpr int ROW_TILES = WARP_ROWS / 16;          // m16n8k16 tiles that share a warp's fragments of K and V
constexpr int WARPS_IN_GROUP = BLOCK_Q / WARP_ROWS; // of a key group, one for each stretch of rows
constexpr int GROUP_THREADS = WARPS_IN_GROUP * 32;
constexpr int KV_SPLIT = NUM_WARPS / WARPS_IN_GROUP; // key groups
static_assert(KV_SPLIT >= 2, "the keys of one group are not split");

// What a key group holds of a panel: SLICE keys in PIECES pieces, a piece being what is waited for at once.
template <int DIM> struct Tile {
  static constexpr int PANEL_KEYS = DIM == 64 ? PANEL : PANEL / 2;
  static constexpr int SLICE = PANEL_KEYS / KV_SPLIT;
  static constexpr int PIECES = SLICE >= 128 ? 4 : SLICE >= 64 ? 2 : 1;
  static constexpr int PIECE = SLICE / PIECES;
  static_assert(PIECE % 16 == 0, "a piece is whole fragments: PANEL is too small for so many key groups");
};

// Dynamic shared memory of a CTA. K, V and Q are swizzled (sdpa_mma.cuh). A group's partial output takes the place of its own K
// and V, so nobody else need be done. Its rows are 8 floats longer than their contents, 32 bytes that shift each row to other
// banks: the 4 rows of a half-warp's 8-byte stores do not meet.
template <typename T, int DIM> struct Shared {
  static constexpr int PAD = 8;
  struct KeyValue {
    T K[Tile<DIM>::SLICE * DIM];
    T V[Tile<DIM>::SLICE * DIM];
  };
  union alignas(128) Group {
    KeyValue kv;
    float O[BLOCK_Q][DIM + PAD];
  };
  alignas(128) T Q[BLOCK_Q * DIM];
  Group group[KV_SPLIT];
  float row_max[KV_SPLIT][BLOCK_Q], row_sum[KV_SPLIT][BLOCK_Q];
};

// Grid (q tiles, heads_q, batch). At least 1 CTA per SM is all that is asked of ptxas, as in v2.
template <typename T, int DIM>
__global__ void __launch_bounds__(NUM_THREADS, 1) sdpa_mma_split(const __grid_constant__ sdpa_problem p) {
  constexpr int PANEL_KEYS = Tile<DIM>::PANEL_KEYS, SLICE = Tile<DIM>::SLICE;
  constexpr int PIECES = Tile<DIM>::PIECES, PIECE = Tile<DIM>::PIECE;
  extern __shared__ __align__(128) unsigned char shared_memory[];
  Shared<T, DIM> &smem = *reinterpret_cast<Shared<T, DIM> *>(shared_memory);

  const int batch = blockIdx.z, head = blockIdx.y;
  const int kv_head = p.heads_q == p.heads_kv ? head : head / (p.heads_q / p.heads_kv); // two divisions before the first address
  const int q0 = blockIdx.x * BLOCK_Q;
  const T *Q = (const T *)p.q + batch * p.q_stride[0] + head * p.q_stride[1];    // [seq_q, DIM]
  const T *K = (const T *)p.k + batch * p.k_stride[0] + kv_head * p.k_stride[1]; // [seq_kv, DIM]
  const T *V = (const T *)p.v + batch * p.v_stride[0] + kv_head * p.v_stride[1]; // [seq_kv, DIM]
  T *O = (T *)p.o + batch * p.o_stride[0] + head * p.o_stride[1];                // [seq_q, DIM]

  // Top-left causal: row i sees keys 0 .. i. Pieces that no row of the CTA sees are not even loaded.
  const int kv_end = p.causal ? min(min(q0 + BLOCK_Q, p.seq_q), p.seq_kv) : p.seq_kv;
  const int num_panels = (kv_end + PANEL_KEYS - 1) / PANEL_KEYS;

  const int warp = warp_index(), lane = threadIdx.x % 32;
  const int key_group = warp / WARPS_IN_GROUP, thread_in_group = threadIdx.x % GROUP_THREADS;
  T *K_smem = smem.group[key_group].kv.K, *V_smem = smem.group[key_group].kv.V;

  auto group_sync = [&] {
    if constexpr (WARPS_IN_GROUP == 1)
      __syncwarp();
    else
      named_barrier(1 + key_group, GROUP_THREADS);
  };

  // Pieces go round the key groups, so that a short or causal problem keeps all of them busy.
  auto first_key = [&](int panel, int piece) { return panel * PANEL_KEYS + (piece * KV_SPLIT + key_group) * PIECE; };

  // A group's copies of a panel, one cp.async group for each piece, also for pieces behind the end. The order is K, V of panel 0,
  // K, V of panel 1, ..., and K of the next panel is asked for before this one's V is used: when piece i of either is needed,
  // the PIECES - 1 - i pieces behind it and PIECES of the other kind may still be under way.
  auto copy_async = [&](T *tile, const T *global, int64_t row_stride, int panel) {
#pragma unroll
    for (int i = 0; i < PIECES; ++i) {
      const int key0 = first_key(panel, i);
      if (key0 < kv_end)
        copy_rows_async<PIECE, GROUP_THREADS, DIM>(tile + i * PIECE * DIM, global, row_stride, key0, p.seq_kv, thread_in_group);
      cp_async_commit();
    }
  };
  auto wait_for_piece = [&](int i) {
    cp_async_wait_at_most(2 * PIECES - 1 - i); // this thread's part has arrived,
    group_sync();                              // the group's has
  };

  copy_rows_async<BLOCK_Q, NUM_THREADS, DIM>(smem.Q, Q, p.q_stride[2], q0, p.seq_q, threadIdx.x);
  cp_async_commit();
  copy_async(K_smem, K, p.k_stride[2], 0);
  copy_async(V_smem, V, p.v_stride[2], 0);

  // The warp's rows: ROW_TILES times 16, of which this lane sees a quarter of row group and row group + 8.
  const int warp_row = warp % WARPS_IN_GROUP * WARP_ROWS;
  const int group = lane / 4, place = lane % 4;
  const int first_row = q0 + warp_row;
  // Keys that some row of the warp sees (none when all its rows are behind the end), and that all of them see.
  const int warp_keys = first_row >= p.seq_q ? 0 : p.causal ? min(first_row + WARP_ROWS, kv_end) : kv_end;
  const int unmasked_keys = p.causal ? min(first_row + 1, p.seq_kv) : p.seq_kv;
  const float scale_log2 = p.scale * LOG2_E;

  uint32_t Q_rmem[ROW_TILES][DIM / 16][4];
  float O_rmem[ROW_TILES][DIM / 8][4] = {};
  float row_max[ROW_TILES][2], row_sum[ROW_TILES][2]; // maxima of scores times scale_log2; sums of this lane's columns only
#pragma unroll
  for (int m = 0; m < ROW_TILES; ++m)
#pragma unroll
    for (int r = 0; r < 2; ++r) row_max[m][r] = -INFINITY, row_sum[m][r] = 0.0f;

  cp_async_wait_at_most(2 * PIECES);
  __syncthreads(); // Q has arrived, from all threads of the CTA
#pragma unroll
  for (int m = 0; m < ROW_TILES; ++m)
#pragma unroll
    for (int k = 0; k < DIM / 16; ++k)
      ldmatrix_x4(Q_rmem[m][k], smem.Q + swizzled<DIM>(warp_row + m * 16 + lane % 16, 2 * k + lane / 16));

  for (int panel = 0; panel < num_panels; ++panel) {
    // S = Q K^T, and the panel's maxima.
    float S_rmem[ROW_TILES][SLICE / 8][4] = {};
    float new_max[ROW_TILES][2];
#pragma unroll
    for (int m = 0; m < ROW_TILES; ++m)
#pragma unroll
      for (int r = 0; r < 2; ++r) new_max[m][r] = row_max[m][r];

#pragma unroll
    for (int i = 0; i < PIECES; ++i) {
      constexpr int FRAGMENTS = PIECE / 8; // of S, side by side
      const int key0 = first_key(panel, i);
      wait_for_piece(i);
      if (key0 >= warp_keys) continue; // nothing there that this warp sees

#pragma unroll
      for (int k = 0; k < DIM / 16; ++k)
#pragma unroll
        for (int n = 0; n < PIECE / 16; ++n) {
          uint32_t K_rmem[4];
          ldmatrix_x4(K_rmem, K_smem + swizzled<DIM>(i * PIECE + n * 16 + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
#pragma unroll
          for (int m = 0; m < ROW_TILES; ++m) {
            mma_m16n8k16<T>(S_rmem[m][i * FRAGMENTS + 2 * n], Q_rmem[m][k], K_rmem[0], K_rmem[1]);
            mma_m16n8k16<T>(S_rmem[m][i * FRAGMENTS + 2 * n + 1], Q_rmem[m][k], K_rmem[2], K_rmem[3]);
          }
        }

      // The exponent is s c - m with m the row's largest s c, rounded like all others (v3 says why not fma).
      const bool masked = key0 + PIECE > unmasked_keys; // the diagonal or the end of the keys runs through this piece
#pragma unroll
      for (int m = 0; m < ROW_TILES; ++m) {
#pragma unroll
        for (int n = i * FRAGMENTS; n < (i + 1) * FRAGMENTS; ++n)
#pragma unroll
          for (int j = 0; j < 4; ++j) S_rmem[m][n][j] *= scale_log2;
        if (masked) {
          const int row = first_row + m * 16 + group;
          const int keys_seen[2] = {p.causal ? min(row + 1, p.seq_kv) : p.seq_kv, p.causal ? min(row + 9, p.seq_kv) : p.seq_kv};
#pragma unroll
          for (int n = 0; n < FRAGMENTS; ++n)
#pragma unroll
            for (int j = 0; j < 4; ++j)
              if (key0 + n * 8 + place * 2 + j % 2 >= keys_seen[j / 2]) S_rmem[m][i * FRAGMENTS + n][j] = -INFINITY;
        }
#pragma unroll
        for (int n = i * FRAGMENTS; n < (i + 1) * FRAGMENTS; ++n)
#pragma unroll
          for (int j = 0; j < 4; ++j)
            new_max[m][j / 2] = fmaxf(new_max[m][j / 2], S_rmem[m][n][j]); // passes over NaN, the exponential does not
      }
    }

    const bool more = panel + 1 < num_panels;
    if (more) group_sync(); // all warps of the group are done with K
    if (more)
      copy_async(K_smem, K, p.k_stride[2], panel + 1);
    else
      for (int i = 0; i < PIECES; ++i) cp_async_commit(); // empty, for the count

    float shift[ROW_TILES][2];
#pragma unroll
    for (int m = 0; m < ROW_TILES; ++m)
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        new_max[m][r] = quad_max(new_max[m][r]);
        // While a row has seen nothing there is no max to shift by, and (-inf) - (-inf) would be NaN.
        shift[m][r] = new_max[m][r] == -INFINITY ? 0.0f : new_max[m][r];
      }
    if (panel > 0) { // before, sum and O are zero
#pragma unroll
      for (int m = 0; m < ROW_TILES; ++m) {
        const float rescale[2] = {exp2_approx(row_max[m][0] - shift[m][0]), exp2_approx(row_max[m][1] - shift[m][1])};
        row_sum[m][0] *= rescale[0], row_sum[m][1] *= rescale[1];
#pragma unroll
        for (int n = 0; n < DIM / 8; ++n)
#pragma unroll
          for (int j = 0; j < 4; ++j) O_rmem[m][n][j] *= rescale[j / 2];
      }
    }
#pragma unroll
    for (int m = 0; m < ROW_TILES; ++m) row_max[m][0] = new_max[m][0], row_max[m][1] = new_max[m][1];

    // P, and O += P V, piece by piece: the exponentials of a piece run while its V is on its way.
#pragma unroll
    for (int i = 0; i < PIECES; ++i) {
      constexpr int FRAGMENTS = PIECE / 8;
      const bool active = first_key(panel, i) < warp_keys; // where nothing was seen, nothing need have been loaded
      uint32_t P_rmem[ROW_TILES][PIECE / 16][4];
      if (active) {
#pragma unroll
        for (int m = 0; m < ROW_TILES; ++m)
#pragma unroll
          for (int n = 0; n < FRAGMENTS; ++n) {
            float weight[4];
#pragma unroll
            for (int j = 0; j < 4; ++j) {
              weight[j] = exp2_approx(S_rmem[m][i * FRAGMENTS + n][j] - shift[m][j / 2]);
              row_sum[m][j / 2] += weight[j];
            }
            P_rmem[m][n / 2][n % 2 * 2] = pack2<T>(weight[0], weight[1]);
            P_rmem[m][n / 2][n % 2 * 2 + 1] = pack2<T>(weight[2], weight[3]);
          }
      }
      wait_for_piece(i);
      if (active) {
#pragma unroll
        for (int k = 0; k < PIECE / 16; ++k)
#pragma unroll
          for (int n = 0; n < DIM / 16; ++n) {
            uint32_t V_rmem[4];
            ldmatrix_x4_trans(V_rmem, V_smem + swizzled<DIM>(i * PIECE + k * 16 + lane % 16, 2 * n + lane / 16));
#pragma unroll
            for (int m = 0; m < ROW_TILES; ++m) {
              mma_m16n8k16<T>(O_rmem[m][2 * n], P_rmem[m][k], V_rmem[0], V_rmem[1]);
              mma_m16n8k16<T>(O_rmem[m][2 * n + 1], P_rmem[m][k], V_rmem[2], V_rmem[3]);
            }
          }
      }
    }
    if (more) {
      group_sync(); // all warps of the group are done with V
      copy_async(V_smem, V, p.v_stride[2], panel + 1);
    }
  }

  // The group's partial result, where its K and V were: no copy is under way any more, and all its warps are done reading.
  group_sync();
#pragma unroll
  for (int m = 0; m < ROW_TILES; ++m)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = warp_row + m * 16 + group + 8 * r;
      const float sum = quad_sum(row_sum[m][r]);
      if (place == 0) smem.row_max[key_group][row] = row_max[m][r], smem.row_sum[key_group][row] = sum;
#pragma unroll
      for (int n = 0; n < DIM / 8; ++n)
        *(float2 *)&smem.group[key_group].O[row][n * 8 + place * 2] = make_float2(O_rmem[m][n][2 * r], O_rmem[m][n][2 * r + 1]);
    }
  __syncthreads();

  // O = sum of the partial outputs over sum of the partial sums, each brought from its group's maximum to the common one. The
  // maxima are the very numbers that the groups subtracted. A thread takes 8 columns of a row and writes them as 16 bytes; every
  // other 4 chunks it reads the upper half first, so that 8 lanes' 16-byte loads, 32 bytes apart, cover all banks.
  constexpr int CHUNKS = DIM / 8, PASSES = (BLOCK_Q * CHUNKS + NUM_THREADS - 1) / NUM_THREADS;
#pragma unroll
  for (int pass = 0; pass < PASSES; ++pass) {
    const int index = pass * NUM_THREADS + threadIdx.x, row = index / CHUNKS, d = index % CHUNKS * 8;
    if (row >= BLOCK_Q || q0 + row >= p.seq_q) continue;
    const int upper_first = index % CHUNKS / 4 % 2;

    float max = -INFINITY;
#pragma unroll
    for (int s = 0; s < KV_SPLIT; ++s) max = fmaxf(max, smem.row_max[s][row]);
    const float shift = max == -INFINITY ? 0.0f : max;
    float sum = 0.0f, first[4] = {}, second[4] = {};
#pragma unroll
    for (int s = 0; s < KV_SPLIT; ++s) {
      const float weight = exp2_approx(smem.row_max[s][row] - shift); // 0 for a group that saw nothing
      const float4 a = *(const float4 *)&smem.group[s].O[row][d + 4 * upper_first];
      const float4 b = *(const float4 *)&smem.group[s].O[row][d + 4 - 4 * upper_first];
      sum += weight * smem.row_sum[s][row];
      first[0] += weight * a.x, first[1] += weight * a.y, first[2] += weight * a.z, first[3] += weight * a.w;
      second[0] += weight * b.x, second[1] += weight * b.y, second[2] += weight * b.z, second[3] += weight * b.w;
    }
    const float normalise = sum == 0.0f ? 0.0f : reciprocal(sum); // no weight at all: 0; NaN stays NaN
    Pack<T, 8> out;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      out.x[j] = from_float<T>((upper_first ? second[j] : first[j]) * normalise);
      out.x[j + 4] = from_float<T>((upper_first ? first[j] : second[j]) * normalise);
    }
    *(Pack<T, 8> *)(O + (q0 + row) * p.o_stride[2] + d) = out;
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
  return shared_memory_reason(*p, shared_bytes(*p), "PANEL or BLOCK_Q");
}

size_t sdpa_workspace_bytes(const sdpa_problem *) { return 0; }

int sdpa_launch(const sdpa_problem *problem, void *stream) {
  const int bytes = shared_bytes(*problem);
  return with_instance(*problem, [&](auto instance) -> int {
    using I = decltype(instance);
    const auto kernel = sdpa_mma_split<typename I::T, I::DIM>;
    return launch_kernel(kernel, grid_of(*problem), NUM_THREADS, bytes, stream, false, *problem);
  });
}

int sdpa_describe(const sdpa_problem *problem, sdpa_launch_info *info, int capacity) {
  if (sizes_reason(*problem) || instance_reason(*problem) || capacity < 1) return 0;
  const dim3 grid = grid_of(*problem);
  const bool fp16 = problem->dtype == SDPA_FP16, dim64 = problem->head_dim == 64;
  *info = {{(int)grid.x, (int)grid.y, (int)grid.z}, {NUM_THREADS, 1, 1}, shared_bytes(*problem),
           fp16 ? (dim64 ? "sdpa_mma_splitI6__halfLi64E" : "sdpa_mma_splitI6__halfLi128E")
                : (dim64 ? "sdpa_mma_splitI13__nv_bfloat16Li64E" : "sdpa_mma_splitI13__nv_bfloat16Li128E")};
  return 1;
}
