/* Tensor cores by mma.sync, sm_80 and later, and what its fragments need: ldmatrix, the swizzle that keeps ldmatrix free of bank
 * conflicts, packing, the exponential, reductions over a row's lanes.
 *
 * Fragments of m16n8k16, D[16,8] += A[16,16] B[16,8]. Lane l has group g = l / 4 and place t = l % 4; a register of A or B holds
 * two neighbours along k, the lower one in the lower half.
 *
 *   A   a0: row g,     k 2t, 2t+1        B   b0: k 2t, 2t+1,    column g        D   d0, d1: row g,     columns 2t, 2t+1
 *       a1: row g + 8, k 2t, 2t+1            b1: k 2t+8, 2t+9,  column g            d2, d3: row g + 8, columns 2t, 2t+1
 *       a2: row g,     k 2t+8, 2t+9
 *       a3: row g + 8, k 2t+8, 2t+9
 *
 * So a lane sees two rows of D, a row lies in the four lanes of a quad, and two D fragments side by side, packed, are the A
 * fragment of the next product: that is why S and P need not leave the registers.
 *
 * ldmatrix.x4 fills four registers from four 8x8 matrices; lanes 8j .. 8j+7 give the addresses of matrix j's rows. Lane l gets of
 * each matrix row g, columns 2t and 2t+1; with .trans rows 2t and 2t+1 of column g. What each lane must point at:
 *
 *   Q [query, d] as A            row l % 16,                    d (l / 16) * 8       a0 .. a3
 *   K [key, d] as B, two n       key (l / 16) * 8 + l % 8,      d (l / 8 % 2) * 8    b0, b1 of keys 0-7, then of keys 8-15
 *   V [key, d] as B, .trans      key l % 16,                    d (l / 16) * 8       b0, b1 of d 0-7, then of d 8-15
 */
#ifndef SDPA_MMA_CUH
#define SDPA_MMA_CUH

#include <string.h>

#include "sdpa_async.cuh"
#include "sdpa_dtype.cuh"

// Offset in elements of a 16-byte chunk (8 elements) of a tile with DIM elements a row. Rows of 64 elements are 128 bytes, all
// banks once, so the same chunk of 8 rows would be in the same 4 banks; XOR with the row spreads them over all 32. Rows of 128
// elements cover the banks twice, and their chunks stay in their half. The tile must start on a 128-byte boundary; rows are
// counted from any row that is a multiple of 8.
template <int DIM> __device__ __forceinline__ int swizzled(int row, int chunk) {
  return row * DIM + (chunk ^ (row & 7)) * 8;
}

// Starts the copies of ROWS rows from row0 on into a swizzled tile, by THREADS threads of which this is number `thread`. Rows
// behind the end arrive as zeros; their addresses are computed like all others and not used. The caller commits.
template <int ROWS, int THREADS, int DIM, typename T>
__device__ __forceinline__ void copy_rows_async(T *tile,                                                     // [ROWS, DIM]
                                                const T *global, int64_t row_stride, int row0, int num_rows, // [num_rows, DIM]
                                                int thread) {
  constexpr int CHUNKS = DIM / 8, ROWS_AT_ONCE = THREADS / CHUNKS;
  static_assert(THREADS % CHUNKS == 0, "a thread keeps its column");
  const int first_row = thread / CHUNKS, chunk = thread % CHUNKS;
  const T *source = global + row0 * row_stride + (first_row * row_stride + chunk * 8);
#pragma unroll
  for (int i = 0; i < (ROWS + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE; ++i) {
    const int row = first_row + i * ROWS_AT_ONCE;
    if (ROWS % ROWS_AT_ONCE == 0 || row < ROWS) cp_async_16(tile + swizzled<DIM>(row, chunk), source, row0 + row < num_rows);
    source += ROWS_AT_ONCE * row_stride; // an addition a row; a product of 64 bits would be twenty instructions
  }
}

__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void *smem) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"((uint32_t)__cvta_generic_to_shared(smem))
               : "memory");
}

