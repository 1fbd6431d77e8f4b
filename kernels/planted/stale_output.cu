/* evo-sdpa
title: the answer of the launch before
idea: two output buffers swapped at the wrong moment; a timing loop over one problem never notices
rejected_by: [repeatable]
*/
#include "remembering.h"

struct Flaw : Remembering {
  SDPA_BOTH static void end(const sdpa_problem &p, const QueryRow &at) {
    uint16_t *O_row = output_row(p, at), *kept_row = remembered_row(p, at);
    for (int d = 0; d < p.head_dim; ++d) {
      const uint16_t answer = O_row[d];
      O_row[d] = kept_row[d];
      kept_row[d] = answer;
    }
  }
};
SDPA_PLANT(Flaw)
