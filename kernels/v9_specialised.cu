/* evo-sdpa
title: one warp fetches, warpgroups take turns
parent: v5_wgmma
idea: while one warpgroup has the tensor cores the others are in their softmax; a warp of its own fetches; CTAs stay and go from tile to tile
expects: 6-7.5 us on the goal problem, for which it is not made; 560-640 TFLOP/s on b4h16s4096d128-fp16
levers: {PING_PONG: [0, 1], STAGES: [2, 3]}
*/

// For long sequences, after FlashAttention-3. A CTA has one warp that fetches and two (head_dim 128) or three (head_dim 64) warpgroups of
// 64 query rows each, which share the tiles of 128 keys. The fetching warp gives its registers away (setmaxnreg), so that scores, weights
// and output of a warpgroup fit. It asks for K a tile before V, as they are needed, and for the next work's tiles while the warpgroups
// are still at this one's end.
//
// A tile of a warpgroup, from the last keys to the first, so that masks are done with at the beginning:
//
//     tensor cores   Q K^T (next) | P V (this)          |
//     the rest                    | maximum, exp (next) | pack P, rescale O
//
// That alone leaves the tensor cores without work while P is packed and O rescaled, and all warpgroups would do so at the same time. So
// they take turns (PING_PONG): each asks for its products only when the one before it has, and then the one after it may. Whoever
// waits for its turn is in its softmax meanwhile.
//
// As many CTAs as SMs. Each goes through work (64 rows of a warpgroup times two or three, a head) in a fixed order, every other round
// backwards, and has the next work's rows of Q fetched while it is at this one's. Causal: so many heads side by side that their K and V stay
// in L2, the longest work of them first or last by turns, so that it adds up to the same for every CTA; not causal: a head after the other.
//
// Predicted on an H200: a tile of head_dim 128 is 1,030 clk on the tensor cores for each warpgroup (8 products of 64 and 16 of 32),
// and 64 exponentials a thread are 512 on the special-function unit, which with maximum, sum, packing and rescaling at one instruction a
// clk makes some 900: less than the other warpgroup's 1,030, so the tensor cores should hardly ever wait. At 1.7 GHz, which is what power
// (700 W) leaves, they could do 914 TFLOP/s; two thirds of it, 560-640, is what waits at barriers and the ends of work are thought to leave.
// At head_dim 64 products are 515 clk and the softmax 850, of which 512 on the special-function unit; three warpgroups share both, 1,545 of
// products and 1,536 of exponentials a round, so neither hides the other: half, 420-470. On the goal problem 24 CTAs are each in v5's
// chain: 6-7.5 us.
// Measured there: 857.5 us on b4h16s4096d128-fp16, 641 TFLOP/s, at the upper end. On the goal problem 10.7 us, far above: whatever a CTA does
// before its first product and after its last one is hidden by nothing where each has one piece of work, and with 192 rows a CTA few SMs
// have any. v10 is made of that. At head_dim 64 an earlier sweep (recorded in commit eff64eb) found 496 TFLOP/s on b4h16s4096d64-fp16, above the range.
//
// New against v5: the fetching warp, turns, registers that move, CTAs that stay, the last keys first. What is left on the table: rows that
// are behind the end of seq_q are computed like others, so that short problems waste up to two thirds of the work; the head's K and V
// are fetched by every CTA for itself (no multicast).

#include <type_traits>

#include "sdpa_dtype.cuh"
#include "sdpa_hopper.cuh"
#include "sdpa_launch.cuh"
#include "sdpa_mma.cuh"
#include "sdpa_persistent.cuh"
#include "sdpa_specialised.cuh"
#include "sdpa_wgmma.cuh"

#ifndef PING_PONG
#define PING_PONG 1 // 1: warpgroups take turns with the tensor cores
#endif
#ifndef STAGES
#define STAGES 2 // tiles of K, and of V, in shared memory
#endif
static_assert(PING_PONG == 0 || PING_PONG == 1, "PING_PONG must be 0 or 1");
static_assert(STAGES == 2 || STAGES == 3, "STAGES must be 2 or 3");

// Of head_dim 64 the registers are there for three warpgroups, which read K and V less often.
template <int DIM> using RolesOf = Roles<DIM == 64 ? 3 : 2>;
template <typename T, int DIM> using SharedOf = Shared<T, DIM, RolesOf<DIM>::GROUPS, STAGES>;

