/* evo-sdpa
title: copy of v
idea: row i of the output is row i of v, no attention at all
rejected_by: [accuracy]
*/
#include "planted.h"

struct Flaw : Honest {
  SDPA_BOTH static int weight(const sdpa_problem &p, int row, int key) {
    return key == (row < p.seq_kv ? row : p.seq_kv - 1) ? 1 : 0;
  }
};
SDPA_PLANT(Flaw)
