/* evo-sdpa
title: the rung for each problem
parent: v8_cluster
idea: every fp16 or bf16 problem by the rung that the evidence recorded on an H200 shows to be the fastest for its like
expects: 4.0-4.2 us on the goal problem, v8's time; every other problem in the time of the rung that it picks
levers: {V8_WAVES: [1, 2, 4], V5_KEYS: [256, 512, 1024]}
*/

// For users: one library that takes what any rung takes, on any chip from sm_80 on. A rung is its own source, as it is, in a namespace
// of its own; so whoever changes a rung changes this variant too, and its evidence says so.
//
// The table, from the recorded sweep of an H200 (README, "Results"; microseconds, warm):
//
//                                            v11     v10      v8      v5      v4      v3
//     b1h1s512d64-fp16                      4.30    7.82    3.77    5.90    4.92    8.44
//     b1h1s4096d128-fp16-causal            23.40   51.12       -   40.86   39.80   79.96
//     b1h1s16384d128-fp16-causal             159     197       -     157     369     383
//     b1h8s128d64-fp16                      4.09    4.31    3.35    3.04    3.32    3.48
//     b1h8s256d64-fp16-causal               4.39    5.94    3.95    4.17    3.91    5.26
//     b1h8s512d64-fp16                      5.84    8.10    4.12    6.21    5.22    8.60
//     b1h8s512d64-fp16-causal               5.82    8.41    4.21    6.20    5.06    8.62
//     b1h8s512d128-fp16                     7.75   10.18       -    7.96    7.96   12.08
//     b1h8s1024d64-fp16                    11.66   12.92       -   10.38   15.03   15.62
//     b1h8s8192d128-fp16                     645     420       -     637    1201     905
//     b1h16s128d64-fp16-causal              4.32    4.69    3.66    3.25    3.35    3.59
//     b1h16s1024d128-fp16-causal           26.84   17.36       -   22.34   34.98   31.04
//     b1h16s16384d64-fp16                   4048    2071       -    2765    5664    4141
//     b1h16s16384d128-fp16-causal           2586    1673       -    2546    4906    3804
//     b2h16s256d128-fp16                    8.26    7.52       -    5.85    9.66    7.66
//     b2h16s1024d64-fp16-causal            33.80   16.22       -   22.48   39.36   30.42
//     b2h16s2048d64-fp16                     146   76.94       -   94.78     200     138
//     b4h16s512d64-fp16                    27.57   14.22   25.65   16.10   34.30   24.83
//     b4h16s4096d64-fp16                    1065     540       -     713    1464    1041
//     b4h16s4096d64-fp16-causal              594     306       -     391     803     565
//     b4h16s4096d128-fp16                   1321     853       -    1272    2399    1790
//     b4h16s4096d128-fp16-causal             757     454       -     704    1312     974
//     b8h16s128d64-fp16                     8.08    5.06   11.45    4.35   11.11    5.19
//     b8h16s1024d128-fp16                    218     120       -     187     355     244
//     b8h16s2048d128-fp16-causal             456     257       -     398     738     517
//     b4h16s2048d128-fp16-causal-hkv4        233     128       -     206     377     275
//     b2h16s1024d128-bf16                  56.07   30.89       -   48.80   92.32   63.64
//     b1h8s1000d64-fp16-causal             11.81   13.21       -   10.17   13.66   14.73
//     b1h1s2304d128-bf16                   12.23   30.36       -   24.33   24.01   45.97
//     b1h4s512d128-fp16                     7.25   10.03       -    7.82    7.71   11.94
//     b1h12s1024d128-fp16                  27.83   16.68       -   24.06   35.82   32.30
//     b4h16s512d128-fp16                   37.58   18.70       -   29.65   55.02   35.42  unstable
//     b8h16s1000d128-fp16                    219     121       -     189     356     245
//     b1h8s4096d128-fp16-causal              111   58.92       -     104     186     178
//     b1h16s64d64-fp16-kv8192              15.34   79.01       -   65.51   46.78     109
//     b8h32s1d128-fp16-hkv8-kv4096         87.93     104       -   83.95   76.72   75.15
//
// So on Hopper, the more CTAs work, the sooner a small problem is done: where a tile of 64 rows for each of them leaves half of the SMs
// idle, v8 if it can, else v11, both from so many keys on that there is something to share; below, down to 129 keys, and where rows are so
// few that others compute mostly none, v4. Else v5 where its CTAs fit at once (at head_dim 64 with few keys two on an SM; causal at
// head_dim 128 a few more, for the last ones are short), else v10. Causal work of one head, at head_dim 128 of two, lasts as long as the
// longest of it, of which 64 rows are half of v10's, as long as few others wait for an SM: then v5, or v11 with one CTA on an SM at
// head_dim 64. One row of queries (decoding): heads that share keys are made the rows of one, so that keys are read once;
// b8h32s1d128-fp16-hkv8-kv4096 takes 37.3 us then, of which the table has the rungs' times with heads one by one.
// Elsewhere v4 while its CTAs fit at once, of head_dim 64 in two waves; else v3. What needs rows at other than 16-byte boundaries goes
// to v1. A rung that refuses a problem passes it on to the next one.
// Measured there: 4.09 us on the goal problem, as predicted; in the sweep at most 1.02 times the best rung and at most 1.05 times the best rival.

