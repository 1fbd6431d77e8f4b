/* CTAs that stay on their SM and go from one piece of work to the next, as v9 and its children have them: how a problem is cut into pieces,
 * in which order each CTA takes them, and the shared memory in which one warp puts tiles for the warpgroups that multiply. */
#ifndef SDPA_PERSISTENT_CUH
#define SDPA_PERSISTENT_CUH

#include <type_traits>

#include "sdpa_device.cuh"
#include "sdpa_dtype.cuh"
#include "sdpa_tma.cuh"

constexpr int GROUP_ROWS = 64, GROUP_THREADS = 128; // the M of wgmma, and who holds it
constexpr int BLOCK_KV = 128;                       // keys in a tile, the N of Q K^T

// Who does what, and how many registers a thread has then: together at most the 64 K of an SM.
template <int NUM_GROUPS> struct Roles {
  static constexpr int GROUPS = NUM_GROUPS; // that multiply; one more fetches
  static constexpr int BLOCK_Q = GROUPS * GROUP_ROWS, NUM_THREADS = (GROUPS + 1) * GROUP_THREADS;
  static constexpr int FETCHING_REGISTERS = GROUPS == 3 ? 32 : 40, MULTIPLYING_REGISTERS = GROUPS == 3 ? 160 : 232;
};

// ---- Device: tiles in shared memory ----------------------------------------------------------------------------------

// Shared memory of a CTA: boxes of 64 columns as TMA writes and wgmma reads them, each at a multiple of 1024 bytes. Fetched tiles go through
// KV_STAGES places of K, and as many of V.
template <typename T, int DIM, int GROUPS, int KV_STAGES> struct Shared {
  static constexpr int BOXES = DIM / BOX_COLUMNS;
  static constexpr int Q_STAGES = DIM == 64 || KV_STAGES == 2 ? 2 : 1; // this work's rows and the next one's, where both fit
  alignas(1024) T Q[Q_STAGES][BOXES][GROUPS * GROUP_ROWS][BOX_COLUMNS];
  alignas(1024) T K[KV_STAGES][BOXES][BLOCK_KV][BOX_COLUMNS];
  alignas(1024) T V[KV_STAGES][BOXES][BLOCK_KV][BOX_COLUMNS];
  uint64_t Q_full[Q_STAGES], K_full[KV_STAGES], V_full[KV_STAGES];    // one arrival, that announces the bytes, and the bytes
  uint64_t Q_empty[Q_STAGES], K_empty[KV_STAGES], V_empty[KV_STAGES]; // an arrival of each warp that multiplies

  // One thread calls it, before a barrier of all.
  __device__ __forceinline__ void init_barriers() {
#pragma unroll
    for (int stage = 0; stage < Q_STAGES; ++stage) {
      mbarrier_init(&Q_full[stage], 1);
      mbarrier_init(&Q_empty[stage], GROUPS * 4);
    }
#pragma unroll
    for (int stage = 0; stage < KV_STAGES; ++stage) {
      mbarrier_init(&K_full[stage], 1);
      mbarrier_init(&V_full[stage], 1);
      mbarrier_init(&K_empty[stage], GROUPS * 4);
      mbarrier_init(&V_empty[stage], GROUPS * 4);
    }
    mbarrier_init_fence();
  }
};
constexpr int ALIGNMENT_SLACK = 1024 - 128; // dynamic shared memory starts at a multiple of 128; the kernel rounds up

// A place in a ring of stages, and the parity of its barriers there.
template <int LENGTH> struct Place {
  int stage = 0, parity = 0;
  __device__ __forceinline__ void advance() {
    if (++stage == LENGTH) stage = 0, parity ^= 1;
  }
};

// ---- Device: which work ----------------------------------------------------------------------------------------------

// What there is to do. Work number i is a q tile of a head; heads of all batches count through.
typedef struct {
  uint32_t num_work, q_tiles, num_heads, heads_q;
  uint32_t heads_at_once; // a section: q tiles of these heads go side by side
  uint32_t last_section;
} schedule;

typedef struct {
  int batch, head, q0, num_tiles; // first query row, tiles of keys
} work_item;

// Top-left causal: row i sees keys 0 .. i. Tiles that no row of the work sees are not even fetched. From one section to the next the order of
// q tiles turns round, so that work is nowhere much shorter or longer than its neighbours', and the last section ends with the shortest.
template <int BLOCK_Q> __device__ __forceinline__ work_item work_of(const schedule &s, const tiled_problem &p, uint32_t number) {
  const uint32_t section = number / (s.heads_at_once * s.q_tiles), first_head = section * s.heads_at_once;
  const uint32_t heads = min(s.heads_at_once, s.num_heads - first_head), place = number - first_head * s.q_tiles;
  const uint32_t within = (s.last_section - section) % 2 ? heads * s.q_tiles - 1 - place : place;
  const uint32_t q_tile = within / heads, flat_head = first_head + within - q_tile * heads;
  const int batch = flat_head / s.heads_q, q0 = (p.causal ? s.q_tiles - 1 - q_tile : q_tile) * BLOCK_Q;
  const int kv_end = p.causal ? min(min(q0 + BLOCK_Q, p.seq_q), p.seq_kv) : p.seq_kv;
  return {batch, (int)(flat_head - batch * s.heads_q), q0, (kv_end + BLOCK_KV - 1) / BLOCK_KV};
}

// The CTA's work of a round. Where work gets shorter (or longer) from number to number, going backwards every other time evens it out.
__device__ __forceinline__ uint32_t work_number(uint32_t round) {
  return round * gridDim.x + (round % 2 ? gridDim.x - 1 - blockIdx.x : blockIdx.x);
}

// ---- Host: how a problem is cut up -----------------------------------------------------------------------------------

// Asked for once a launch, since every question about the device takes time on the host.
typedef struct {
  int groups, block_q; // warpgroups that multiply, and the rows that they have
  int q_tiles;
  int64_t num_work;
  unsigned ctas;
} division;

// For CTAs of so many warpgroups, of which `places` run at once.
static division divided(const sdpa_problem &p, int groups, int64_t places) {
  const int rows = groups * GROUP_ROWS, q_tiles = (int)(((int64_t)p.seq_q + rows - 1) / rows);
  const int64_t work = (int64_t)q_tiles * p.heads_q * p.batch;
  return {groups, rows, q_tiles, work, (unsigned)(work < places ? work : places)};
}

static const char *division_reason(const division &d) {
  return d.num_work >= (int64_t)1 << 31 ? "batch x heads x query tiles must be below 2^31: work is counted in 32 bits" : nullptr;
}

static schedule schedule_of(const sdpa_problem &p, const division &d) {
  // Causal: K and V of the heads that go side by side take at most a third of an H200's L2, so that they are fetched from memory once.
  constexpr int64_t L2_SHARE = 16 << 20;
  const int64_t head_bytes = (int64_t)p.seq_kv * p.head_dim * 2 * 2, group = p.heads_q / p.heads_kv, heads = (int64_t)p.heads_q * p.batch;
  int64_t at_once = p.causal ? L2_SHARE / head_bytes * group : 1;
  at_once = at_once < 1 ? 1 : at_once > heads ? heads : at_once;
  return {(uint32_t)d.num_work, (uint32_t)d.q_tiles, (uint32_t)heads, (uint32_t)p.heads_q, (uint32_t)at_once, (uint32_t)((heads - 1) / at_once)};
}

#endif
