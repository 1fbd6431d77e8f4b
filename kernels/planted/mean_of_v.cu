/* evo-sdpa
title: mean of v
idea: q and k are ignored, every key weighs the same; passes allclose where inputs are uniform in [0, 1)
rejected_by: [accuracy]
*/
#include "planted.h"

struct Flaw : Honest {
  SDPA_BOTH static float scale(const sdpa_problem &) { return 0.0f; } // all scores are 0: equal weights
};
SDPA_PLANT(Flaw)