#define HOPPER (__CUDA_ARCH_LIST__ == 900) // the one architecture that the library is built for; the others have no use for v5, v8, v10 and v11

#ifndef V8_WAVES
#define V8_WAVES 1 // v8 while its CTAs, one on each SM, fit into so many waves
#endif
#ifndef V5_KEYS
#define V5_KEYS 512 // v5 below so many keys also while two of its CTAs are on an SM (head_dim 64)
#endif

#include "sdpa_async.cuh"
#include "sdpa_checks.h"
#include "sdpa_cluster.cuh"
#include "sdpa_cluster_launch.cuh"
#include "sdpa_device.cuh"
#include "sdpa_dtype.cuh"
#include "sdpa_hopper.cuh"
#include "sdpa_launch.cuh"
#include "sdpa_mma.cuh"
#include "sdpa_persistent.cuh"
#include "sdpa_specialised.cuh"
#include "sdpa_store.cuh"
#include "sdpa_tma.cuh"
#include "sdpa_wgmma.cuh"

// What a rung exports by the contract is its namespace's own here, and each has its own defaults for levers.
#define sdpa_supports supports
#define sdpa_workspace_bytes workspace_bytes
#define sdpa_launch launch
#define sdpa_describe describe

namespace v1 {
#include "v1_scalar.cu"
}
#undef BLOCK_Q
#undef BLOCK_KV
#undef LANES_PER_ROW
namespace v3 {
#include "v3_mma.cu"
}
#undef BLOCK_Q
#undef BLOCK_KV
#undef STAGES
namespace v4 {
#include "v4_mma_split.cu"
}
#undef BLOCK_Q
#undef WARP_ROWS
#undef NUM_WARPS
#undef PANEL
#if HOPPER
namespace v5 {
#include "v5_wgmma.cu"
}
#undef BLOCK_Q
#undef STAGES
namespace v8 {
#include "v8_cluster.cu"
}
#undef PDL
namespace v10 {
#include "v10_gapless.cu"
}
#undef PING_PONG
#undef STAGES
#undef WARPGROUPS
#undef MAX_CTAS
namespace v11 {
#include "v11_splitkv.cu"
}
#undef MAX_SPLITS
#undef STAGES
#endif

#undef sdpa_supports
#undef sdpa_workspace_bytes
#undef sdpa_launch
#undef sdpa_describe

struct Rung { // none has a workspace
  const char *(*supports)(const sdpa_problem *);
  int (*launch)(const sdpa_problem *, void *);
  int (*describe)(const sdpa_problem *, sdpa_launch_info *, int);
};

constexpr Rung V1 = {v1::supports, v1::launch, v1::describe};
constexpr Rung V3 = {v3::supports, v3::launch, v3::describe};
constexpr Rung V4 = {v4::supports, v4::launch, v4::describe};
#if HOPPER
constexpr Rung V5 = {v5::supports, v5::launch, v5::describe};
constexpr Rung V8 = {v8::supports, v8::launch, v8::describe};
constexpr Rung V10 = {v10::supports, v10::launch, v10::describe};
constexpr Rung V11 = {v11::supports, v11::launch, v11::describe};
#endif

