/* CTAs of a cluster: they run at the same time and can write into each other's shared memory. Needs sm_90. */
#ifndef SDPA_CLUSTER_CUH
#define SDPA_CLUSTER_CUH

#include <stdint.h>

#include "sdpa_tma.cuh"

__device__ __forceinline__ uint32_t cluster_rank() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

// The two halves of a barrier among all threads of the cluster. Relaxed: it orders nothing but what mbarrier_init_fence() released,
// and costs no fence over the whole GPU (arrive.release is one: 700 cycles and more).
__device__ __forceinline__ void cluster_arrive_relaxed() { asm volatile("barrier.cluster.arrive.relaxed.aligned;" : : : "memory"); }
__device__ __forceinline__ void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" : : : "memory"); }

// The address of another CTA's copy of a shared variable, in the cluster's window.
__device__ __forceinline__ uint32_t remote_address(const void *smem, uint32_t rank) {
  uint32_t address;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(smem_address(smem)), "r"(rank));
  return address;
}

// 16 bytes into another CTA's shared memory; they count towards a barrier there, which is how that CTA knows that they are visible.
__device__ __forceinline__ void store_async(uint32_t address, uint4 x, uint32_t barrier) {
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1, %2, %3, %4}, [%5];"
               :
               : "r"(address), "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w), "r"(barrier)
               : "memory");
}

// mbarrier_wait() for bytes that another CTA of the cluster has sent.
__device__ __forceinline__ void mbarrier_wait_cluster(uint64_t *barrier, int parity) {
  asm volatile("{\n"
               ".reg .pred done;\n"
               "again:\n"
               "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1;\n"
               "@!done bra again;\n"
               "}" : : "r"(smem_address(barrier)), "r"(parity) : "memory");
}

#endif
