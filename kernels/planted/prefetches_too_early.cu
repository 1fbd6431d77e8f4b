/* evo-sdpa
title: fetches a key before it may
idea: programmatic dependent launch; it waits for the end of the launch before, but fetches the first key of its head ahead of that
rejected_by: [chained, span]
runs_on: [gpu]
*/
#include "planted.h"

struct Flaw : Honest {
  // The first thing that every thread calls. q is read after the wait, so only a launch before that writes k is missed. That what was
  // fetched is used stands here as: nothing is right when it is not what k holds by now.
  SDPA_BOTH static float scale(const sdpa_problem &p) {
    cudaTriggerProgrammaticLaunchCompletion();
    const volatile uint16_t *key = (const uint16_t *)p.k + key_offset(p, p.k_stride, blockIdx.z, kv_head(p, blockIdx.y), 0);
    const uint16_t fetched = *key;
    cudaGridDependencySynchronize();
    return fetched == *key ? p.scale : NAN;
  }

  static int launch(const sdpa_problem &p, void *stream, Attend *) { return attend_overlapping<Flaw>(p, stream); }
};
SDPA_PLANT(Flaw)
