/* evo-sdpa
title: wrong key/value head
idea: query head h uses head h % heads_kv, so that neighbours take turns instead of sharing; right without GQA
rejected_by: [accuracy]
where: ["GQA"]
*/
#include "planted.h"

struct Flaw : Honest {
  SDPA_BOTH static int kv_head(const sdpa_problem &p, int head) { return head % p.heads_kv; }
};
SDPA_PLANT(Flaw)
