/* evo-sdpa
title: keys split over a cluster of two
parent: v6_oneshot
idea: 128 CTAs by giving each half of the keys instead of half of the rows; the halves meet through distributed shared memory
expects: 3.5-3.8 us on the goal problem
levers: {PDL: [0, 1]}
*/

// v7 fills the chip by halving the rows of a CTA: each byte of K and V is then read by 16 CTAs, and the tensor cores do half their
// work on zeros. Here two CTAs of a cluster share 64 rows, each with 256 of the keys: half the bytes a CTA (72 KB), full products. Each
// of the four warpgroups has 64 rows against one set of 128 keys, with its own maximum and sum.
//
// The price is a combine between SMs. Every warpgroup finishes 16 of the 64 columns and gets the others' partial results for them:
// normalised and rounded to the output's type, so that 16 bytes are all that a thread sends to each other warpgroup, plus 16 bytes
// a row pair of maximum and sum. To the peer they go by st.async, which counts bytes at a barrier over there; a CTA
// leaves when its own have arrived, after which nobody writes into it. Rounding three of four partial results costs accuracy: for
// normal inputs they are twice as large as their mean and weigh a quarter each, so they add sqrt(3) / 2 of one rounding's error. Of what
// verify allows, v6 needs 0.58 in its worst case, this kernel 0.74 to 0.88, as the inputs are drawn.
//
// Predicted on an H200 at 1.98 GHz: launch of clusters 1.25 us, 0.35 us outside the kernel's clock; K after 1000 cycles; scores 516
// for both warpgroups; maximum 240; exponentials 1024 against products with V 516, 1150 together; 9 KB to the peer at 16 B/clk and
// its latency 750; finish and store 250: 3900 cycles, 2.0 us; together 3.5-3.8 us warm.
// Measured there: 4.09 us warm, 4.78 us stream, above the range, and the fastest of the ladder: 1.12 times as fast as v6. Warps wait for
// data 32 % of the time. v7 gets 17.3 MB through its SMs' copy engines but takes only 8.3 MB out of L2: two SMs side by side ask for the
// same keys, and are answered once. Here they are a cluster and want different halves, so 9.4 MB cost 12.2 MB of L2's, and the loads are
// hardly sooner done. Not kept: clusters of four, two row tiles by two halves, whose neighbours would share (not all fit at once, so some
// wait for a second wave); keys in smaller boxes; V later; a maximum of the first 64 keys that is corrected only when it grows a lot; some
// exponentials as polynomials.
//
// One thread makes all barriers, in one branch with the wait for the launch before: where ptxas lets the whole warp make them, to the
// same effect, racecheck takes that for a race.
//
// New against v6: clusters, st.async, partial results as halves. What is left on the table: the exchange is pure latency.

#include "sdpa_cluster.cuh"
#include "sdpa_hopper.cuh"
#include "sdpa_launch.cuh"
#include "sdpa_mma.cuh"
#include "sdpa_wgmma.cuh"

#ifndef PDL
#define PDL 0 // 1: programmatic dependent launch
#endif
static_assert(PDL == 0 || PDL == 1, "PDL must be 0 or 1");

#if defined(__CUDA_ARCH__) && !SDPA_HOPPER
#define CLUSTER_OF_TWO // other architectures have no clusters; nothing is launched there
#else
#define CLUSTER_OF_TWO __cluster_dims__(2, 1, 1)
#endif

constexpr int DIM = 64, BLOCK_Q = 64, SET = 128, CLUSTER = 2, NUM_GROUPS = 2, NUM_SETS = CLUSTER * NUM_GROUPS;
constexpr int MAX_KEYS = SET * NUM_SETS;
constexpr int GROUP_THREADS = 128, NUM_THREADS = GROUP_THREADS * NUM_GROUPS;
[[maybe_unused]] constexpr int PART = DIM / NUM_SETS / 2; // accumulators of the columns that one warpgroup finishes, 16 columns of two rows

template <typename T> struct Shared {
  alignas(1024) T Q[BLOCK_Q][DIM];             // this and the next two: rows of 128 bytes, swizzled by the copy engine
  alignas(1024) T K[NUM_GROUPS][SET][DIM];
  alignas(1024) T V[NUM_GROUPS][SET][DIM];
  uint4 O[NUM_GROUPS][NUM_SETS][GROUP_THREADS]; // for each warpgroup here, from each set: 8 elements of T a thread
  float4 stats[NUM_SETS][GROUP_THREADS / 4];   // of each set, a pair of rows: maximum and sum, maximum and sum
  uint64_t Q_full, K_full[NUM_GROUPS], V_full[NUM_GROUPS], exchanged;
};

