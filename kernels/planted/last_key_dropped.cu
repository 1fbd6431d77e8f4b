/* evo-sdpa
title: last key dropped
idea: each row misses the last key that it sees, a loop that ends one short
rejected_by: [accuracy]
*/
#include "planted.h"

struct Flaw : Honest {
  SDPA_BOTH static int weight(const sdpa_problem &p, int row, int key) {
    const bool last = key == p.seq_kv - 1 || (p.causal && key == row);
    return last ? 0 : Honest::weight(p, row, key);
  }
};
SDPA_PLANT(Flaw)