template <typename T, int DIM>
__global__ void __launch_bounds__(RolesOf<DIM>::NUM_THREADS, 1)
    sdpa_specialised(const __grid_constant__ tiled_problem p, const __grid_constant__ schedule s,
                     const __grid_constant__ CUtensorMap Q_map, const __grid_constant__ CUtensorMap K_map,
                     const __grid_constant__ CUtensorMap V_map) {
#if SDPA_HOPPER
  using Smem = SharedOf<T, DIM>;
  using R = RolesOf<DIM>;
  constexpr int BOXES = Smem::BOXES, Q_STAGES = Smem::Q_STAGES, STEPS_IN_BOX = BOX_COLUMNS / 16;
  extern __shared__ __align__(128) unsigned char shared_memory[];
  Smem &smem = *reinterpret_cast<Smem *>(shared_memory + (-smem_address(shared_memory) & 1023));

  const int warp = warp_index(), lane = threadIdx.x % 32, group = warp / 4;
  if (threadIdx.x == 0) smem.init_barriers();
  __syncthreads();

  if (group == R::GROUPS) { // the last warpgroup fetches
    give_registers<R::FETCHING_REGISTERS>();
    if (warp != R::GROUPS * 4 || !elect_one()) return;
    // A stage is asked for again when its readers have left. Of a barrier that nobody has arrived at yet the phase before counts as
    // complete, so the first time round there is no wait.
    constexpr int TILE_BYTES = BLOCK_KV * DIM * sizeof(T), Q_BYTES = R::BLOCK_Q * DIM * sizeof(T);
    Place<Q_STAGES> Q_place;
    Place<STAGES> K_place, V_place;
    uint32_t number;
    for (uint32_t round = 0; (number = work_number(round)) < s.num_work; ++round, Q_place.advance()) {
      const work_item work = work_of<R::BLOCK_Q>(s, p, number);
      const int kv_head = kv_head_of(p, work.head);
      auto load = [&](T(&stages)[STAGES][BOXES][BLOCK_KV][BOX_COLUMNS], const CUtensorMap &map, uint64_t(&full)[STAGES],
                      uint64_t(&empty)[STAGES], Place<STAGES> &place, int tile) {
        mbarrier_wait(&empty[place.stage], place.parity ^ 1);
        mbarrier_expect(&full[place.stage], TILE_BYTES);
#pragma unroll
        for (int box = 0; box < BOXES; ++box)
          tma_load(stages[place.stage][box], &map, &full[place.stage], box * BOX_COLUMNS, tile * BLOCK_KV, kv_head, work.batch);
        place.advance();
      };
      load(smem.K, K_map, smem.K_full, smem.K_empty, K_place, work.num_tiles - 1);
      mbarrier_wait(&smem.Q_empty[Q_place.stage], Q_place.parity ^ 1);
      mbarrier_expect(&smem.Q_full[Q_place.stage], Q_BYTES);
#pragma unroll
      for (int box = 0; box < BOXES; ++box)
        tma_load(smem.Q[Q_place.stage][box], &Q_map, &smem.Q_full[Q_place.stage], box * BOX_COLUMNS, work.q0, work.head, work.batch);
      for (int tile = work.num_tiles - 1; tile >= 0; --tile) {
        if (tile > 0) load(smem.K, K_map, smem.K_full, smem.K_empty, K_place, tile - 1);
        load(smem.V, V_map, smem.V_full, smem.V_empty, V_place, tile);
      }
    }
    return;
  }

  take_registers<R::MULTIPLYING_REGISTERS>();

  // Turns: barrier 1 + g is where warpgroup g waits for the one before it. The first turn is warpgroup 0's.
  auto wait_for_turn = [&] {
    if (PING_PONG) named_barrier(1 + group, 2 * GROUP_THREADS);
  };
  auto pass_turn = [&] {
    if (PING_PONG) named_barrier_arrive(1 + (group + 1 == R::GROUPS ? 0 : group + 1), 2 * GROUP_THREADS);
  };
  if (group == R::GROUPS - 1) pass_turn();

  const int group_row = group * GROUP_ROWS, row = warp * 16 + lane / 4, column = lane % 4 * 2; // in the work; this lane has row + 8 too
  Place<Q_STAGES> Q_place;
  Place<STAGES> K_place, V_place;
  auto leave = [&](uint64_t &empty) {
    if (lane == 0) mbarrier_arrive(&empty);
  };

  uint32_t number;
  for (uint32_t round = 0; (number = work_number(round)) < s.num_work; ++round, Q_place.advance()) {
    const work_item work = work_of<R::BLOCK_Q>(s, p, number);

    float S[BLOCK_KV / 2], O_rmem[BOXES][32];
    uint32_t P[BLOCK_KV / 16][4];
    float row_max[2] = {-INFINITY, -INFINITY}; // of unscaled scores, which is in the same place for a scale above 0
    float row_sum[4] = {};                     // of this lane's columns: even and odd ones of each row
#pragma unroll
    for (int box = 0; box < BOXES; ++box)
#pragma unroll
      for (int i = 0; i < 32; ++i) O_rmem[box][i] = 0.0f;

    // S = Q K^T of the next tile of K, a group of products. k runs along the rows of both.
    auto start_scores = [&] {
      mbarrier_wait(&smem.K_full[K_place.stage], K_place.parity);
      wgmma_fence();
#pragma unroll
      for (int box = 0; box < BOXES; ++box) {
        const uint64_t Q_tile = matrix_descriptor(smem.Q[Q_place.stage][box][group_row]), K_tile = matrix_descriptor(smem.K[K_place.stage][box]);
#pragma unroll
        for (int k = 0; k < STEPS_IN_BOX; ++k)
          wgmma_m64n128k16_ss<T>(S, Q_tile + k * STEP_ALONG_ROW, K_tile + k * STEP_ALONG_ROW, box > 0 || k > 0);
      }
      wgmma_commit();
    };
    auto end_scores = [&] { // as soon as the products have ended, however many are under way after them
      pin(S);
      leave(smem.K_empty[K_place.stage]);
      K_place.advance();
    };

    // O += P V of the next tile of V, a group of products. k runs down the rows of V.
    auto start_values = [&] {
      mbarrier_wait(&smem.V_full[V_place.stage], V_place.parity);
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < BLOCK_KV / 16; ++k)
#pragma unroll
        for (int box = 0; box < BOXES; ++box)
          wgmma_m64n64k16_rs_down<T>(O_rmem[box], P[k], matrix_descriptor(smem.V[V_place.stage][box]) + k * STEP_DOWN_ROWS, true);
      wgmma_commit();
    };
    auto end_values = [&] {
      wgmma_wait<0>();
#pragma unroll
      for (int box = 0; box < BOXES; ++box) pin(O_rmem[box]);
#pragma unroll
      for (int k = 0; k < BLOCK_KV / 16; ++k) pin(P[k]);
      leave(smem.V_empty[V_place.stage]);
      V_place.advance();
    };

    auto mask = [&](int tile) {
#pragma unroll
      for (int r = 0; r < 2; ++r) { // from which column on
        const int limit = (p.causal ? min(work.q0 + row + 8 * r + 1, p.seq_kv) : p.seq_kv) - tile * BLOCK_KV - column;
#pragma unroll
        for (int i = 0; i < BLOCK_KV / 2; ++i)
          if (i / 2 % 2 == r && i / 4 * 8 + i % 2 >= limit) S[i] = -INFINITY;
      }
    };

    // S becomes weights. The difference comes before the scale, so that it is exact where it matters.
    float rescale[2];
    auto softmax = [&] {
      float tile_max[4] = {S[0], S[1], S[2], S[3]};
#pragma unroll
      for (int i = 4; i < BLOCK_KV / 2; ++i)
        tile_max[i % 4] = fmaxf(tile_max[i % 4], S[i]); // passes over NaN, which reaches the row through its exponential instead
      float shift[2];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float new_max = fmaxf(row_max[r], quad_max(fmaxf(tile_max[2 * r], tile_max[2 * r + 1])));
        // While a row has seen nothing there is no maximum to shift by, and (-inf) - (-inf) would be NaN.
        shift[r] = new_max == -INFINITY ? 0.0f : new_max;
        rescale[r] = exp2_approx((row_max[r] - shift[r]) * p.scale); // 0 on the first tile, 1 when the maximum stands
        row_max[r] = new_max;
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) row_sum[i] *= rescale[i / 2];
#pragma unroll
      for (int i = 0; i < BLOCK_KV / 2; ++i) {
        S[i] = exp2_approx((S[i] - shift[i / 2 % 2]) * p.scale);
        row_sum[i % 4] += S[i];
      }
    };
    auto pack = [&] {
#pragma unroll
      for (int k = 0; k < BLOCK_KV / 16; ++k)
#pragma unroll
        for (int i = 0; i < 4; ++i) P[k][i] = pack2<T>(S[8 * k + 2 * i], S[8 * k + 2 * i + 1]);
    };

    // From a tile to the one before it. Nothing is under way across the end of a step: ptxas would serialise all products if it had
    // to prove across branches that nobody touches their registers.
    auto step = [&](int tile, auto masked) {
      wait_for_turn();
      start_scores();
      start_values();
      pass_turn();
      wgmma_wait<1>();
      end_scores();
      if (decltype(masked)::value) mask(tile - 1);
      softmax();
      Place<STAGES> next = V_place;
      next.advance();
      pin(S);
      mbarrier_wait(&smem.V_full[next.stage], next.parity); // a branch: or ptxas would put the exponentials behind the next wait
      end_values();
      pack();
#pragma unroll
      for (int box = 0; box < BOXES; ++box)
#pragma unroll
        for (int i = 0; i < 32; ++i) O_rmem[box][i] *= rescale[i / 2 % 2];
    };

    mbarrier_wait(&smem.Q_full[Q_place.stage], Q_place.parity);
    int tile = work.num_tiles - 1;
    start_scores();
    wgmma_wait<0>();
    end_scores();
    mask(tile);
    softmax();
    pack();
    // All rows of the work see these, not only the warpgroup's: so the loops end alike for the whole CTA, and ptxas knows it.
    const int unmasked_keys = p.causal ? min(work.q0 + 1, p.seq_kv) : p.seq_kv;
    if (tile > 0 && tile * BLOCK_KV > unmasked_keys) step(tile--, std::true_type{});
    for (; tile > 0; --tile) step(tile, std::false_type{});
    leave(smem.Q_empty[Q_place.stage]);
    start_values();
    end_values();

    T *O = (T *)p.o + work.batch * p.o_stride[0] + work.head * p.o_stride[1]; // [seq_q, DIM]
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float sum = quad_sum(row_sum[2 * r] + row_sum[2 * r + 1]);
      const float normalise = sum == 0.0f ? 0.0f : reciprocal(sum); // no weight at all: 0; NaN stays NaN
      const int q = work.q0 + row + 8 * r;