[[maybe_unused]] constexpr int BYTES_FROM_PEER = NUM_GROUPS * NUM_GROUPS * GROUP_THREADS * 16 + NUM_GROUPS * GROUP_THREADS / 4 * 16;

// Grid (2 x q tiles, heads_q, batch), clusters of two along x. MASKED: causal, or other than 512 keys.
template <typename T, bool MASKED>
__global__ void CLUSTER_OF_TWO __launch_bounds__(NUM_THREADS, 1)
    sdpa_cluster(const __grid_constant__ tiled_problem p, const __grid_constant__ CUtensorMap Q_map,
                 const __grid_constant__ CUtensorMap K_map, const __grid_constant__ CUtensorMap V_map) {
#if SDPA_HOPPER
  extern __shared__ __align__(1024) unsigned char shared_memory[];
  Shared<T> &smem = *reinterpret_cast<Shared<T> *>(shared_memory);

  const int batch = blockIdx.z, head = blockIdx.y, q0 = blockIdx.x / CLUSTER * BLOCK_Q;
  const uint32_t rank = cluster_rank(), peer = rank ^ 1;
  const int warp = warp_index(), lane = threadIdx.x % 32;
  const int group = warp / 4, set = rank * NUM_GROUPS + group;
  const int kv_end = MASKED ? p.causal ? min(min(q0 + BLOCK_Q, p.seq_q), p.seq_kv) : p.seq_kv : MAX_KEYS;
  const bool has_keys = !MASKED || set * SET < kv_end;

  // One thread makes the barriers and fetches all: Q and K first.
  const bool loader = warp == 0 && elect_one();
  if (loader) {
    mbarrier_init(&smem.Q_full, 1);
    mbarrier_init(&smem.exchanged, 1);
#pragma unroll
    for (int g = 0; g < NUM_GROUPS; ++g) {
      mbarrier_init(&smem.K_full[g], 1);
      mbarrier_init(&smem.V_full[g], 1);
    }
    mbarrier_init_fence();
    if (PDL) {
      allow_next_launch();
      wait_for_previous_launch();
    }
    const int kv_head = kv_head_of(p, head), first_set = rank * NUM_GROUPS;
    mbarrier_expect(&smem.Q_full, sizeof smem.Q);
    tma_load(smem.Q, &Q_map, &smem.Q_full, 0, q0, head, batch);
#pragma unroll
    for (int g = 0; g < NUM_GROUPS; ++g)
      if (!MASKED || (first_set + g) * SET < kv_end) {
        mbarrier_expect(&smem.K_full[g], sizeof smem.K[0]);
        tma_load(smem.K[g], &K_map, &smem.K_full[g], 0, (first_set + g) * SET, kv_head, batch);
      }
#pragma unroll
    for (int g = 0; g < NUM_GROUPS; ++g)
      if (!MASKED || (first_set + g) * SET < kv_end) {
        mbarrier_expect(&smem.V_full[g], sizeof smem.V[0]);
        tma_load(smem.V[g], &V_map, &smem.V_full[g], 0, (first_set + g) * SET, kv_head, batch);
      }
    mbarrier_expect(&smem.exchanged, BYTES_FROM_PEER);
  } else if (PDL) {
    allow_next_launch();
    wait_for_previous_launch();
  }
  __syncthreads();          // nobody here waits at a barrier before it is made,
  cluster_arrive_relaxed(); // and nobody over there counts bytes at one

  // S = Q K^T, the 128 keys of this warpgroup.
  float S[SET / 2];
  mbarrier_wait(&smem.Q_full, 0);
  cluster_wait(); // the peer has made its barrier; known here, where the wait for K hides it
  if (has_keys) {
    const uint64_t Q_matrix = matrix_descriptor(smem.Q), K_matrix = matrix_descriptor(smem.K[group]);
    mbarrier_wait(&smem.K_full[group], 0);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < DIM / 16; ++k)
      wgmma_m64n128k16_ss<T>(S, Q_matrix + k * STEP_ALONG_ROW, K_matrix + k * STEP_ALONG_ROW, k > 0);
    wgmma_commit();
    wgmma_wait<0>();
    pin(S);
  }

  // This thread's two rows of the tile, and where its column pairs begin.
  const int row = warp % 4 * 16 + lane / 4, column = lane % 4 * 2;
  if (MASKED && (set + 1) * SET > (p.causal ? min(q0 + 1, p.seq_kv) : p.seq_kv)) {
#pragma unroll
    for (int e = 0; e < SET / 2; ++e) {
      const int key = set * SET + e / 4 * 8 + column + e % 2;
      const int seen = p.causal ? min(q0 + row + e / 2 % 2 * 8 + 1, p.seq_kv) : p.seq_kv;
      if (key >= seen) S[e] = -INFINITY; // also where no product was made: rows that are stored see nothing of that set
    }
  }
  float row_max[2] = {-INFINITY, -INFINITY}, row_sum[2] = {0.0f, 0.0f};
