/* Warpgroups with different jobs in one CTA: registers that move from those who need few to those who need many, and turns that
 * warpgroups take. Needs sm_90a, like sdpa_wgmma.cuh. */
#ifndef SDPA_SPECIALISED_CUH
#define SDPA_SPECIALISED_CUH

// From here on a thread of this warpgroup has so many registers, a multiple of 8. All four warps call it. Fewer: the rest goes back to the
// SM. More: waits until that many are free.
template <int REGISTERS> __device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" : : "n"(REGISTERS));
}
template <int REGISTERS> __device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" : : "n"(REGISTERS));
}

// The half of named_barrier() that does not wait: whoever waits at this barrier goes on once `threads` have come, these among them.
__device__ __forceinline__ void named_barrier_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" : : "r"(id), "r"(threads) : "memory");
}

#endif
