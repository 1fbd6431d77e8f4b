/* evo-sdpa
title: split-KV over a cluster
parent: v5_wgmma
idea: where rows are too few for all SMs, up to eight CTAs of a cluster share the keys of 64 rows and meet in distributed shared memory
expects: 4.6-5.1 us on the goal problem; 10-12 us on b1h1s2304d128, of v5's 24
levers: {MAX_SPLITS: [1, 2, 4, 8], STAGES: [2, 3]}
*/

// v5 gives each 64 rows of a head to one CTA. One head of 2048 rows is then 32 CTAs on 132 SMs, and one row of each of 16 heads 16: most
// SMs are idle, and the others go through all keys one tile after the other. Here a cluster of up to eight CTAs takes the 64 rows, and each
// of them a run of the key tiles, as v5 would: with its own maximum and sum. FlashAttention's name for it is split-KV; there the parts meet in global
// memory, in a second kernel. In a cluster they meet in shared memory.
//
// The parts meet. A chunk is 8 columns of the output, and CTA c mod splits finishes chunk c. When a CTA has no more keys each thread sends its
// sums of each chunk, 16 bytes of FP32, to the CTA that finishes it, and maximum and sum of its rows to all. They go by st.async, which
// counts bytes at a barrier over there; a CTA leaves when all that it expects has arrived, after which nobody writes into it. Nothing is
// rounded before the end.
//
// How many splits: as few as give the shortest run of tiles, among those whose clusters all fit at once, which the driver is asked: a cluster's SMs
// are in one GPC, and GPCs have other numbers of SMs on each chip. With enough rows there is one split, and the rest is v5, with one CTA on an SM.
//
// Predicted on an H200, from v5's times (sweep): 1.05 us a tile of head_dim 64 and 1.25 of 128, and 1.6-1.9 us around them; 0.8-1.0 us for the
// exchange (v8's chain). Goal problem: 2 splits of 2 tiles, 4.6-5.1 us. b1h1s2304d128, fp16 or bf16: 3 splits of 6 tiles, 10-12 us. b1h16s64d64-fp16-kv8192:
// 8 splits of 8 tiles, 10-12 us. b1h1s4096d128-fp16-causal: 2 splits of at most 16 tiles, 22-24 us.
// Measured there: 5.83 us on the goal problem; in the sweep 12.2 us on b1h1s2304d128-bf16 (v5: 24.3), 23.4 on b1h1s4096d128-fp16-causal (v5: 40.9)
// and 15.3 on b1h16s64d64-fp16-kv8192 (v5: 65.5). Most above the ranges: two tiles alone take v5 4.2 us (b1h8s256d64-fp16-causal), so cluster and
// exchange cost some 1.6 us, not 0.8-1.0; and presumably 16 clusters of eight do not all fit at once there, so that there are fewer splits.
//
// New against v5: the cluster, and the exchange. What is left on the table: runs of whole tiles, so that of 3 tiles two CTAs get 1 and 2; causal
// clusters whose rows see few keys leave most of their CTAs idle.

#include "sdpa_cluster.cuh"
#include "sdpa_cluster_launch.cuh"
#include "sdpa_device.cuh"
#include "sdpa_dtype.cuh"
#include "sdpa_hopper.cuh"
#include "sdpa_mma.cuh" // what does not depend on who multiplies: packing, the exponential, reductions
#include "sdpa_store.cuh"
#include "sdpa_wgmma.cuh"

#ifndef MAX_SPLITS
#define MAX_SPLITS 8 // CTAs of a cluster, at most; 8 is what every device with clusters runs
#endif
#ifndef STAGES
#define STAGES 2 // tiles of K, and of V, in shared memory; 3 leave no room for the parts at head_dim 128
#endif
static_assert(MAX_SPLITS >= 1 && MAX_SPLITS <= 8, "MAX_SPLITS must be 1 to 8");
static_assert(STAGES == 2 || STAGES == 3, "STAGES must be 2 or 3");

constexpr int BLOCK_Q = 64;   // query rows of a cluster, the M of wgmma
constexpr int BLOCK_KV = 128; // keys in a tile, the N of Q K^T
constexpr int NUM_WARPS = 4, NUM_THREADS = NUM_WARPS * 32;

