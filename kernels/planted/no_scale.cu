/* evo-sdpa
title: scale forgotten
idea: scores are q.k as it is, without 1/sqrt(head_dim)
rejected_by: [accuracy]
*/
#include "planted.h"

struct Flaw : Honest {
  SDPA_BOTH static float scale(const sdpa_problem &) { return 1.0f; }
};
SDPA_PLANT(Flaw)
