/* Sixteen bytes to global memory as one instruction. */
#ifndef SDPA_STORE_CUH
#define SDPA_STORE_CUH

#include <stdint.h>

// To an address at a multiple of 16 bytes. By a plain assignment of a uint4 the compiler stores its words one by one where they come out of
// selections, which is four times the instructions.
__device__ __forceinline__ void store_16_bytes(void *global, const uint32_t (&words)[4]) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};"
               :
               : "l"(__cvta_generic_to_global(global)), "r"(words[0]), "r"(words[1]), "r"(words[2]), "r"(words[3])
               : "memory");
}

#endif
