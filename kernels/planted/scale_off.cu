/* evo-sdpa
title: scale off by one percent
idea: a constant typed by hand; outputs look right to the eye and pass allclose(1e-2) on many inputs
rejected_by: [accuracy]
*/
#include "planted.h"

struct Flaw : Honest {
  SDPA_BOTH static float scale(const sdpa_problem &p) { return 1.01f * p.scale; }
};
SDPA_PLANT(Flaw)
