/* evo-sdpa
title: nothing between the products
parent: v9_specialised
idea: a piece of work ends beside the next one's first scores; one multiply-add for each weight; two warpgroups where three compute far more
expects: 6.5-8.5 us on the goal problem, for which it is not made; 640-680 TFLOP/s on b4h16s4096d128-fp16
levers: {PING_PONG: [0, 1], STAGES: [2, 3], WARPGROUPS: [0, 2, 3], MAX_CTAS: [0, 3]}
*/

// v9's CTA: a warp that fetches, warpgroups of 64 query rows that take turns with the tensor cores, CTAs that stay. What lies between the products
// goes, as far as it can.
//
// Between pieces of work. In v9 a piece begins with products that nothing runs beside and a softmax, and ends with values and with stores of
// the output. Here all work of a CTA is one chain of tiles: the step that ends a piece has for its next scores those of the next piece's first
// tile, and stores the output where others rescale it.
//
//     tensor cores   Q K^T (next piece) | P V (this one's last tile) |
//     the rest                          | maximum, exp (next piece)  | normalise and store O, pack P
//
// With one stage for Q (head_dim 128, STAGES 3) the next piece's rows are fetched only then, so there the gap is smaller, not gone.
//
// Between scores and weights. A weight is 2^(scale x score - shift), one multiply-add and one exponential, as FlashAttention-2 has it. v9 subtracts
// first, so that the largest weight of a row is exactly 1 however large its score. Here it is off by the rounding of the shift: by less than
// fp16 can tell as long as scaled scores are below 2^12; by more than fp16's own rounding from 2^16 on; and from 2^28 on rows are no longer finite,
// or 0 where a scaled score is beyond FP32 (computed on a host, step by step).
//
// And of head_dim 64 two warpgroups instead of three, where that computes clearly less: with 192 rows a CTA the last ones of a head, the last
// round of the SMs or what lies above the diagonal is much of a short problem.
//
// MAX_CTAS is for the gate, whose problems are so small that no SM has a second piece: v10_gapless@MAX_CTAS=3 goes from piece to piece on all of
// them, nearly always with two warpgroups. Three go from piece to piece in the operator's checks and in the sweep.
//
// Predicted on an H200, from v9's times in an earlier sweep (recorded in commit eff64eb) and from SASS: a tile without a mask is 430 instructions of a
// warp for v9's 493 at head_dim 64, and 506 for 568 at head_dim 128. At head_dim 64, where a warpgroup's softmax is longer than the others' products, that is most
// of a tile: 510-560 TFLOP/s on b4h16s4096d64-fp16, of v9's 496. At head_dim 128 the tensor cores are what is waited for, yet they wait too:
// 640-680, of v9's 639. On b4h16s512d64-fp16, where a piece is four tiles and most SMs have two, v9 takes 19.0 us with 192 rows; 128 are two
// thirds of the work, and one of two gaps goes: 11.5-14. The goal problem has one piece a CTA, and so nothing to join; with 128 rows for
// 192 6.5-8.5 us for v9's 10.7.
// Measured there: 842.9 us on b4h16s4096d128-fp16, 652 TFLOP/s (v9: 857.5 us), and 8.04 us on the goal problem, both as predicted; in the sweep
// 509 TFLOP/s on b4h16s4096d64-fp16, and 14.2 us on b4h16s512d64-fp16, each just outside its range.
//
// What is left on the table: the first piece's gap; exponentials, which take as long as the products at head_dim 64, and of which some could be
// polynomials on the FMA pipe; K and V fetched by every CTA for itself (no multicast).

#include <type_traits>

#include "sdpa_dtype.cuh"
#include "sdpa_hopper.cuh"
#include "sdpa_launch.cuh"
#include "sdpa_mma.cuh"
#include "sdpa_persistent.cuh"
#include "sdpa_specialised.cuh"
#include "sdpa_store.cuh"
#include "sdpa_wgmma.cuh"