#pragma unroll
      for (int box = 0; box < BOXES; ++box)
#pragma unroll
        for (int half = 0; half < 2; ++half) { // 32 columns: each lane of the quad leaves with 8 of them
          uint32_t out[4];
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const float *pair = &O_rmem[box][16 * half + 4 * i + 2 * r];
            out[i] = pack2<T>(pair[0] * normalise, pair[1] * normalise);
          }
          quad_transpose(out);
          if (q < p.seq_q)
            *(uint4 *)(O + q * p.o_stride[2] + box * BOX_COLUMNS + half * 32 + lane % 4 * 8) = make_uint4(out[0], out[1], out[2], out[3]);
        }
    }
  }
  if (group == 0) wait_for_turn(); // the last one passed: no barrier is left half full
#endif
}

static division division_of(const sdpa_problem &p) {
  return divided(p, p.head_dim == 64 ? RolesOf<64>::GROUPS : RolesOf<128>::GROUPS, num_sms());
}

static int shared_bytes(const sdpa_problem &p) {
  return with_instance(
      p, [](auto i) { return (int)sizeof(SharedOf<typename decltype(i)::T, decltype(i)::DIM>) + ALIGNMENT_SLACK; });
}

const char *sdpa_supports(const sdpa_problem *p) {
  if (const char *reason = sizes_reason(*p)) return reason;
  if (const char *reason = instance_reason(*p)) return reason;
  if (const char *reason = division_reason(division_of(*p))) return reason;
  if (const char *reason = hopper_kernel_reason(*p)) return reason;
  return shared_memory_reason(*p, shared_bytes(*p), "STAGES");
}

