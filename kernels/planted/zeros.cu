/* evo-sdpa
title: zeros
idea: an output of zeros, what a kernel that never ran leaves in fresh memory
rejected_by: [accuracy]
*/
#include "planted.h"

struct Flaw : Honest {
  SDPA_BOTH static float finish(float, float) { return 0.0f; }
};
SDPA_PLANT(Flaw)