#ifndef PING_PONG
#define PING_PONG 1 // 1: warpgroups take turns with the tensor cores
#endif
#ifndef STAGES
#define STAGES 2 // tiles of K, and of V, in shared memory
#endif
#ifndef WARPGROUPS
#define WARPGROUPS 0 // that multiply, at head_dim 64; 0: two or three, as the problem is
#endif
#ifndef MAX_CTAS
#define MAX_CTAS 0 // 0: as many CTAs as SMs; else no more than this, so that each has many pieces of work where the problem is small
#endif
static_assert(PING_PONG == 0 || PING_PONG == 1, "PING_PONG must be 0 or 1");
static_assert(STAGES == 2 || STAGES == 3, "STAGES must be 2 or 3");
static_assert(WARPGROUPS == 0 || WARPGROUPS == 2 || WARPGROUPS == 3, "WARPGROUPS must be 0, 2 or 3");
static_assert(MAX_CTAS >= 0, "MAX_CTAS must be 0 or more");

template <typename T, int DIM, int GROUPS>
__global__ void __launch_bounds__(Roles<GROUPS>::NUM_THREADS, 1)
    sdpa_gapless(const __grid_constant__ tiled_problem p, const __grid_constant__ schedule s,
                 const __grid_constant__ CUtensorMap Q_map, const __grid_constant__ CUtensorMap K_map,
                 const __grid_constant__ CUtensorMap V_map) {
#if SDPA_HOPPER
  using Smem = Shared<T, DIM, GROUPS, STAGES>;
  using R = Roles<GROUPS>;
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
    auto load = [&](T(&stages)[STAGES][BOXES][BLOCK_KV][BOX_COLUMNS], const CUtensorMap &map, uint64_t(&full)[STAGES],
                    uint64_t(&empty)[STAGES], Place<STAGES> &place, const work_item &work, int tile) {
      mbarrier_wait(&empty[place.stage], place.parity ^ 1);
      mbarrier_expect(&full[place.stage], TILE_BYTES);
#pragma unroll
      for (int box = 0; box < BOXES; ++box)
        tma_load(stages[place.stage][box], &map, &full[place.stage], box * BOX_COLUMNS, tile * BLOCK_KV, kv_head_of(p, work.head), work.batch);
      place.advance();
    };
    auto load_K = [&](const work_item &work, int tile) { load(smem.K, K_map, smem.K_full, smem.K_empty, K_place, work, tile); };
    auto load_V = [&](const work_item &work, int tile) { load(smem.V, V_map, smem.V_full, smem.V_empty, V_place, work, tile); };
    auto load_Q = [&](const work_item &work) {
      mbarrier_wait(&smem.Q_empty[Q_place.stage], Q_place.parity ^ 1);
      mbarrier_expect(&smem.Q_full[Q_place.stage], Q_BYTES);
#pragma unroll
      for (int box = 0; box < BOXES; ++box)
        tma_load(smem.Q[Q_place.stage][box], &Q_map, &smem.Q_full[Q_place.stage], box * BOX_COLUMNS, work.q0, work.head, work.batch);
      Q_place.advance();
    };
    // K of a tile goes ahead of V, also from one piece of work to the next.
    work_item work = work_of<R::BLOCK_Q>(s, p, work_number(0));
    load_K(work, work.num_tiles - 1);
    load_Q(work);
    int tile = work.num_tiles - 1;
    for (uint32_t round = 0;;) {
      const work_item of_V = work;
      const int tile_of_V = tile;
      bool more = true, other_work = false;
      if (--tile < 0) {
        const uint32_t number = work_number(++round);
        other_work = more = number < s.num_work;
        if (more) work = work_of<R::BLOCK_Q>(s, p, number), tile = work.num_tiles - 1;
      }
      if (more) load_K(work, tile);
      load_V(of_V, tile_of_V);
      if (!more) break;
      if (other_work) load_Q(work); // last: where Q has one stage it is free only when the warpgroups have had this V's barrier
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

  float S[BLOCK_KV / 2], O_rmem[BOXES][32] = {};
  uint32_t P[BLOCK_KV / 16][4];
  float row_shift[2] = {-INFINITY, -INFINITY}; // weights are 2^(scale x score - shift)
  float row_sum[4] = {};                       // of this lane's columns: even and odd ones of each row

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

  auto mask = [&](const work_item &work, int tile) {
#pragma unroll
    for (int r = 0; r < 2; ++r) { // from which column on
      const int limit = (p.causal ? min(work.q0 + row + 8 * r + 1, p.seq_kv) : p.seq_kv) - tile * BLOCK_KV - column;
#pragma unroll
      for (int i = 0; i < BLOCK_KV / 2; ++i)
        if (i / 2 % 2 == r && i / 4 * 8 + i % 2 >= limit) S[i] = -INFINITY;
    }
  };

  // S becomes weights; `rescale` is what the weights before are to be multiplied by. No contraction where the shift is made: what weights are
  // shifted by must be the number that the next tile takes for it.
  float rescale[2];
  auto softmax = [&] {
    float tile_max[4] = {S[0], S[1], S[2], S[3]};
#pragma unroll
    for (int i = 4; i < BLOCK_KV / 2; ++i)
      tile_max[i % 4] = fmaxf(tile_max[i % 4], S[i]); // passes over NaN, which reaches the row through its exponential instead
    float shift[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float top = __fmul_rn(quad_max(fmaxf(tile_max[2 * r], tile_max[2 * r + 1])), p.scale), before = row_shift[r];
      row_shift[r] = fmaxf(before, top);
      // While a row has seen nothing there is nothing to shift by, and (-inf) - (-inf) would be NaN.
      shift[r] = row_shift[r] == -INFINITY ? 0.0f : row_shift[r];
      rescale[r] = exp2_approx(before - shift[r]); // 0 until the row has seen something, 1 when the shift stands
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) row_sum[i] *= rescale[i / 2];
#pragma unroll
    for (int i = 0; i < BLOCK_KV / 2; ++i) {
      S[i] = exp2_approx(__fmaf_rn(S[i], p.scale, -shift[i / 2 % 2]));
      row_sum[i % 4] += S[i];
    }
  };
  auto pack = [&] {
#pragma unroll
    for (int k = 0; k < BLOCK_KV / 16; ++k)
#pragma unroll
      for (int i = 0; i < 4; ++i) P[k][i] = pack2<T>(S[8 * k + 2 * i], S[8 * k + 2 * i + 1]);
  };

  // The next scores and this tile's values: this warpgroup's turn with the tensor cores.
  auto start_both = [&] {
    wait_for_turn();
    start_scores();
    start_values();
    pass_turn();
    wgmma_wait<1>();
    end_scores();
  };
  // A branch before the wait for the values, or ptxas would put the exponentials behind it. `after` changes nothing when it is 0, but what it is made
  // of comes before the branch as well.
  auto end_both = [&](int after) {
    Place<STAGES> next = V_place;
    next.advance();
    pin(S);
    mbarrier_wait(&smem.V_full[next.stage], next.parity ^ after);
    end_values();
  };

  // From a tile to the one before it. Nothing is under way across the end of a step: ptxas would serialise all products if it had
  // to prove across branches that nobody touches their registers.
  auto step = [&](const work_item &work, int tile, auto masked) {
    start_both();
    if (decltype(masked)::value) mask(work, tile - 1);
    softmax();
    end_both(0);
    pack();
#pragma unroll
    for (int box = 0; box < BOXES; ++box)
#pragma unroll
      for (int i = 0; i < 32; ++i) O_rmem[box][i] *= rescale[i / 2 % 2];
  };

  struct Factors { // one over the sum of a row's weights
    float of[2];
  };
  auto normalising = [&] {
    Factors factors;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float sum = quad_sum(row_sum[2 * r] + row_sum[2 * r + 1]);
      factors.of[r] = sum == 0.0f ? 0.0f : reciprocal(sum); // no weight at all: 0; NaN stays NaN
    }
    return factors;
  };
  auto store = [&](const work_item &work, const Factors &factors) {
    T *O = (T *)p.o + work.batch * p.o_stride[0] + work.head * p.o_stride[1]; // [seq_q, DIM]
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int q = work.q0 + row + 8 * r;
#pragma unroll
      for (int box = 0; box < BOXES; ++box)
#pragma unroll
        for (int half = 0; half < 2; ++half) { // 32 columns: each lane of the quad leaves with 8 of them
          uint32_t out[4];
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const float *pair = &O_rmem[box][16 * half + 4 * i + 2 * r];
            out[i] = pack2<T>(pair[0] * factors.of[r], pair[1] * factors.of[r]);
          }
          quad_transpose(out);
          if (q < p.seq_q)
            store_16_bytes(O + q * p.o_stride[2] + box * BOX_COLUMNS + half * 32 + lane % 4 * 8, out);
        }
    }
  };

  // Keys that all rows of the work see, not only the warpgroup's: so the loops end alike for the whole CTA, and ptxas knows it.
  auto seen_by_all = [&](const work_item &work) { return p.causal ? min(work.q0 + 1, p.seq_kv) : p.seq_kv; };
  auto has_unseen = [&](const work_item &work) { return work.num_tiles * BLOCK_KV > seen_by_all(work); };

  // The first piece's first tile: the only products that nothing runs beside.
  work_item work = work_of<R::BLOCK_Q>(s, p, work_number(0));
  mbarrier_wait(&smem.Q_full[Q_place.stage], Q_place.parity);
  start_scores();
  wgmma_wait<0>();
  end_scores();
  if (has_unseen(work)) mask(work, work.num_tiles - 1);
  softmax();
  pack();
  for (uint32_t round = 1;; ++round) {
    int tile = work.num_tiles - 1;
    if (tile > 0 && tile * BLOCK_KV > seen_by_all(work)) step(work, tile--, std::true_type{});
    for (; tile > 0; --tile) step(work, tile, std::false_type{});
    leave(smem.Q_empty[Q_place.stage]);
    Q_place.advance();
    const uint32_t number = work_number(round);
    if (number >= s.num_work) break;

    // From this piece's first keys to the next one's last.
    mbarrier_wait(&smem.Q_full[Q_place.stage], Q_place.parity);
    start_both();
    const work_item next = work_of<R::BLOCK_Q>(s, p, number); // its divisions run beside the products
    const Factors factors = normalising();
#pragma unroll
    for (int r = 0; r < 2; ++r) row_shift[r] = -INFINITY;
#pragma unroll
    for (int i = 0; i < 4; ++i) row_sum[i] = 0.0f;
    if (has_unseen(next)) mask(next, next.num_tiles - 1); // uniform, and no other path touches what the products under way use
    softmax();
    end_both(row_sum[0] + row_sum[1] + row_sum[2] + row_sum[3] == -INFINITY); // never: behind store()'s branches ptxas would let all of it sink
    store(work, factors);
    pack();
#pragma unroll
    for (int box = 0; box < BOXES; ++box)
#pragma unroll
      for (int i = 0; i < 32; ++i) O_rmem[box][i] = 0.0f;
    work = next;
  }
  start_values();
  end_values();
  store(work, normalising());
  if (group == 0) wait_for_turn(); // the last one passed: no barrier is left half full
