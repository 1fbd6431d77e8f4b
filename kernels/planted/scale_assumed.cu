/* evo-sdpa
title: scale taken for granted
idea: computes 1/sqrt(head_dim) itself, whatever scale the caller asks for
rejected_by: [accuracy]
where: ["scale/"]
*/
#include "planted.h"

struct Flaw : Honest {
  SDPA_BOTH static float scale(const sdpa_problem &p) { return 1.0f / sqrtf((float)p.head_dim); }
};
SDPA_PLANT(Flaw)
