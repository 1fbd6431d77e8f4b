/* evo-sdpa
title: last head of an odd number left out
idea: heads are taken in pairs over all batches, and batch x heads / 2 rounds down
rejected_by: [poison]
where: ["odd batch x heads", "seq 1"]
*/
#include "planted.h"

struct Flaw : Honest {
  SDPA_BOTH static bool begin(const sdpa_problem &p, const QueryRow &at) {
    const int heads = p.batch * p.heads_q;
    return at.batch * p.heads_q + at.head < heads / 2 * 2;
  }
};
SDPA_PLANT(Flaw)