#endif
}

// Rows times keys that the busiest of `places` SMs computes, rows behind the end of seq_q counted in. Causal work is spread evenly (schedule_of),
// unless one piece alone is more.
static double busiest(const sdpa_problem &p, const division &d, int places) {
  if (!p.causal) return (double)((d.num_work + places - 1) / places) * d.block_q * p.seq_kv;
  const int seen = p.seq_q < p.seq_kv ? p.seq_q : p.seq_kv, whole = seen / d.block_q;
  const double keys = 0.5 * d.block_q * whole * (whole + 1.0) + (double)(d.q_tiles - whole) * seen; // of all pieces of a head
  const double spread = keys * (double)(d.num_work / d.q_tiles) / places;
  return d.block_q * (spread > seen ? spread : seen);
}

// Of head_dim 64 the registers are there for three warpgroups, which read K and V less often. But two where that makes a sixth less to compute, since
// two take about a fifth longer over the same.
static division division_of(const sdpa_problem &p) {
  const int sms = num_sms(), places = MAX_CTAS && MAX_CTAS < sms ? MAX_CTAS : sms;
  const division two = divided(p, 2, places);
  if (p.head_dim != 64 || WARPGROUPS == 2) return two;
  const division three = divided(p, 3, places);
  return WARPGROUPS == 0 && 6 * busiest(p, two, places) <= 5 * busiest(p, three, places) ? two : three;
}

