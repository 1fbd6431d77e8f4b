/* evo-sdpa
title: one row too many read
idea: loads the row behind k's last one and throws it away, a prefetch that runs ahead of its loop
rejected_by: [memcheck]
runs_on: [gpu]
*/
#include "planted.h"

struct Flaw : Honest {
  SDPA_BOTH static void end(const sdpa_problem &p, const QueryRow &) {
    const int64_t behind = key_offset(p, p.k_stride, p.batch - 1, p.heads_kv - 1, p.seq_kv);
    (void)*((const volatile uint16_t *)p.k + behind); // volatile: the load stays although nobody uses it
  }
};
SDPA_PLANT(Flaw)
