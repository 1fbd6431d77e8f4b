/* evo-sdpa
title: reads before it may
idea: programmatic dependent launch lets each launch begin while the one before still runs, and it waits for that one's end only before it stores, so what the one before writes and it reads is missed
rejected_by: [chained, span]
runs_on: [gpu]
*/
#include "planted.h"

struct Flaw : Honest {
  // The first thing that every thread calls: the next launch may begin.
  SDPA_BOTH static float scale(const sdpa_problem &p) {
    cudaTriggerProgrammaticLaunchCompletion();
    return p.scale;
  }

  // The last before a row is stored: only now wait until the launch before has ended. Thus o is written in the order of
  // launches, and the answers stay right while nobody writes q, k or v just before.
  SDPA_BOTH static float finish(float O, float row_sum) {
    cudaGridDependencySynchronize();
    return Honest::finish(O, row_sum);
  }

  static int launch(const sdpa_problem &p, void *stream, Attend *) { return attend_overlapping<Flaw>(p, stream); }
};
SDPA_PLANT(Flaw)