// Shared memory of a CTA: boxes of 64 columns as TMA writes and wgmma reads them, each at a multiple of 1024 bytes.
template <typename T, int DIM> struct Shared {
  static constexpr int BOXES = DIM / BOX_COLUMNS;
  static constexpr int CHUNKS = DIM / 8; // of 8 columns, each finished by one CTA
  alignas(1024) T Q[BOXES][BLOCK_Q][BOX_COLUMNS];
  alignas(1024) T K[STAGES][BOXES][BLOCK_KV][BOX_COLUMNS];
  alignas(1024) T V[STAGES][BOXES][BLOCK_KV][BOX_COLUMNS];
  uint64_t K_full[STAGES], V_full[STAGES];   // one arrival, that announces the bytes, and the bytes
  uint64_t K_empty[STAGES], V_empty[STAGES]; // an arrival of each warp
  uint64_t exchanged;                        // one arrival, that announces the bytes, and the bytes
  uint4 parts[CHUNKS + MAX_SPLITS - 1][NUM_THREADS]; // [number of the chunk here x splits + sender][thread]: the thread's 2 x 2 sums there
  float4 stats[MAX_SPLITS][NUM_THREADS / 4];         // of each CTA, a pair of rows: maximum and sum, maximum and sum
};
constexpr int ALIGNMENT_SLACK = 1024 - 128; // dynamic shared memory starts at a multiple of 128; the kernel rounds up

// Which CTAs share the keys of 64 rows.
typedef struct {
  uint32_t splits, inverse; // 2^32 over splits, rounded up; 0 when there is one
} splitting;

// number / splits. A division would stand between the start of the kernel and its first load. Exact, as in kv_head_of(): numbers are at most 2^28.
__device__ __forceinline__ uint32_t quotient(uint32_t number, const splitting &s) { return s.inverse ? __umulhi(number, s.inverse) : number; }