// Sizes that no rung may be asked about.
static const char *size_reason(const sdpa_problem &p) {
  if (const char *reason = sizes_reason(p)) return reason;
  return p.seq_q > INT32_MAX - 256 || p.seq_kv > INT32_MAX - 256 ? "seq_q and seq_kv must be at most 2^31 - 257: rows are counted in 32 bits" : nullptr;
}

// f of each rung, in the order of preference, until one says true; then that rung, else NULL. Conditions on CTAs and SMs follow from the rows of
// the table; how many keys it takes, what lies between its rows and how few rows are few are chosen between them.
template <typename F> static const Rung *first_rung(const sdpa_problem &p, F f) {
  const int64_t heads = (int64_t)p.batch * p.heads_q, sms = num_sms();
  const auto ctas = [&](int rows) { return (p.seq_q + rows - 1) / rows * heads; };
#if HOPPER
  const bool dim64 = p.head_dim == 64, few_rows = p.seq_q <= 32 && p.seq_kv >= 512;
  const bool uneven = p.causal && heads <= (dim64 ? 1 : 2) && ctas(128) <= sms;
  const bool very_few = 7 * ctas(64) <= 2 * sms; // clusters of three fit at once
  const bool worth_sharing = dim64 ? p.seq_kv > (very_few ? 512 : 640) : p.seq_kv > (very_few ? 256 : 384);
  const int64_t v5_places = sms * (dim64 && p.seq_kv < V5_KEYS ? 2 : 1) + (!dim64 && p.causal && p.seq_kv >= 512 ? sms / 8 : 0);
  if (p.seq_kv >= 240 && 2 * ctas(64) <= V8_WAVES * sms && f(V8)) return &V8;
  if (worth_sharing && 2 * ctas(64) <= sms && f(V11)) return &V11;
  if (p.seq_kv > 128 && (ctas(32) <= sms || few_rows) && f(V4)) return &V4;
  if (p.seq_q > (dim64 ? 64 : 32) && ctas(64) > v5_places && !uneven && f(V10)) return &V10;
  if (dim64 && uneven && f(V11)) return &V11;
  if (f(V5)) return &V5;
#endif
  if (ctas(32) <= (p.head_dim == 64 ? 2 : 1) * sms && f(V4)) return &V4;
  if (f(V3)) return &V3;
  return f(V1) ? &V1 : nullptr;
}

static const Rung *rung_of(const sdpa_problem &p) {
  return first_rung(p, [&](const Rung &rung) { return !rung.supports(&p); });
}

// One row of queries that sees all keys: the heads of a group become the rows of one head, since from head to head is a step like another.
static sdpa_problem packed(const sdpa_problem &problem) {
  sdpa_problem p = problem;
  if (p.seq_q != 1 || p.causal) return p;
  const int group = p.heads_q / p.heads_kv;
  p.seq_q = group, p.heads_q = p.heads_kv;
  p.q_stride[2] = p.q_stride[1], p.q_stride[1] *= group;
  p.o_stride[2] = p.o_stride[1], p.o_stride[1] *= group;
  return p;
}

const char *sdpa_supports(const sdpa_problem *problem) {
  if (const char *reason = size_reason(*problem)) return reason;
  const sdpa_problem p = packed(*problem);
  return rung_of(p) ? nullptr : V1.supports(&p); // the least demanding one's reason
}

size_t sdpa_workspace_bytes(const sdpa_problem *) { return 0; }

int sdpa_launch(const sdpa_problem *problem, void *stream) {
  if (size_reason(*problem)) return (int)cudaErrorNotSupported;
  const sdpa_problem p = packed(*problem);
  const Rung *rung = rung_of(p);
  return rung ? rung->launch(&p, stream) : (int)cudaErrorNotSupported;
}

// Of a problem with strides and a scale that every rung takes: rungs describe what they do without asking for these.
int sdpa_describe(const sdpa_problem *problem, sdpa_launch_info *info, int capacity) {
  if (size_reason(*problem)) return 0;
  const sdpa_problem p = packed(*problem);
  int count = 0;
  first_rung(p, [&](const Rung &rung) { return (count = rung.describe(&p, info, capacity)) > 0; });
  return count;
}