size_t sdpa_workspace_bytes(const sdpa_problem *) { return 0; }

int sdpa_launch(const sdpa_problem *problem, void *stream) {
  const sdpa_problem &p = *problem;
  const division d = division_of(p);
  const tensor_maps maps(p, d.block_q, BLOCK_KV);
  if (maps.error) return maps.error;
  const int bytes = shared_bytes(p);
  return with_instance(p, [&](auto instance) -> int {
    using I = decltype(instance);
    const auto kernel = sdpa_specialised<typename I::T, I::DIM>;
    return launch_kernel(kernel, dim3(d.ctas), RolesOf<I::DIM>::NUM_THREADS, bytes, stream, false, tiled(p), schedule_of(p, d), maps.Q, maps.K, maps.V);
  });
}

int sdpa_describe(const sdpa_problem *problem, sdpa_launch_info *info, int capacity) {
  if (sizes_reason(*problem) || instance_reason(*problem) || capacity < 1) return 0;
  const division d = division_of(*problem);
  const bool fp16 = problem->dtype == SDPA_FP16, dim64 = problem->head_dim == 64;
  *info = {{(int)d.ctas, 1, 1}, {(d.groups + 1) * GROUP_THREADS, 1, 1}, shared_bytes(*problem),
           fp16 ? (dim64 ? "sdpa_specialisedI6__halfLi64E" : "sdpa_specialisedI6__halfLi128E")
                : (dim64 ? "sdpa_specialisedI13__nv_bfloat16Li64E" : "sdpa_specialisedI13__nv_bfloat16Li128E")};
  return 1;
}
