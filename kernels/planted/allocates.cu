/* evo-sdpa
title: allocates
idea: takes its scratch memory from cudaMalloc in every launch
rejected_by: [capture]
runs_on: [gpu]
*/
#include "planted.h"

struct Flaw : Honest {
  static int launch(const sdpa_problem &p, void *stream, Attend *attend) {
    void *scratch;
    if (const cudaError_t error = cudaMalloc(&scratch, 1 << 20)) return error;
    const int status = attend(p, stream);
    const cudaError_t error = cudaFree(scratch); // waits until the GPU is idle
    return status ? status : error;
  }
};
SDPA_PLANT(Flaw)
