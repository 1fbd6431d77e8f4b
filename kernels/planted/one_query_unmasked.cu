/* evo-sdpa
title: causal mask ignored for a single query
idea: a fast path for decoding takes the one query for the newest token, which sees every key
rejected_by: [accuracy]
where: ["one query"]
*/
#include "planted.h"

struct Flaw : Honest {
  SDPA_BOTH static int weight(const sdpa_problem &p, int row, int key) {
    return p.seq_q == 1 ? 1 : Honest::weight(p, row, key);
  }
};
SDPA_PLANT(Flaw)
