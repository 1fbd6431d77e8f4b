/* evo-sdpa
title: a tile of keys counted twice
idea: the 16 keys in the middle are added up twice, a split of the keys whose parts overlap
rejected_by: [accuracy]
*/
#include "planted.h"

struct Flaw : Honest {
  SDPA_BOTH static int weight(const sdpa_problem &p, int row, int key) {
    const bool in_middle_tile = key / 16 == p.seq_kv / 32;
    return (in_middle_tile ? 2 : 1) * Honest::weight(p, row, key);
  }
};
SDPA_PLANT(Flaw)
