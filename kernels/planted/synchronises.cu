/* evo-sdpa
title: synchronises
idea: waits for the GPU before it returns, which no CUDA graph can hold and every caller pays for
rejected_by: [capture]
runs_on: [gpu]
*/
#include "planted.h"

struct Flaw : Honest {
  static int launch(const sdpa_problem &p, void *stream, Attend *attend) {
    if (const int status = attend(p, stream)) return status;
    return cudaStreamSynchronize((cudaStream_t)stream);
  }
};
SDPA_PLANT(Flaw)