// Grid (splits x q tiles, heads_q, batch), clusters of `splits` along x.
template <typename T, int DIM>
__global__ void __launch_bounds__(NUM_THREADS, 1)
    sdpa_splitkv(const __grid_constant__ tiled_problem p, const __grid_constant__ splitting s, const __grid_constant__ CUtensorMap Q_map,
                 const __grid_constant__ CUtensorMap K_map, const __grid_constant__ CUtensorMap V_map) {
#if SDPA_HOPPER
  using Smem = Shared<T, DIM>;
  constexpr int BOXES = Smem::BOXES, STEPS_IN_BOX = BOX_COLUMNS / 16;
  extern __shared__ __align__(128) unsigned char shared_memory[];
  Smem &smem = *reinterpret_cast<Smem *>(shared_memory + (-smem_address(shared_memory) & 1023));

  const int batch = blockIdx.z, head = blockIdx.y, kv_head = kv_head_of(p, head);
  const uint32_t rank = cluster_rank();
  // Causal: the last rows see most keys, so they go first and the short ones fill the gaps.
  const int cluster = quotient(blockIdx.x, s), q_tile = p.causal ? (p.seq_q + BLOCK_Q - 1) / BLOCK_Q - 1 - cluster : cluster;
  const int q0 = q_tile * BLOCK_Q;

  // Top-left causal: row i sees keys 0 .. i. Tiles that no row of the cluster sees are not shared out. Where there are fewer tiles than
  // CTAs, one without any takes another's and masks it whole.
  const int kv_end = p.causal ? min(min(q0 + BLOCK_Q, p.seq_q), p.seq_kv) : p.seq_kv;
  const uint32_t all_tiles = (kv_end + BLOCK_KV - 1) / BLOCK_KV;
  const int first_tile = quotient(all_tiles * rank, s), end_tile = quotient(all_tiles * (rank + 1), s);
  const bool has_keys = first_tile < end_tile;
  const int num_tiles = has_keys ? end_tile - first_tile : 1, keys = has_keys ? p.seq_kv : 0;
  const int chunks_here = quotient(Smem::CHUNKS - rank + s.splits - 1, s); // chunks rank, rank + splits, ... of the output

  const int warp = warp_index(), lane = threadIdx.x % 32;
  const bool in_loading_warp = warp == 0;

  // Tiles count from the CTA's first one. Tile t lies in stage t % STAGES, and there it is number t / STAGES: the phase of that stage's barriers.
  auto stage_of = [](int tile) { return (unsigned)tile % STAGES; };
  auto parity_of = [](int tile) { return (unsigned)tile / STAGES % 2; };
  constexpr int TILE_BYTES = BLOCK_KV * DIM * sizeof(T), Q_BYTES = BLOCK_Q * DIM * sizeof(T);
  auto load_K = [&](int tile) {
    const int stage = stage_of(tile);
    mbarrier_expect(&smem.K_full[stage], TILE_BYTES + (tile == 0 ? Q_BYTES : 0));
#pragma unroll
    for (int box = 0; box < BOXES; ++box)
      tma_load(smem.K[stage][box], &K_map, &smem.K_full[stage], box * BOX_COLUMNS, (first_tile + tile) * BLOCK_KV, kv_head, batch);
  };
  auto load_V = [&](int tile) {
    const int stage = stage_of(tile);
    mbarrier_expect(&smem.V_full[stage], TILE_BYTES);
#pragma unroll
    for (int box = 0; box < BOXES; ++box)
      tma_load(smem.V[stage][box], &V_map, &smem.V_full[stage], box * BOX_COLUMNS, (first_tile + tile) * BLOCK_KV, kv_head, batch);
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
    mbarrier_init(&smem.exchanged, 1);
    mbarrier_init_fence();
    load_K(0);
#pragma unroll
    for (int box = 0; box < BOXES; ++box) tma_load(smem.Q[box], &Q_map, &smem.K_full[0], box * BOX_COLUMNS, q0, head, batch);
#pragma unroll
    for (int tile = 1; tile <= STAGES; ++tile) {
      if (tile < STAGES && tile < num_tiles) load_K(tile);
      if (tile - 1 < num_tiles) load_V(tile - 1);
    }
    mbarrier_expect(&smem.exchanged, (s.splits - 1) * (chunks_here * sizeof smem.parts[0] + sizeof smem.stats[0]));
  }
  __syncthreads();          // nobody here waits at a barrier before it is made,
  cluster_arrive_relaxed(); // and nobody over there counts bytes at one

  // The warp is done reading a tile; its stage is refilled when all are. Reading by wgmma and writing by TMA are one proxy, so the barrier
  // suffices.
  auto release = [&](uint64_t *empty, int tile, auto load) {
    if (lane == 0) mbarrier_arrive(&empty[stage_of(tile)]);
    if (in_loading_warp && tile + STAGES < num_tiles && elect_one()) {
      mbarrier_wait(&empty[stage_of(tile)], parity_of(tile));
      load(tile + STAGES);
    }
    __syncwarp();
  };

  float S_even[BLOCK_KV / 2] = {}, S_odd[BLOCK_KV / 2] = {}; // scores of even and odd tiles
  float O_rmem[BOXES][32] = {};
  float row_max[2] = {-INFINITY, -INFINITY}; // of unscaled scores, which is in the same place for a scale above 0
  float row_sum[4] = {};                     // of this lane's columns: even and odd ones of each row

  // S = Q K^T of a tile, a group of products. k runs along the rows of both.
  auto start_scores = [&](float(&S)[BLOCK_KV / 2], int tile) {
    const int stage = stage_of(tile);
    mbarrier_wait(&smem.K_full[stage], parity_of(tile));
    wgmma_fence();
#pragma unroll
    for (int box = 0; box < BOXES; ++box) {
      const uint64_t Q_tile = matrix_descriptor(smem.Q[box]), K_tile = matrix_descriptor(smem.K[stage][box]);
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
      rescale[r] = exp2_approx((row_max[r] - shift[r]) * p.scale); // 0 on the first tile, 1 when the max stands
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
        weight[i] = exp2_approx((S[8 * k + i] - shift[i / 2 % 2]) * p.scale);
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

  // The last tile. Only here a row may see less than the whole tile: every other one ends at or before the cluster's first row.
  static_assert(BLOCK_KV % BLOCK_Q == 0, "no diagonal runs through a tile that is not the last");
  const int kv0 = (first_tile + tile) * BLOCK_KV, row = warp * 16 + lane / 4, column = lane % 4 * 2; // this lane has row + 8 too
  const int unmasked_keys = p.causal ? min(q0 + 1, keys) : keys;                                     // all rows see these
  if (kv0 + BLOCK_KV > unmasked_keys) {
    int limit[2]; // of the lane's rows: from which column on
#pragma unroll
    for (int r = 0; r < 2; ++r)
      limit[r] = (p.causal ? min(q0 + row + 8 * r + 1, keys) : keys) - kv0 - column;
#pragma unroll
    for (int i = 0; i < BLOCK_KV / 2; ++i)
      if (i / 4 * 8 + i % 2 >= limit[i / 2 % 2]) S_even[i] = -INFINITY;
  }
  attend(S_even, tile);
  if (!has_keys) // or a V that is infinite would be NaN times a weight of 0
#pragma unroll
    for (int box = 0; box < BOXES; ++box)
#pragma unroll
      for (int i = 0; i < 32; ++i) O_rmem[box][i] = 0.0f;

  // What this CTA has goes to those who finish it.
  const int thread = threadIdx.x;
#pragma unroll
  for (int r = 0; r < 2; ++r) row_sum[r] = quad_sum(row_sum[2 * r] + row_sum[2 * r + 1]);
  cluster_wait(); // the others have made their barriers, long ago
  // x to the same place in CTA `to`, whose shared memory begins at the same address. What stays here is read by the thread that wrote it, or one of its warp.
  auto give = [&](auto &place, uint4 x, uint32_t to) {
    if (to == rank)
      *(uint4 *)&place = x;
    else
      store_async(remote_address(&place, to), x, remote_address(&smem.exchanged, to));
  };
  if (lane % 4 == 0)
    for (uint32_t to = 0; to < s.splits; ++to)
      give(smem.stats[rank][thread / 4],
           make_uint4(__float_as_uint(row_max[0]), __float_as_uint(row_sum[0]), __float_as_uint(row_max[1]), __float_as_uint(row_sum[1])), to);
  uint32_t to = 0, part = rank; // chunk c: to CTA c % splits, where it is number c / splits, and this CTA's part of it
#pragma unroll
  for (int chunk = 0; chunk < Smem::CHUNKS; ++chunk) {
    const float *sums = O_rmem[chunk / 8] + chunk % 8 * 4;
    give(smem.parts[part][thread],
         make_uint4(__float_as_uint(sums[0]), __float_as_uint(sums[1]), __float_as_uint(sums[2]), __float_as_uint(sums[3])), to);
    if (++to == s.splits) to = 0, part += s.splits;
  }
  __syncwarp();
  mbarrier_wait_cluster(&smem.exchanged, 0);

  // Weights of the CTAs' parts in a row: 2^(scale x (maximum - maximum of all)), over the sum of all weights.
  auto stats_of = [&](int from, int r) { return ((const float2 *)&smem.stats[from][thread / 4])[r]; };
  float shift[2], normalise[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float all_max = -INFINITY, all_sum = 0.0f;
#pragma unroll
    for (int from = 0; from < MAX_SPLITS; ++from)
      if (from < s.splits) all_max = fmaxf(all_max, stats_of(from, r).x);
    shift[r] = all_max == -INFINITY ? 0.0f : all_max; // as in attend()
#pragma unroll
    for (int from = 0; from < MAX_SPLITS; ++from)
      if (from < s.splits) all_sum += exp2_approx((stats_of(from, r).x - shift[r]) * p.scale) * stats_of(from, r).y;
    normalise[r] = all_sum == 0.0f ? 0.0f : reciprocal(all_sum); // no weight at all: 0; NaN stays NaN
  }

  // Four chunks at a time, so that each lane of a quad leaves with the 8 columns of one.
  T *O = (T *)p.o + batch * p.o_stride[0] + head * p.o_stride[1]; // [seq_q, DIM]
  for (int first = 0; first < chunks_here; first += 4) {
    float sums[4][4] = {};
#pragma unroll 2
    for (int from = 0; from < s.splits; ++from) {
      float weight[2];
#pragma unroll
      for (int r = 0; r < 2; ++r) weight[r] = exp2_approx((stats_of(from, r).x - shift[r]) * p.scale) * normalise[r];
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (first + i < chunks_here) {
          const float4 theirs = *(const float4 *)&smem.parts[(first + i) * s.splits + from][thread];
          sums[i][0] += weight[0] * theirs.x, sums[i][1] += weight[0] * theirs.y;
          sums[i][2] += weight[1] * theirs.z, sums[i][3] += weight[1] * theirs.w;
        }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      uint32_t out[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) out[i] = pack2<T>(sums[i][2 * r], sums[i][2 * r + 1]);
      quad_transpose(out);
      const int q = q0 + row + 8 * r, number = first + lane % 4;
      if (q < p.seq_q && number < chunks_here) store_16_bytes(O + q * p.o_stride[2] + (number * s.splits + rank) * 8, out);
    }
  }
#endif
}

static int q_tiles_of(const sdpa_problem &p) { return (int)(((int64_t)p.seq_q + BLOCK_Q - 1) / BLOCK_Q); }

// At least as much as keeps a second CTA off the SM: two of them would share its units while other SMs have none.
constexpr int LEAST_SHARED_BYTES = 116 * 1024;

static int shared_bytes(const sdpa_problem &p) {
  const int needed =
      with_instance(p, [](auto i) { return (int)sizeof(Shared<typename decltype(i)::T, decltype(i)::DIM>) + ALIGNMENT_SLACK; });
  return needed > LEAST_SHARED_BYTES ? needed : LEAST_SHARED_BYTES;
}

template <typename F> static auto with_kernel(const sdpa_problem &p, F f) {
  return with_instance(p, [&](auto instance) {
    using I = decltype(instance);
    return f(sdpa_splitkv<typename I::T, I::DIM>);
  });
}

// As few splits as give the shortest run of tiles, of those whose clusters run all at once.
static splitting splitting_of(const sdpa_problem &p) {
  const int64_t clusters = (int64_t)q_tiles_of(p) * p.heads_q * p.batch, tiles = ((int64_t)p.seq_kv + BLOCK_KV - 1) / BLOCK_KV;
  const auto run = [&](int64_t splits) { return (tiles + splits - 1) / splits; };
  int64_t splits = num_sms() / clusters;
  splits = splits > MAX_SPLITS ? MAX_SPLITS : splits;
  for (; splits > 1; --splits) {
    if (run(splits) == run(splits - 1)) continue;
    if (clusters <= with_kernel(p, [&](auto kernel) { return clusters_at_once(kernel, splits, NUM_THREADS, shared_bytes(p)); })) break;
  }
  return splits > 1 ? splitting{(uint32_t)splits, (uint32_t)((0x100000000ull + splits - 1) / splits)} : splitting{1, 0};
}

static dim3 grid_of(const sdpa_problem &p, const splitting &s) { return dim3(q_tiles_of(p) * s.splits, p.heads_q, p.batch); }

const char *sdpa_supports(const sdpa_problem *p) {
  if (const char *reason = sizes_reason(*p)) return reason;
  if (p->seq_q > INT32_MAX - 256 || p->seq_kv > INT32_MAX - 256) return "seq_q and seq_kv must be at most 2^31 - 257: a tile's end is counted in 32 bits";
  if (const char *reason = instance_reason(*p)) return reason;
  if (const char *reason = hopper_kernel_reason(*p)) return reason;
  return shared_memory_reason(*p, shared_bytes(*p), "STAGES");
}

size_t sdpa_workspace_bytes(const sdpa_problem *) { return 0; }

int sdpa_launch(const sdpa_problem *problem, void *stream) {
  const sdpa_problem &p = *problem;
  const tensor_maps maps(p, BLOCK_Q, BLOCK_KV);
  if (maps.error) return maps.error;
  const splitting s = splitting_of(p);
  return with_kernel(p, [&](auto kernel) {
    return launch_clusters(kernel, grid_of(p, s), s.splits, NUM_THREADS, shared_bytes(p), stream, tiled(p), s, maps.Q, maps.K, maps.V);
  });
}

int sdpa_describe(const sdpa_problem *problem, sdpa_launch_info *info, int capacity) {
  const sdpa_problem &p = *problem;
  if (sizes_reason(p) || instance_reason(p) || capacity < 1) return 0;
  const dim3 grid = grid_of(p, splitting_of(p)); // without a device up to as many splits as SMs are there for
  const bool fp16 = p.dtype == SDPA_FP16, dim64 = p.head_dim == 64;
  *info = {{(int)grid.x, (int)grid.y, (int)grid.z}, {NUM_THREADS, 1, 1}, shared_bytes(p),
           fp16 ? (dim64 ? "sdpa_splitkvI6__halfLi64E" : "sdpa_splitkvI6__halfLi128E")
                : (dim64 ? "sdpa_splitkvI13__nv_bfloat16Li64E" : "sdpa_splitkvI13__nv_bfloat16Li128E")};
  return 1;
}
