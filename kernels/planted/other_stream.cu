/* evo-sdpa
title: another stream
idea: works on a stream of its own that waits for nothing, so timers on the given stream see an empty launch
rejected_by: [stream]
runs_on: [gpu]
*/
#include "planted.h"

struct Flaw : Honest {
  static int launch(const sdpa_problem &p, void *, Attend *attend) {
    static cudaStream_t own = nullptr;
    if (own == nullptr)
      if (const cudaError_t error = cudaStreamCreateWithFlags(&own, cudaStreamNonBlocking)) return error;
    return attend(p, own);
  }
};
SDPA_PLANT(Flaw)
