/* evo-sdpa
title: wgmma fed by TMA
parent: v4_mma_split
idea: warpgroups multiply straight from tiles that one thread fetches by TMA; the next tile's scores are computed during this one's softmax
expects: 4.3-5.0 us on the goal problem, a serial chain of one warp per scheduler; 450-550 TFLOP/s on b4h16s4096d128-fp16
levers: {BLOCK_Q: [64, 128], STAGES: [2, 3]}
*/

// Hopper's own way. wgmma takes B (K, V) and here also Q from shared memory by itself: no ldmatrix, no fragments of K and V in
// registers. A tile is fetched by one instruction of one thread (TMA), swizzled on the way, and an mbarrier says when its bytes are
// there. There is no producer warp: a thread of the first warp also refills the ring.
// A CTA has BLOCK_Q / 64 warpgroups of 64 rows each, which share the tiles of 128 keys. K and V have rings of their own, so that
// Q K^T begins when K is there. `full` barriers count a tile's bytes. `empty` barriers count the warps that are done reading it, and
// only the thread that refills waits for those; __syncthreads() would make all wait for the slowest.
//
// Products run beside the softmax. Two sets of registers hold scores in turn: the next tile's are computed while this one's go through
// maximum, exponential and packing; and P V is asked for every 16 keys, as soon as these 16 columns of P are packed. A tile (t):
//
//     tensor cores   Q K^T (t + 1)               | P V of 16 keys | P V of 16 keys | ...
//     the rest       maximum (t), rescale O, exp and pack 16 keys | exp, pack 16   | ... | wait for the last P V | release the stages
//
// Nothing runs across the end of a tile: with products under way there, ptxas (13.0) serialised all of them (C7515, C7520), since it
// must prove across branches that nobody touches their registers. For the same reason the last tile stands alone, and only there is
// masked, which suffices.
//
// Predicted on an H200: 4.3-5.0 us. 64 CTAs, each alone on its SM, one warp on each scheduler. In clk at 1.98 GHz: until Q and the
// first K are there and multiplied 1,700; four tiles of 64 x 128 exponentials each, of which a scheduler does 4 a clk = 512, with
// what stands between them 740; maximum and rescaling 220, the last P V and the barriers 100: 4,240; normalising and storing 400.
// That is 6,340 clk = 3.2 us, and 1.45 us of launch, first instruction and drain. The tensor cores are busy for 4 x 520 clk of it.
// On b4h16s4096d128-fp16: a tile is 8 x 64 clk for S and 16 x 32 for O = 1,030 on the tensor cores, with the rest beside them and
// the end of the tile 1,200. But its 64 KB of K and V, which every SM wants, take 1,400 to 1,720 at the 47 to 38 B/clk/SM that L2
// gives: 4 x 64 x 128 x 128 FLOP on 132 SMs at 1.7 GHz would be 550-670 TFLOP/s, with a fifth lost at what does not overlap 450-550.
// BLOCK_Q=128 halves what is read and gives each scheduler a second warp: 540-620.
// Measured there: 6.19 us warm, 6.89 us stream, and 1,277 us (430 TFLOP/s) on b4h16s4096d128-fp16, all outside the ranges. On the
// goal problem one warp for each scheduler issues in 25 % of the cycles and waits for latencies, as in v3: the chain has more between
// the units than the 740 clk that a tile was given. At 4096 keys the thread that refills is a worker: see the end of this comment.
//
// New against v4: wgmma and TMA; keys are not split, so nothing is combined at the end. What is left on the table: half of the SMs
// idle on the goal problem, and with BLOCK_Q 64 no warp hides the latency of another. The thread that refills is also a worker and
// waits for the slowest warp. A CTA asks for its first tiles when it starts, not when the one before it ends, as a persistent one
// with a producer warp would.

#include "sdpa_checks.h"
#include "sdpa_dtype.cuh"
#include "sdpa_launch.cuh"
#include "sdpa_mma.cuh" // what does not depend on who multiplies: packing, the exponential, reductions, the swizzle
#include "sdpa_tma.cuh"
#include "sdpa_wgmma.cuh"

#ifndef BLOCK_Q
#define BLOCK_Q 64 // query rows of a CTA, 64 for each warpgroup: 64 CTAs on the goal problem
#endif
#ifndef STAGES
#define STAGES 3 // tiles of K, and of V, in shared memory
#endif
static_assert(BLOCK_Q == 64 || BLOCK_Q == 128, "BLOCK_Q must be 64 or 128");
static_assert(STAGES == 2 || STAGES == 3, "STAGES must be 2 or 3");

