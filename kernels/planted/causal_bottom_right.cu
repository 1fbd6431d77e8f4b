/* evo-sdpa
title: causal mask aligned to the bottom right
idea: the last query sees all keys, as FlashAttention aligns it; right wherever seq_q equals seq_kv
rejected_by: [accuracy]
where: ["primes", "one query", "one key", "one kv head"]
*/
#include "planted.h"

struct Flaw : Honest {
  SDPA_BOTH static int weight(const sdpa_problem &p, int row, int key) {
    return p.causal && key > row + p.seq_kv - p.seq_q ? 0 : 1;
  }
};
SDPA_PLANT(Flaw)
