/* Hopper's warpgroup matrix multiply (wgmma): D[64, N] += A[64, 16] B[16, N], FP32 accumulators in the registers of 128 threads, B in
 * shared memory, A there or in registers. Needs sm_90a: a kernel that uses it has its body under `#if SDPA_HOPPER`, so that its source still compiles
 * for other architectures, where sdpa_supports() says no.
 *
 * Who holds what. Thread t of the warpgroup, warp w = t / 32, lane l = t % 32, has rows r = 16 w + l / 4 and r + 8:
 *   D[4 j + 0, 1] = row r,     columns 8 j + 2 (l % 4) + 0, 1
 *   D[4 j + 2, 3] = row r + 8, the same columns
 * and of A: a[0] row r, a[1] row r + 8, both at k = 2 (l % 4) + 0, 1; a[2], a[3] the same at k + 8. So the accumulators of 16 columns,
 * packed in pairs, are the A operand of the next product: P needs no trip through memory.
 *
 * The products run by themselves: wgmma_fence() before the first, wgmma_commit() after a group, wgmma_wait<N>() until at most N groups
 * are under way. No branch that only some warps of the warpgroup take may hold a fence or a product: the GPU hangs. */
#ifndef SDPA_WGMMA_CUH
#define SDPA_WGMMA_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

#if defined(__CUDA_ARCH_FEAT_SM90_ALL) // compiling device code for sm_90a
#define SDPA_HOPPER 1
#else
#define SDPA_HOPPER 0
#endif

// Describes rows of 128 bytes with the 128-byte swizzle, as sdpa_tma.cuh fetches them: 8 rows are 1024 bytes. In the descriptor's
// units of 16 bytes; the leading offset is not used with this swizzle.
__device__ __forceinline__ uint64_t matrix_descriptor(const void *smem) {
  const uint64_t address = (uint32_t)__cvta_generic_to_shared(smem) & 0x3ffff;
  return address >> 4 | 1ull << 16 | 64ull << 32 | 1ull << 62;
}

// From one k16 step to the next: 32 bytes along a row where k runs along rows (Q, K), 16 rows where it runs down them (V).
constexpr uint64_t STEP_ALONG_ROW = 32 >> 4, STEP_DOWN_ROWS = 16 * 128 >> 4;

__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" : : : "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" : : : "memory"); }
template <int N> __device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" : : "n"(N) : "memory");
}

// Accumulators are not to be touched before this point of the program: the compiler does not know that products are under way.
template <int N> __device__ __forceinline__ void pin(float (&D)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(D[i]) : : "memory");
}

// The same for an A operand in registers, which is read until then: needed where a loop hands its registers on.
template <int N> __device__ __forceinline__ void pin(uint32_t (&A)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+r"(A[i]) : : "memory");
}

// The accumulators as asm sees them: names, and operands.
#define ACC_32 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, " \
  "%24, %25, %26, %27, %28, %29, %30, %31"
#define ACC_64 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, " \
  "%24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define OUT_8(D, i) \
  "+f"(D[i]), "+f"(D[i + 1]), "+f"(D[i + 2]), "+f"(D[i + 3]), "+f"(D[i + 4]), "+f"(D[i + 5]), "+f"(D[i + 6]), "+f"(D[i + 7])
#define OUT_32(D, i) OUT_8(D, i), OUT_8(D, i + 8), OUT_8(D, i + 16), OUT_8(D, i + 24)

// D[64, 128] = A B (+ D when accumulate), k along the rows of A and B, both in shared memory.
template <typename T> __device__ void wgmma_m64n128k16_ss(float (&D)[64], uint64_t A, uint64_t B, bool accumulate);

// D[64, 128] = A B (+ D when accumulate), A in registers, k along the rows of B in shared memory.
template <typename T> __device__ void wgmma_m64n128k16_rs(float (&D)[64], const uint32_t (&A)[4], uint64_t B, bool accumulate);

// D[64, 64] = A B (+ D when accumulate), A in registers, k down the rows of B in shared memory.
template <typename T> __device__ void wgmma_m64n64k16_rs_down(float (&D)[32], const uint32_t (&A)[4], uint64_t B, bool accumulate);

#define DEFINE_WGMMA(T, TYPE)                                                                                                   \
  template <> __device__ __forceinline__ void wgmma_m64n128k16_ss<T>(float (&D)[64], uint64_t A, uint64_t B, bool accumulate) { \
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %66, 0; wgmma.mma_async.sync.aligned.m64n128k16.f32." TYPE "." TYPE            \
                   " {" ACC_64 "}, %64, %65, p, 1, 1, 0, 0; }"                                                                  \
                   : OUT_32(D, 0), OUT_32(D, 32) : "l"(A), "l"(B), "r"((int)accumulate));                                       \
  }                                                                                                                             \
  template <> __device__ __forceinline__ void wgmma_m64n128k16_rs<T>(float (&D)[64], const uint32_t (&A)[4], uint64_t B,        \
                                                                     bool accumulate) {                                         \
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %69, 0; wgmma.mma_async.sync.aligned.m64n128k16.f32." TYPE "." TYPE            \
                   " {" ACC_64 "}, {%64, %65, %66, %67}, %68, p, 1, 1, 0; }"                                                    \
                   : OUT_32(D, 0), OUT_32(D, 32)                                                                                \
                   : "r"(A[0]), "r"(A[1]), "r"(A[2]), "r"(A[3]), "l"(B), "r"((int)accumulate));                                 \
  }                                                                                                                             \
  template <> __device__ __forceinline__ void wgmma_m64n64k16_rs_down<T>(float (&D)[32], const uint32_t (&A)[4], uint64_t B,    \
                                                                         bool accumulate) {                                     \
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %37, 0; wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPE "." TYPE             \
                   " {" ACC_32 "}, {%32, %33, %34, %35}, %36, p, 1, 1, 1; }"                                                    \
                   : OUT_32(D, 0)                                                                                               \
                   : "r"(A[0]), "r"(A[1]), "r"(A[2]), "r"(A[3]), "l"(B), "r"((int)accumulate));                                 \
  }
DEFINE_WGMMA(__half, "f16")
DEFINE_WGMMA(__nv_bfloat16, "bf16")

#undef DEFINE_WGMMA
#undef OUT_32
#undef OUT_8
#undef ACC_64
#undef ACC_32

#endif