constexpr int GROUP_ROWS = 64; // the M of wgmma
constexpr int BLOCK_KV = 128;  // keys in a tile, the N of Q K^T
constexpr int NUM_WARPS = BLOCK_Q / GROUP_ROWS * 4;
constexpr int NUM_THREADS = NUM_WARPS * 32;

// Shared memory of a CTA: boxes of 64 columns as TMA writes and wgmma reads them, each at a multiple of 1024 bytes.
template <typename T, int DIM> struct Shared {
  static constexpr int BOXES = DIM / BOX_COLUMNS;
  alignas(1024) T Q[BOXES][BLOCK_Q][BOX_COLUMNS]; // and O at the end
  alignas(1024) T K[STAGES][BOXES][BLOCK_KV][BOX_COLUMNS];
  alignas(1024) T V[STAGES][BOXES][BLOCK_KV][BOX_COLUMNS];
  uint64_t K_full[STAGES], V_full[STAGES];   // one arrival, that announces the bytes, and the bytes
  uint64_t K_empty[STAGES], V_empty[STAGES]; // an arrival of each warp
};
constexpr int ALIGNMENT_SLACK = 1024 - 128; // dynamic shared memory starts at a multiple of 128; the kernel rounds up

// Grid (q tiles, heads_q, batch). At least 1 CTA per SM is all that is asked of ptxas, as in v2.
template <typename T, int DIM>
__global__ void __launch_bounds__(NUM_THREADS, 1)
    sdpa_wgmma(const __grid_constant__ sdpa_problem p, const __grid_constant__ CUtensorMap Q_map,
               const __grid_constant__ CUtensorMap K_map, const __grid_constant__ CUtensorMap V_map) {
#if SDPA_HOPPER
  using Smem = Shared<T, DIM>;
  constexpr int BOXES = Smem::BOXES, STEPS_IN_BOX = BOX_COLUMNS / 16;
  extern __shared__ __align__(128) unsigned char shared_memory[];
  Smem &smem = *reinterpret_cast<Smem *>(shared_memory + (-smem_address(shared_memory) & 1023));

  const int batch = blockIdx.z, head = blockIdx.y;
  const int kv_head = p.heads_q == p.heads_kv ? head : head / (p.heads_q / p.heads_kv); // two divisions before the first address
  // Causal: the last rows see most keys, so they go first and the short ones fill the gaps.
  const int q_tile = p.causal ? gridDim.x - 1 - blockIdx.x : blockIdx.x;
  const int q0 = q_tile * BLOCK_Q;
  T *O = (T *)p.o + batch * p.o_stride[0] + head * p.o_stride[1]; // [seq_q, DIM]

  // Top-left causal: row i sees keys 0 .. i. Tiles that no row of the CTA sees are not even loaded.
  const int kv_end = p.causal ? min(min(q0 + BLOCK_Q, p.seq_q), p.seq_kv) : p.seq_kv;
  const int num_tiles = (kv_end + BLOCK_KV - 1) / BLOCK_KV;

  const int warp = warp_index(), lane = threadIdx.x % 32;
  const bool in_loading_warp = warp == 0;

  // Tile t lies in stage t % STAGES, and there it is number t / STAGES: the phase of that stage's barriers.
  auto stage_of = [](int tile) { return (unsigned)tile % STAGES; };
  auto parity_of = [](int tile) { return (unsigned)tile / STAGES % 2; };
  constexpr int TILE_BYTES = BLOCK_KV * DIM * sizeof(T), Q_BYTES = BLOCK_Q * DIM * sizeof(T);
  auto load_K = [&](int tile) {
    const int stage = stage_of(tile);
    mbarrier_expect(&smem.K_full[stage], TILE_BYTES + (tile == 0 ? Q_BYTES : 0));
#pragma unroll
    for (int box = 0; box < BOXES; ++box)
      tma_load(smem.K[stage][box], &K_map, &smem.K_full[stage], box * BOX_COLUMNS, tile * BLOCK_KV, kv_head, batch);
  };
  auto load_V = [&](int tile) {
    const int stage = stage_of(tile);
    mbarrier_expect(&smem.V_full[stage], TILE_BYTES);
#pragma unroll
    for (int box = 0; box < BOXES; ++box)
      tma_load(smem.V[stage][box], &V_map, &smem.V_full[stage], box * BOX_COLUMNS, tile * BLOCK_KV, kv_head, batch);
  };

  // The thread that makes the barriers asks for the first tiles at once; the others need the barriers only. Q comes with K's tile 0.
  // In the order of their use: K is needed a tile ahead of V.
  if (in_loading_warp && elect_one()) {
#pragma unroll
    for (int stage = 0; stage < STAGES; ++stage) {
      mbarrier_init(&smem.K_full[stage], 1);
      mbarrier_init(&smem.V_full[stage], 1);
      mbarrier_init(&smem.K_empty[stage], NUM_WARPS);
      mbarrier_init(&smem.V_empty[stage], NUM_WARPS);
    }
    mbarrier_init_fence();
    load_K(0);
#pragma unroll
    for (int box = 0; box < BOXES; ++box) tma_load(smem.Q[box], &Q_map, &smem.K_full[0], box * BOX_COLUMNS, q0, head, batch);
#pragma unroll
    for (int tile = 1; tile <= STAGES; ++tile) {
      if (tile < STAGES && tile < num_tiles) load_K(tile);
      if (tile - 1 < num_tiles) load_V(tile - 1);
    }
  }
  __syncthreads();

  // The warp is done reading a tile; now, or LAG tiles later, its stage is refilled. With two warpgroups and a stage to spare the
  // thread that refills need not wait until the other warpgroup has come to the same place. Reading by wgmma and writing by TMA are
  // one proxy, so the barrier suffices.
  constexpr int LAG = NUM_WARPS > 4 ? STAGES - 2 : 0;
  auto release = [&](uint64_t *empty, int tile, auto load) {
    if (lane == 0) mbarrier_arrive(&empty[stage_of(tile)]);
    const int refilled = tile - LAG;
    if (in_loading_warp && refilled >= 0 && refilled + STAGES < num_tiles && elect_one()) {
      mbarrier_wait(&empty[stage_of(refilled)], parity_of(refilled));
      load(refilled + STAGES);
    }
    __syncwarp();
  };

  float S_even[BLOCK_KV / 2] = {}, S_odd[BLOCK_KV / 2] = {}; // scores of even and odd tiles
  float O_rmem[BOXES][32] = {};
  float row_max[2] = {-INFINITY, -INFINITY}; // of unscaled scores, which is in the same place for a scale above 0
  float row_sum[4] = {};                     // of this lane's columns: even and odd ones of each row
  const float scale_log2 = p.scale * LOG2_E;

  // S = Q K^T of a tile, a group of products. k runs along the rows of both.
  const int group_row = warp / 4 * GROUP_ROWS; // the warpgroup's first row in the CTA
  auto start_scores = [&](float(&S)[BLOCK_KV / 2], int tile) {
    const int stage = stage_of(tile);
    mbarrier_wait(&smem.K_full[stage], parity_of(tile));
    wgmma_fence();
#pragma unroll
    for (int box = 0; box < BOXES; ++box) {
      const uint64_t Q_tile = matrix_descriptor(smem.Q[box][group_row]), K_tile = matrix_descriptor(smem.K[stage][box]);
#pragma unroll
      for (int k = 0; k < STEPS_IN_BOX; ++k)
        wgmma_m64n128k16_ss<T>(S, Q_tile + k * STEP_ALONG_ROW, K_tile + k * STEP_ALONG_ROW, box > 0 || k > 0);
    }
    wgmma_commit();
  };

  // Softmax of a tile whose scores are there, and O += P V. When it returns all products have ended, also those begun before it.
  auto attend = [&](float(&S)[BLOCK_KV / 2], int tile) {
    float tile_max[4] = {S[0], S[1], S[2], S[3]};
#pragma unroll
    for (int i = 4; i < BLOCK_KV / 2; ++i)
      tile_max[i % 4] = fmaxf(tile_max[i % 4], S[i]); // passes over NaN, which reaches the row through its exponential instead
    float shift[2], rescale[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float new_max = fmaxf(row_max[r], quad_max(fmaxf(tile_max[2 * r], tile_max[2 * r + 1])));
      // While a row has seen nothing there is no max to shift by, and (-inf) - (-inf) would be NaN.
      shift[r] = new_max == -INFINITY ? 0.0f : new_max;
      rescale[r] = exp2_approx((row_max[r] - shift[r]) * scale_log2); // 0 on the first tile, 1 when the max stands
      row_max[r] = new_max;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) row_sum[i] *= rescale[i / 2];
#pragma unroll
    for (int box = 0; box < BOXES; ++box)
#pragma unroll
      for (int i = 0; i < 32; ++i) O_rmem[box][i] *= rescale[i / 2 % 2];

    // 16 keys at a time: k runs down the rows of V. The difference comes before the scale, so that it is exact where it matters.
    uint32_t P[BLOCK_KV / 16][4];
    const int stage = stage_of(tile);
    mbarrier_wait(&smem.V_full[stage], parity_of(tile));
#pragma unroll
    for (int k = 0; k < BLOCK_KV / 16; ++k) {
      float weight[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        weight[i] = exp2_approx((S[8 * k + i] - shift[i / 2 % 2]) * scale_log2);
        row_sum[i % 4] += weight[i];
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) P[k][i] = pack2<T>(weight[2 * i], weight[2 * i + 1]);
      wgmma_fence();
#pragma unroll
      for (int box = 0; box < BOXES; ++box)
        wgmma_m64n64k16_rs_down<T>(O_rmem[box], P[k], matrix_descriptor(smem.V[stage][box]) + k * STEP_DOWN_ROWS, true);
    }
    wgmma_commit();
    wgmma_wait<0>();
#pragma unroll
    for (int box = 0; box < BOXES; ++box) pin(O_rmem[box]);
#pragma unroll
    for (int k = 0; k < BLOCK_KV / 16; ++k) pin(P[k]);
  };

  // A tile that another one follows.
  int tile = 0;
  auto step = [&](float(&S)[BLOCK_KV / 2], float(&S_next)[BLOCK_KV / 2]) {
    start_scores(S_next, tile + 1);
    attend(S, tile);
    pin(S_next);
    release(smem.K_empty, tile + 1, load_K);
    release(smem.V_empty, tile, load_V);
    tile = __shfl_sync(0xffffffff, tile + 1, 0); // as warp_index(): addresses in uniform registers, or head_dim 128 spills
  };

  start_scores(S_even, 0);
  wgmma_wait<0>();
  pin(S_even);
  release(smem.K_empty, 0, load_K);
  while (tile + 1 < num_tiles) {
    step(S_even, S_odd);
    if (tile + 1 == num_tiles) {
#pragma unroll
      for (int i = 0; i < BLOCK_KV / 2; ++i) S_even[i] = S_odd[i];
      break;
    }
    step(S_odd, S_even);
  }

  // The last tile. Only here a row may see less than the whole tile: every other one ends at or before the CTA's first row.
  static_assert(BLOCK_KV % BLOCK_Q == 0, "no diagonal runs through a tile that is not the last");
  const int kv0 = tile * BLOCK_KV;
  const int warp_row = warp * 16, group = lane / 4, place = lane % 4; // this lane has rows warp_row + group and 8 more
  const int unmasked_keys = p.causal ? min(q0 + group_row + 1, p.seq_kv) : p.seq_kv; // all rows of the warpgroup see these
  if (kv0 + BLOCK_KV > unmasked_keys) {
    int limit[2]; // of the lane's rows: from which column on
#pragma unroll
    for (int r = 0; r < 2; ++r)
      limit[r] = (p.causal ? min(q0 + warp_row + group + 8 * r + 1, p.seq_kv) : p.seq_kv) - kv0 - 2 * place;
#pragma unroll
    for (int i = 0; i < BLOCK_KV / 2; ++i)
      if (i / 4 * 8 + i % 2 >= limit[i / 2 % 2]) S_even[i] = -INFINITY;
  }
  attend(S_even, tile);

  // O in T, through Q's shared memory, where each warp has its own 16 rows: swizzled as Q was, so that neither the pairs written nor
  // the 16 bytes read meet in a bank. Q is free: all warps were done with the last tile's scores long ago, and the barrier says so.
  // Reads of the other proxy that have ended need no fence before these writes.
  mbarrier_wait(&smem.K_empty[stage_of(num_tiles - 1)], parity_of(num_tiles - 1));
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float sum = quad_sum(row_sum[2 * r] + row_sum[2 * r + 1]);
    const float normalise = sum == 0.0f ? 0.0f : reciprocal(sum); // no weight at all: 0; NaN stays NaN
#pragma unroll
    for (int box = 0; box < BOXES; ++box)
#pragma unroll
      for (int n = 0; n < BOX_COLUMNS / 8; ++n)
        *(uint32_t *)(smem.Q[box][0] + swizzled<BOX_COLUMNS>(warp_row + group + 8 * r, n) + 2 * place) =
            pack2<T>(O_rmem[box][4 * n + 2 * r] * normalise, O_rmem[box][4 * n + 2 * r + 1] * normalise);
  }
  __syncwarp();
  constexpr int CHUNKS = BOX_COLUMNS / 8; // of 16 bytes
