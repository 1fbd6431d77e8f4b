/* evo-sdpa
title: one element behind o
idea: writes the element that follows o's last row
rejected_by: [bounds]
*/
#include "planted.h"

struct Flaw : Honest {
  SDPA_BOTH static void end(const sdpa_problem &p, const QueryRow &at) {
    if (row_number(p, at) == (int64_t)p.batch * p.heads_q * p.seq_q - 1) output_row(p, at)[p.head_dim] = 0;
  }
};
SDPA_PLANT(Flaw)
