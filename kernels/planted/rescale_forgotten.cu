/* evo-sdpa
title: sums not rescaled
idea: moves on to a larger maximum without scaling the sums it has; right where the first score is the largest
rejected_by: [accuracy]
*/
#include "planted.h"

struct Flaw : Honest {
  SDPA_BOTH static float rescale(float old_shift, float) { return old_shift == -INFINITY ? 0.0f : 1.0f; }
};
SDPA_PLANT(Flaw)