#pragma unroll
  for (int box = 0; box < BOXES; ++box)
#pragma unroll
    for (int i = 0; i < 16 * CHUNKS / 32; ++i) {
      const int smem_row = warp_row + (i * 32 + lane) / CHUNKS, chunk = lane % CHUNKS;
      const Pack<T, 8> out = *(const Pack<T, 8> *)(smem.Q[box][0] + swizzled<BOX_COLUMNS>(smem_row, chunk));
      if (q0 + smem_row < p.seq_q)
        *(Pack<T, 8> *)(O + (q0 + smem_row) * p.o_stride[2] + box * BOX_COLUMNS + chunk * 8) = out;
    }
#endif
}

static dim3 grid_of(const sdpa_problem &p) { return dim3((p.seq_q + BLOCK_Q - 1) / BLOCK_Q, p.heads_q, p.batch); }

static int shared_bytes(const sdpa_problem &p) {
  return with_instance(
      p, [](auto i) { return (int)sizeof(Shared<typename decltype(i)::T, decltype(i)::DIM>) + ALIGNMENT_SLACK; });
}

const char *sdpa_supports(const sdpa_problem *p) {
  if (const char *reason = sizes_reason(*p)) return reason;
  if (const char *reason = instance_reason(*p)) return reason;
  if (const char *reason = alignment_reason(*p)) return reason;
  if (const char *reason = tensor_map_reason(*p)) return reason; // TMA wants the same multiples of 16 bytes
  if (!(p->scale > 0.0f)) return "scale must be above 0: the largest score of a row is found before scaling";
  if (const char *reason = hopper_reason()) return reason;
  return shared_memory_reason(*p, shared_bytes(*p), "BLOCK_Q or STAGES");
}

