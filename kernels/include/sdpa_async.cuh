/* Asynchronous copies from global to shared memory, sm_80 and later: the bytes go past the registers, and the thread that
 * asked goes on. A thread waits for its own copies only; other threads may read them after a barrier that follows the wait. */
#ifndef SDPA_ASYNC_CUH
#define SDPA_ASYNC_CUH

#include <stdint.h>

// 16 bytes; both addresses 16-byte aligned. When in_range is false nothing is read and 16 zero bytes are written, which
// is how the tail of a tile gets defined contents. .cg: through L2 only, since a CTA reads each byte once.
__device__ __forceinline__ void cp_async_16(void *smem, const void *global, bool in_range) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"((uint32_t)__cvta_generic_to_shared(smem)), "l"(global), "r"(in_range ? 16 : 0)
               : "memory");
}

// Closes this thread's current group of copies. A group may be empty, which keeps the count of groups regular.
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" : : : "memory"); }

// Waits until at most N of this thread's youngest groups are still under way.
template <int N> __device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" : : "n"(N) : "memory");
}

// The same for a number that is a constant only once a loop is unrolled: all cases but one disappear. A number that is not
// listed waits for everything, which is never too little.
__device__ __forceinline__ void cp_async_wait_at_most(int groups) {
  switch (groups) {
  case 1: return cp_async_wait<1>();
  case 2: return cp_async_wait<2>();
  case 3: return cp_async_wait<3>();
  case 4: return cp_async_wait<4>();
  case 5: return cp_async_wait<5>();
  case 6: return cp_async_wait<6>();
  case 7: return cp_async_wait<7>();
  case 8: return cp_async_wait<8>();
  default: return cp_async_wait<0>();
  }
}

#endif
