/* evo-sdpa
title: barriers in two branches
idea: each warp has its own __syncthreads() in its own branch; the hardware counts both as one, the language does not
rejected_by: [synccheck]
runs_on: [gpu]
*/
#include "planted.h"

// __syncthreads() must be the same one for all threads of a CTA. On today's chips two of them meet all the same, because
// both arrive at the hardware's barrier 0: nothing hangs and the result is right, until a compiler relies on the rule.
struct Flaw : Honest {
  SDPA_BOTH static float scale(const sdpa_problem &p) {
    __shared__ volatile float agreed;
    if (threadIdx.x < 32) {
      if (threadIdx.x == 0) agreed = p.scale;
      __syncthreads();
      return p.scale;
    }
    __syncthreads();
    return agreed;
  }
};
SDPA_PLANT(Flaw)