size_t sdpa_workspace_bytes(const sdpa_problem *) { return 0; }

int sdpa_launch(const sdpa_problem *problem, void *stream) {
  const sdpa_problem &p = *problem;
  CUtensorMap Q_map, K_map, V_map;
  int code = make_tensor_map(&Q_map, p.q, p.batch, p.heads_q, p.seq_q, p.head_dim, p.q_stride, p.dtype, BLOCK_Q);
  if (code == 0) code = make_tensor_map(&K_map, p.k, p.batch, p.heads_kv, p.seq_kv, p.head_dim, p.k_stride, p.dtype, BLOCK_KV);
  if (code == 0) code = make_tensor_map(&V_map, p.v, p.batch, p.heads_kv, p.seq_kv, p.head_dim, p.v_stride, p.dtype, BLOCK_KV);
  if (code != 0) {
    cudaGetLastError(); // returned here: the next launch must not report it again
    return code;
  }
  const int bytes = shared_bytes(p);
  return with_instance(p, [&](auto instance) -> int {
    using I = decltype(instance);
    const auto kernel = sdpa_wgmma<typename I::T, I::DIM>;
    return launch_kernel(kernel, grid_of(p), NUM_THREADS, bytes, stream, false, p, Q_map, K_map, V_map);
  });
}

int sdpa_describe(const sdpa_problem *problem, sdpa_launch_info *info, int capacity) {
  if (sizes_reason(*problem) || instance_reason(*problem) || capacity < 1) return 0;
  const dim3 grid = grid_of(*problem);
  const bool fp16 = problem->dtype == SDPA_FP16, dim64 = problem->head_dim == 64;
  *info = {{(int)grid.x, (int)grid.y, (int)grid.z}, {NUM_THREADS, 1, 1}, shared_bytes(*problem),
           fp16 ? (dim64 ? "sdpa_wgmmaI6__halfLi64E" : "sdpa_wgmmaI6__halfLi128E")
                : (dim64 ? "sdpa_wgmmaI13__nv_bfloat16Li64E" : "sdpa_wgmmaI13__nv_bfloat16Li128E")};
  return 1;
}