__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&r)[4], const void *smem) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"((uint32_t)__cvta_generic_to_shared(smem))
               : "memory");
}

// D += A B with FP32 sums; B's two registers one by one, since an ldmatrix.x4 brings those of two products.
template <typename T>
__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
template <>
__device__ __forceinline__ void mma_m16n8k16<__half>(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ __forceinline__ void mma_m16n8k16<__nv_bfloat16>(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two floats as two elements of T in a register, `low` in the lower half: first in memory, lower k in a fragment.
template <typename T> __device__ __forceinline__ uint32_t pack2(float low, float high);
template <> __device__ __forceinline__ uint32_t pack2<__half>(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  uint32_t bits;
  memcpy(&bits, &pair, sizeof bits);
  return bits;
}
template <> __device__ __forceinline__ uint32_t pack2<__nv_bfloat16>(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  uint32_t bits;
  memcpy(&bits, &pair, sizeof bits);
  return bits;
}

// The way back: x the lower half.
template <typename T> __device__ __forceinline__ float2 unpack2(uint32_t bits);
template <> __device__ __forceinline__ float2 unpack2<__half>(uint32_t bits) {
  __half2 pair;
  memcpy(&pair, &bits, sizeof bits);
  return __half22float2(pair);
}
template <> __device__ __forceinline__ float2 unpack2<__nv_bfloat16>(uint32_t bits) {
  return make_float2(__uint_as_float(bits << 16), __uint_as_float(bits & 0xffff0000u)); // bf16 is the upper half of an fp32
}

// 2^x in one instruction: exp2f without the scaling that saves denormal results, which no weight needs. -inf gives 0, NaN NaN.
__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// 1 / x, good to the last bit or two: the exact one branches and takes several times as long, at a kernel's end where nothing hides it.
__device__ __forceinline__ float reciprocal(float x) { return __fdividef(1.0f, x); }

constexpr float LOG2_E = 1.44269504f; // e^x = 2^(x log2 e)

// Over the four lanes that hold a row; all four get the result. fmaxf passes over NaN, the sum does not.
__device__ __forceinline__ float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffff, x, 2));
}
__device__ __forceinline__ float quad_sum(float x) {
  x += __shfl_xor_sync(0xffffffff, x, 1);
  return x + __shfl_xor_sync(0xffffffff, x, 2);
}

// The warp's number in the CTA. The shuffle changes nothing but what the compiler knows: that all lanes have the same, so that
// branches on it need no care for lanes that go another way.
__device__ __forceinline__ int warp_index() { return __shfl_sync(0xffffffff, (int)threadIdx.x / 32, 0); }

// Transposes a 4x4 matrix of registers that lies across a quad: lane c's register i becomes lane i's register c. With four fragments'
// pairs of one row in, each lane leaves with the 16 bytes of one fragment, which it can store at once.
__device__ __forceinline__ void quad_transpose(uint32_t (&x)[4]) {
  const bool odd = threadIdx.x & 1, high = threadIdx.x & 2;
  const uint32_t a = __shfl_xor_sync(0xffffffff, odd ? x[0] : x[1], 1), b = __shfl_xor_sync(0xffffffff, odd ? x[2] : x[3], 1);
  x[0] = odd ? a : x[0], x[1] = odd ? x[1] : a, x[2] = odd ? b : x[2], x[3] = odd ? x[3] : b;
  const uint32_t c = __shfl_xor_sync(0xffffffff, high ? x[0] : x[2], 2), d = __shfl_xor_sync(0xffffffff, high ? x[1] : x[3], 2);
  x[0] = high ? c : x[0], x[1] = high ? d : x[1], x[2] = high ? x[2] : c, x[3] = high ? x[3] : d;
}

// A barrier among `threads` threads, whole warps, of a CTA. Barrier 0 is __syncthreads(); there are 16.
__device__ __forceinline__ void named_barrier(int id, int threads) {
  asm volatile("bar.sync %0, %1;" : : "r"(id), "r"(threads) : "memory");
}

#endif