#pragma unroll
  for (int e = 0; e < SET / 2; ++e) row_max[e / 2 % 2] = fmaxf(row_max[e / 2 % 2], S[e]); // passes over NaN: the exponential does not
  // The maximum is scaled, and rounded, once, so that all that is shifted by it is shifted alike. A row that has seen nothing has none, and
  // (-inf) - (-inf) would be NaN.
  float shift[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    row_max[r] = quad_max(row_max[r]) * p.scale;
    shift[r] = row_max[r] == -INFINITY ? 0.0f : row_max[r];
  }

  // O = P V, 16 keys at a time; a product runs while the next weights are computed.
  float O[DIM / 2] = {};
  if (has_keys) {
    const uint64_t V_matrix = matrix_descriptor(smem.V[group]);
#pragma unroll
    for (int k = 0; k < SET / 16; ++k) {
      uint32_t P[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) { // pairs: this thread's two rows, then the same 8 keys further on
        const float low = exp2_approx(fmaf(S[8 * k + 2 * e], p.scale, -shift[e % 2]));
        const float high = exp2_approx(fmaf(S[8 * k + 2 * e + 1], p.scale, -shift[e % 2]));
        row_sum[e % 2] += low + high;
        P[e] = pack2<T>(low, high);
      }
      if (k == 0) mbarrier_wait(&smem.V_full[group], 0);
      wgmma_fence();
      wgmma_m64n64k16_rs_down<T>(O, P, V_matrix + k * STEP_DOWN_ROWS, true);
      wgmma_commit();
    }
  }

  // Maxima and sums go ahead while the last products run.
  const int thread = threadIdx.x % GROUP_THREADS;
  const uint32_t exchanged = remote_address(&smem.exchanged, peer);
  float inverse[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    row_sum[r] = quad_sum(row_sum[r]);
    inverse[r] = row_sum[r] == 0.0f ? 0.0f : reciprocal(row_sum[r]);
  }
  if (lane % 4 == 0) {
    const float4 stats = make_float4(row_max[0], row_sum[0], row_max[1], row_sum[1]);
    smem.stats[set][thread / 4] = stats;
    store_async(remote_address(&smem.stats[set][thread / 4], peer),
                make_uint4(__float_as_uint(stats.x), __float_as_uint(stats.y), __float_as_uint(stats.z), __float_as_uint(stats.w)), exchanged);
  }
  wgmma_wait<0>();
  pin(O);

  // Columns 16 s .. 16 s + 15 are finished by the warpgroup of set s, which gets them from the three others as 8 elements a thread.
#pragma unroll
  for (int part = 0; part < NUM_SETS; ++part) {
    const float *from = O + part * PART;
    const uint4 partial = make_uint4(pack2<T>(from[0] * inverse[0], from[1] * inverse[0]), pack2<T>(from[2] * inverse[1], from[3] * inverse[1]),
                                     pack2<T>(from[4] * inverse[0], from[5] * inverse[0]), pack2<T>(from[6] * inverse[1], from[7] * inverse[1]));
    uint4 *to = &smem.O[part % NUM_GROUPS][set][thread];
    if (part / NUM_GROUPS != rank) {
      store_async(remote_address(to, peer), partial, exchanged);
    } else if (part != set) {
      *to = partial;
    }
  }
  float sum[PART];
#pragma unroll
  for (int i = 0; i < PART; ++i) sum[i] = set == 0 ? O[i] : set == 1 ? O[PART + i] : set == 2 ? O[2 * PART + i] : O[3 * PART + i];
  __syncthreads();                   // what the other warpgroup here has written,
  mbarrier_wait_cluster(&smem.exchanged, 0); // and what came from the peer

  float4 stats[NUM_SETS];
#pragma unroll
  for (int s = 0; s < NUM_SETS; ++s) stats[s] = smem.stats[s][thread / 4];
  const float all_max[2] = {fmaxf(fmaxf(stats[0].x, stats[1].x), fmaxf(stats[2].x, stats[3].x)),
                            fmaxf(fmaxf(stats[0].z, stats[1].z), fmaxf(stats[2].z, stats[3].z))};
  float all_sum[2] = {0.0f, 0.0f}, weight[NUM_SETS][2];
