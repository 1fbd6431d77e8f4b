/* What the planted wrong kernels share: attention that is right, with a hook at each place where one of them goes wrong.
 *
 * A planted file derives its Flaw from Honest, replaces the hook or two that its flaw is about and ends with
 * SDPA_PLANT(Flaw). nvcc compiles it for the GPU, where a thread owns a query row; a host compiler (-x c++) compiles the
 * same file for the CPU, where a loop walks over the rows. Elements are fp16 or bf16, sums and scores FP32.
 *
 * Nothing here is meant to be fast, only right, small and quick to compile: what the gate says of a flaw must be about the
 * flaw. honest.cu has none and must pass every check.
 */
#ifndef SDPA_PLANTED_H
#define SDPA_PLANTED_H

#include <math.h>

#include "sdpa_host.h"

#ifdef __CUDACC__
#include "sdpa_dtype.cuh"
#include "sdpa_launch.cuh"
#define SDPA_BOTH __device__         // code that runs where the rows are computed, be it GPU or CPU
#define SDPA_STATE static __device__ // memory of that code which outlives a launch: the contract forbids it
#else
#define SDPA_BOTH
#define SDPA_STATE static
#endif

constexpr int MAX_HEAD_DIM = 128;
constexpr int CTA_ROWS = 64; // query rows of a CTA, one thread each: two warps

// One row of q and of o.
struct QueryRow {
  int batch, head, row;
};

// Its number, counted over all batches and heads.
SDPA_BOTH inline int64_t row_number(const sdpa_problem &p, const QueryRow &at) {
  return ((int64_t)at.batch * p.heads_q + at.head) * p.seq_q + at.row;
}

// Its place in o, as bits: both element types have 16.
SDPA_BOTH inline uint16_t *output_row(const sdpa_problem &p, const QueryRow &at) {
  return (uint16_t *)p.o + at.batch * p.o_stride[0] + at.head * p.o_stride[1] + at.row * p.o_stride[2];
}

// Enqueues the computation of all rows; returns 0 or a cudaError_t. The CPU does it at once and has no stream.
typedef int Attend(const sdpa_problem &p, void *stream);

// The hooks, each with the right answer.
struct Honest {
  // Host. Why a problem is refused, beyond what all planted kernels refuse; NULL when it is not.
  static const char *supports(const sdpa_problem &) { return nullptr; }
  static size_t workspace_bytes(const sdpa_problem &) { return 0; }
  // Host. A launch; attend() enqueues the computation with the flaw's other hooks.
  static int launch(const sdpa_problem &p, void *stream, Attend *attend) { return attend(p, stream); }

  // Multiplies q.k. On the GPU every thread of a CTA calls it first, whether it has a row or not: it may hold a barrier.
  SDPA_BOTH static float scale(const sdpa_problem &p) { return p.scale; }

  // Before a row is computed. False: leave it alone, for whatever reason.
  SDPA_BOTH static bool begin(const sdpa_problem &, const QueryRow &) { return true; }
  // After it was stored.
  SDPA_BOTH static void end(const sdpa_problem &, const QueryRow &) {}

  // The key/value head that a query head uses.
  SDPA_BOTH static int kv_head(const sdpa_problem &p, int head) { return head / (p.heads_q / p.heads_kv); }
  // Where a key's row starts in k or v, in elements.
  SDPA_BOTH static int64_t key_offset(const sdpa_problem &, const int64_t stride[3], int batch, int kv_head, int key) {
    return batch * stride[0] + kv_head * stride[1] + key * stride[2];
  }
  // How often a key counts in a row: once if the row sees it, else 0. Top-left causal: row i sees keys 0 .. i.
  SDPA_BOTH static int weight(const sdpa_problem &p, int row, int key) { return p.causal && key > row ? 0 : 1; }