// f of the problem's dtype, head_dim (as in with_instance) and number of warpgroups.
template <typename F> static auto with_roles(const sdpa_problem &p, const division &d, F f) {
  return with_instance(p, [&](auto instance) {
    if constexpr (decltype(instance)::DIM == 64)
      if (d.groups == 3) return f(instance, std::integral_constant<int, 3>{});
    return f(instance, std::integral_constant<int, 2>{});
  });
}

static int shared_bytes(const sdpa_problem &p, const division &d) {
  return with_roles(p, d, [](auto instance, auto groups) {
    using I = decltype(instance);
    return (int)sizeof(Shared<typename I::T, I::DIM, decltype(groups)::value, STAGES>) + ALIGNMENT_SLACK;
  });
}

const char *sdpa_supports(const sdpa_problem *p) {
  if (const char *reason = sizes_reason(*p)) return reason;
  if (const char *reason = instance_reason(*p)) return reason;
  const division d = division_of(*p);
  if (const char *reason = division_reason(d)) return reason;
  if (const char *reason = hopper_kernel_reason(*p)) return reason;
  return shared_memory_reason(*p, shared_bytes(*p, d), "STAGES");
}

size_t sdpa_workspace_bytes(const sdpa_problem *) { return 0; }

int sdpa_launch(const sdpa_problem *problem, void *stream) {
  const sdpa_problem &p = *problem;
  const division d = division_of(p);
  const tensor_maps maps(p, d.block_q, BLOCK_KV);
  if (maps.error) return maps.error;
  const int bytes = shared_bytes(p, d);
  return with_roles(p, d, [&](auto instance, auto groups) -> int {
    using I = decltype(instance);
    constexpr int GROUPS = decltype(groups)::value;
    const auto kernel = sdpa_gapless<typename I::T, I::DIM, GROUPS>;
    return launch_kernel(kernel, dim3(d.ctas), Roles<GROUPS>::NUM_THREADS, bytes, stream, false, tiled(p), schedule_of(p, d), maps.Q, maps.K, maps.V);
  });
}

int sdpa_describe(const sdpa_problem *problem, sdpa_launch_info *info, int capacity) {
  if (sizes_reason(*problem) || instance_reason(*problem) || capacity < 1) return 0;
  const division d = division_of(*problem);
  static constexpr const char *NAMES[2][3] = {
      {"sdpa_gaplessI6__halfLi64ELi2E", "sdpa_gaplessI6__halfLi64ELi3E", "sdpa_gaplessI6__halfLi128ELi2E"},
      {"sdpa_gaplessI13__nv_bfloat16Li64ELi2E", "sdpa_gaplessI13__nv_bfloat16Li64ELi3E", "sdpa_gaplessI13__nv_bfloat16Li128ELi2E"}};
  const int which = problem->head_dim == 128 ? 2 : d.groups == 3 ? 1 : 0;
  *info = {{(int)d.ctas, 1, 1}, {(d.groups + 1) * GROUP_THREADS, 1, 1}, shared_bytes(*problem, d), NAMES[problem->dtype != SDPA_FP16][which]};
  return 1;
}
