/* evo-sdpa
title: output not rescaled
idea: a streaming softmax that moves to a larger maximum without scaling what it has; right where the first key's score is largest
rejected_by: [accuracy]
*/
#include "planted.h"

struct Flaw : Honest {
  SDPA_BOTH static float rescale(float old_shift, float) { return old_shift == -INFINITY ? 0.0f : 1.0f; }
};
SDPA_PLANT(Flaw)
