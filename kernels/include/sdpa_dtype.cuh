/* Element types and head dimensions of the CUDA variants: conversions, and the step from run-time numbers to template
 * arguments. Every CUDA variant serves fp16 and bf16 with head_dim 64 and 128; scores and sums are FP32 in all of them. */
#ifndef SDPA_DTYPE_CUH
#define SDPA_DTYPE_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "sdpa.h"

__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

// Round to nearest, ties to even. from_float<T>(x) where T is the kernel's element type.
template <typename T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ __half from_float<__half>(float x) { return __float2half_rn(x); }
template <> __device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) { return __float2bfloat16_rn(x); }

// N elements that move as one load or store.
template <typename T, int N> struct alignas(N * sizeof(T)) Pack {
  T x[N];
};

// A pair of template arguments as a value, so that a generic lambda can take it.
template <typename Element, int HEAD_DIM> struct Instance {
  using T = Element;
  static constexpr int DIM = HEAD_DIM;
};

// f(Instance<T, DIM>) for the problem's dtype and head_dim, which must be ones that instance_reason() lets through.
template <typename F> auto with_instance(const sdpa_problem &p, F f) {
  if (p.dtype == SDPA_FP16)
    return p.head_dim == 64 ? f(Instance<__half, 64>{}) : f(Instance<__half, 128>{});
  return p.head_dim == 64 ? f(Instance<__nv_bfloat16, 64>{}) : f(Instance<__nv_bfloat16, 128>{});
}

// Why no instance serves this dtype and head_dim; NULL when one does.
inline const char *instance_reason(const sdpa_problem &p) {
  if (p.dtype == SDPA_FP32) return "fp32 is not supported: this kernel reads fp16 or bf16";
  if (p.dtype != SDPA_FP16 && p.dtype != SDPA_BF16) return "dtype must be 0 (fp16) or 1 (bf16)";
  if (p.head_dim != 64 && p.head_dim != 128) return "head_dim must be 64 or 128";
  return nullptr;
}

// Why sizes are wrong in themselves or beyond a grid of (q tiles, heads, batch); NULL when they are fine.
inline const char *sizes_reason(const sdpa_problem &p) {
  if (p.batch < 1 || p.heads_q < 1 || p.heads_kv < 1 || p.seq_q < 1 || p.seq_kv < 1)
    return "batch, heads and sequence lengths must be at least 1";
  if (p.heads_q % p.heads_kv != 0) return "heads_kv must divide heads_q";
  if (p.batch > 65535 || p.heads_q > 65535) return "batch and heads must be at most 65535, the limits of a grid's y and z";
  return nullptr;
}

#endif
