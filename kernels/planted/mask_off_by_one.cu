/* evo-sdpa
title: causal mask off by one
idea: each row also sees the key behind its own, < written as <=
rejected_by: [accuracy]
where: ["-causal"]
*/
#include "planted.h"

struct Flaw : Honest {
  SDPA_BOTH static int weight(const sdpa_problem &p, int row, int key) { return p.causal && key > row + 1 ? 0 : 1; }
};
SDPA_PLANT(Flaw)
