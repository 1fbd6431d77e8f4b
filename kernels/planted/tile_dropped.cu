/* evo-sdpa
title: a tile of keys dropped
idea: the 16 keys in the middle are never added up, a pipeline that skips a stage
rejected_by: [accuracy]
*/
#include "planted.h"

struct Flaw : Honest {
  SDPA_BOTH static int weight(const sdpa_problem &p, int row, int key) {
    const bool in_middle_tile = key / 16 == p.seq_kv / 32;
    return in_middle_tile ? 0 : Honest::weight(p, row, key);
  }
};
SDPA_PLANT(Flaw)