  // What is subtracted from scores before exp(), given the largest of them so far (-inf while there is none).
  SDPA_BOTH static float shift(float row_max) { return row_max; }
  // The factor on what has been added up so far when the shift changes.
  SDPA_BOTH static float rescale(float old_shift, float new_shift) { return expf(old_shift - new_shift); }
  // exp(score - shift) as it enters the sum over v.
  SDPA_BOTH static float rounded(float P) { return P; }
  // An element of the output. A row without any weight is 0; NaN stays NaN.
  SDPA_BOTH static float finish(float O, float row_sum) { return row_sum == 0.0f ? 0.0f : O / row_sum; }
};

// N elements as floats, and back; N is known to the compiler, so that the floats can live in registers.
#ifdef __CUDACC__
template <int N> __device__ void load(const void *tensor, int64_t offset, int dtype, float *out) {
  if (dtype == SDPA_FP16) {
#pragma unroll
    for (int i = 0; i < N; ++i) out[i] = to_float(((const __half *)tensor)[offset + i]);
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) out[i] = to_float(((const __nv_bfloat16 *)tensor)[offset + i]);
  }
}

template <int N> __device__ void store(void *tensor, int64_t offset, int dtype, const float *in) {
  if (dtype == SDPA_FP16) {
#pragma unroll
    for (int i = 0; i < N; ++i) ((__half *)tensor)[offset + i] = from_float<__half>(in[i]);
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) ((__nv_bfloat16 *)tensor)[offset + i] = from_float<__nv_bfloat16>(in[i]);
  }
}
#else
template <int N> void load(const void *tensor, int64_t offset, int dtype, float *out) {
  load_as_float(tensor, offset, N, dtype, out);
}

template <int N> void store(void *tensor, int64_t offset, int dtype, const float *in) {
  store_from_float(tensor, offset, N, dtype, in);
}
#endif

// One query row: a streaming softmax over the keys, one at a time. CHUNK elements of k or v are in flight together, and the
// score is CHUNK independent sums, so that neither device waits for each single addition.
template <typename Flaw, int DIM> SDPA_BOTH void attend_row(const sdpa_problem &p, const QueryRow &at, float scale) {
  constexpr int CHUNK = 16;
  const int kv_head = Flaw::kv_head(p, at.head);
  float Q[DIM], O[DIM], chunk[CHUNK];

  load<DIM>(p.q, at.batch * p.q_stride[0] + at.head * p.q_stride[1] + at.row * p.q_stride[2], p.dtype, Q);
  for (int d = 0; d < DIM; ++d) O[d] = 0.0f;
  float row_max = -INFINITY, row_sum = 0.0f, shift = Flaw::shift(row_max);

  for (int key = 0; key < p.seq_kv; ++key) {
    const int weight = Flaw::weight(p, at.row, key);
    if (weight == 0) continue; // keys that are not seen are not touched: their NaN cannot reach the row

    const int64_t K_row = Flaw::key_offset(p, p.k_stride, at.batch, kv_head, key);
    float sums[CHUNK] = {};
    for (int c = 0; c < DIM; c += CHUNK) {
      load<CHUNK>(p.k, K_row + c, p.dtype, chunk);
      for (int i = 0; i < CHUNK; ++i) sums[i] += Q[c + i] * chunk[i];
    }
    for (int width = CHUNK / 2; width > 0; width /= 2)
      for (int i = 0; i < width; ++i) sums[i] += sums[i + width];
    const float score = sums[0] * scale;

    if (score > row_max) { // false for NaN, which reaches the row through its exponential instead
      row_max = score;
      const float new_shift = Flaw::shift(row_max);
      const float rescale = Flaw::rescale(shift, new_shift); // 0 for the first key: nothing has been added up
      shift = new_shift;
      row_sum *= rescale;
      for (int d = 0; d < DIM; ++d) O[d] *= rescale;
    }
    // While every score is -inf there is nothing to shift by, and (-inf) - (-inf) would be NaN.
    const float P = expf(score - (shift == -INFINITY ? 0.0f : shift)) * weight;
    row_sum += P;

    const float P_rounded = Flaw::rounded(P);
    const int64_t V_row = Flaw::key_offset(p, p.v_stride, at.batch, kv_head, key);
    for (int c = 0; c < DIM; c += CHUNK) {
      load<CHUNK>(p.v, V_row + c, p.dtype, chunk);
      for (int i = 0; i < CHUNK; ++i) O[c + i] += P_rounded * chunk[i];
    }
  }

  for (int d = 0; d < DIM; ++d) O[d] = Flaw::finish(O[d], row_sum);
  store<DIM>(p.o, at.batch * p.o_stride[0] + at.head * p.o_stride[1] + at.row * p.o_stride[2], p.dtype, O);
}