#pragma unroll
  for (int s = 0; s < NUM_SETS; ++s) {
    weight[s][0] = exp2_approx(stats[s].x - all_max[0]) * stats[s].y;
    weight[s][1] = exp2_approx(stats[s].z - all_max[1]) * stats[s].w;
    all_sum[0] += weight[s][0], all_sum[1] += weight[s][1];
  }
  float normalise[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    normalise[r] = reciprocal(all_sum[r]);
    const float own = exp2_approx(row_max[r] - all_max[r]);
#pragma unroll
    for (int i = 0; i < PART; ++i)
      if (i / 2 % 2 == r) sum[i] *= own;
  }
#pragma unroll
  for (int s = 0; s < NUM_SETS; ++s)
    if (s != set) {
      const uint4 partial = smem.O[group][s][thread];
      const uint32_t pairs[4] = {partial.x, partial.y, partial.z, partial.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float2 pair = unpack2<T>(pairs[i]);
        sum[2 * i] += pair.x * weight[s][i % 2], sum[2 * i + 1] += pair.y * weight[s][i % 2];
      }
    }
  uint32_t out[4]; // pairs of columns: row `row` of both fragments, then row `row + 8`
#pragma unroll
  for (int i = 0; i < 4; ++i)
    out[i % 2 * 2 + i / 2] = pack2<T>(sum[2 * i] * normalise[i % 2], sum[2 * i + 1] * normalise[i % 2]);
  quad_transpose(out); // 16 bytes a lane: lanes 0 and 1 of a quad row `row`, lanes 2 and 3 row `row + 8`
  const int q = q0 + row + lane % 4 / 2 * 8;
  T *O_row = (T *)p.o + batch * p.o_stride[0] + head * p.o_stride[1] + q * p.o_stride[2];
  if (q < p.seq_q) *(uint4 *)(O_row + set * 16 + lane % 2 * 8) = make_uint4(out[0], out[1], out[2], out[3]);
#endif
}

static dim3 grid_of(const sdpa_problem &p) { return dim3((p.seq_q + BLOCK_Q - 1) / BLOCK_Q * CLUSTER, p.heads_q, p.batch); }

static bool masked(const sdpa_problem &p) { return p.causal || p.seq_kv != MAX_KEYS; }

template <typename F> static auto with_kernel(const sdpa_problem &p, F f) {
  if (p.dtype == SDPA_FP16) return masked(p) ? f(sdpa_cluster<__half, true>) : f(sdpa_cluster<__half, false>);
  return masked(p) ? f(sdpa_cluster<__nv_bfloat16, true>) : f(sdpa_cluster<__nv_bfloat16, false>);
}

// What is used, and as much as keeps a second CTA off the SM: two of them would share its exponential unit while other SMs have none.
constexpr int SHARED_BYTES = 116 * 1024;
static_assert(SHARED_BYTES >= sizeof(Shared<__half>) && SHARED_BYTES >= sizeof(Shared<__nv_bfloat16>), "the arrays must fit");

static const char *oneshot_reason(const sdpa_problem &p) {
  if (p.head_dim != DIM) return "head_dim must be 64: the keys of a head must fit into two CTAs' shared memory whole";
  if (p.seq_kv > MAX_KEYS) return "seq_kv must be at most 512: the keys of a head must fit into two CTAs' shared memory whole";
  return nullptr;
}

const char *sdpa_supports(const sdpa_problem *p) {
  if (const char *reason = sizes_reason(*p)) return reason;
  if (const char *reason = instance_reason(*p)) return reason;
  if (const char *reason = oneshot_reason(*p)) return reason;
  return hopper_kernel_reason(*p);
}

size_t sdpa_workspace_bytes(const sdpa_problem *) { return 0; }

int sdpa_launch(const sdpa_problem *problem, void *stream) {
  const sdpa_problem &p = *problem;
  const tensor_maps maps(p, BLOCK_Q, SET);
  if (maps.error) return maps.error;
  return with_kernel(p, [&](auto kernel) {
    return launch_kernel(kernel, grid_of(p), NUM_THREADS, SHARED_BYTES, stream, PDL, tiled(p), maps.Q, maps.K, maps.V);
  });
}

int sdpa_describe(const sdpa_problem *problem, sdpa_launch_info *info, int capacity) {
  const sdpa_problem &p = *problem;
  if (sizes_reason(p) || instance_reason(p) || oneshot_reason(p) || capacity < 1) return 0;
  const dim3 grid = grid_of(p);
  const bool fp16 = p.dtype == SDPA_FP16;
  *info = {{(int)grid.x, (int)grid.y, (int)grid.z}, {NUM_THREADS, 1, 1}, SHARED_BYTES,
           fp16 ? (masked(p) ? "sdpa_clusterI6__halfLb1E" : "sdpa_clusterI6__halfLb0E")
                : (masked(p) ? "sdpa_clusterI13__nv_bfloat16Lb1E" : "sdpa_clusterI13__nv_bfloat16Lb0E")};
  return 1;
}
