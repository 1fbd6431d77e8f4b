/* evo-sdpa
title: q changed in place
idea: clears the lowest 3 bits of each element of q before it is used, and leaves it so
rejected_by: [inputs]
*/
#include "planted.h"

struct Flaw : Honest {
  // Clearing low bits twice changes no more than once: every launch sees the same q and gives the same answer, so that
  // only a look at q itself tells.
  SDPA_BOTH static bool begin(const sdpa_problem &p, const QueryRow &at) {
    uint16_t *Q_row = (uint16_t *)p.q + at.batch * p.q_stride[0] + at.head * p.q_stride[1] + at.row * p.q_stride[2];
    for (int d = 0; d < p.head_dim; ++d) Q_row[d] &= 0xfff8;
    return true;
  }
};
SDPA_PLANT(Flaw)
