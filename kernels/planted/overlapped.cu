/* evo-sdpa
title: launches overlap
idea: programmatic dependent launch lets each launch begin while the one before still runs, so the time of many over their number is a throughput, shorter than any launch takes
rejected_by: [span]
runs_on: [gpu]
*/
#include "planted.h"

struct Flaw : Honest {
  // The first thing that every thread calls: the next launch may begin, and this one waits for the end of the one before. Nothing
  // is read or written before that, so every answer is right, also where a launch reads what the one before wrote.
  SDPA_BOTH static float scale(const sdpa_problem &p) {
    cudaTriggerProgrammaticLaunchCompletion();
    cudaGridDependencySynchronize();
    return p.scale;
  }

  static int launch(const sdpa_problem &p, void *stream, Attend *) { return attend_overlapping<Flaw>(p, stream); }
};
SDPA_PLANT(Flaw)