template <typename Flaw, int DIM> SDPA_BOTH void do_row(const sdpa_problem &p, const QueryRow &at, float scale) {
  if (!Flaw::begin(p, at)) return;
  attend_row<Flaw, DIM>(p, at, scale);
  Flaw::end(p, at);
}

#ifdef __CUDACC__
template <typename Flaw, int DIM> // grid (row tiles, heads_q, batch)
__global__ void __launch_bounds__(CTA_ROWS) planted_rows(const __grid_constant__ sdpa_problem p) {
  const float scale = Flaw::scale(p);
  const QueryRow at = {(int)blockIdx.z, (int)blockIdx.y, (int)(blockIdx.x * CTA_ROWS + threadIdx.x)};
  if (at.row < p.seq_q) do_row<Flaw, DIM>(p, at, scale);
}

template <typename Flaw> int attend(const sdpa_problem &p, void *stream) {
  const dim3 grid((p.seq_q + CTA_ROWS - 1) / CTA_ROWS, p.heads_q, p.batch);
  const auto rows = p.head_dim == 64 ? planted_rows<Flaw, 64> : planted_rows<Flaw, 128>;
  rows<<<grid, CTA_ROWS, 0, (cudaStream_t)stream>>>(p);
  return cudaGetLastError();
}

// The same by programmatic dependent launch: it may begin before the launch before has ended.
template <typename Flaw> int attend_overlapping(const sdpa_problem &p, void *stream) {
  const dim3 grid((p.seq_q + CTA_ROWS - 1) / CTA_ROWS, p.heads_q, p.batch);
  return launch_kernel(p.head_dim == 64 ? planted_rows<Flaw, 64> : planted_rows<Flaw, 128>, grid, CTA_ROWS, 0, stream, true, p);
}
#else
template <typename Flaw> int attend(const sdpa_problem &p, void *) {
  const auto row = p.head_dim == 64 ? do_row<Flaw, 64> : do_row<Flaw, 128>;
  for (int b = 0; b < p.batch; ++b)
    for (int h = 0; h < p.heads_q; ++h)
      for (int i = 0; i < p.seq_q; ++i) row(p, {b, h, i}, Flaw::scale(p));
  return 0;
}
#endif

template <typename Flaw> const char *reason_to_refuse(const sdpa_problem &p) {
  if (p.dtype != SDPA_FP16 && p.dtype != SDPA_BF16) return "planted kernels read fp16 or bf16";
  if (p.head_dim != 64 && p.head_dim != MAX_HEAD_DIM) return "planted kernels take head_dim 64 or 128";
  if (p.batch < 1 || p.heads_q < 1 || p.heads_kv < 1 || p.seq_q < 1 || p.seq_kv < 1)
    return "batch, heads and sequence lengths must be at least 1";
  if (p.heads_q % p.heads_kv != 0) return "heads_kv must divide heads_q";
  if (p.batch > 65535 || p.heads_q > 65535) return "batch and heads must be at most 65535, the limits of a grid's y and z";
  return Flaw::supports(p);
}

// The functions of sdpa.h, with the hooks of one class.
#define SDPA_PLANT(Flaw)                                                                                           \
  const char *sdpa_supports(const sdpa_problem *problem) { return reason_to_refuse<Flaw>(*problem); }             \
  size_t sdpa_workspace_bytes(const sdpa_problem *problem) { return Flaw::workspace_bytes(*problem); }            \
  int sdpa_launch(const sdpa_problem *problem, void *stream) { return Flaw::launch(*problem, stream, attend<Flaw>); }

#endif
