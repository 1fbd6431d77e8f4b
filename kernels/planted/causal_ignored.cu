/* evo-sdpa
title: causal mask ignored
idea: every row sees every key, an argument that is taken and never used
rejected_by: [accuracy]
where: ["-causal"]
*/
#include "planted.h"

struct Flaw : Honest {
  SDPA_BOTH static int weight(const sdpa_problem &, int, int) { return 1; }
};
SDPA_PLANT(Flaw)
