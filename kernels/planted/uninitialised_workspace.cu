/* evo-sdpa
title: workspace read before it is written
idea: takes the first column of each row from scratch memory that nobody filled
rejected_by: [poison, initcheck]
*/
#include "planted.h"

struct Flaw : Honest {
  static size_t workspace_bytes(const sdpa_problem &p) { return sizeof(uint16_t) * p.batch * p.heads_q * p.seq_q; }
  SDPA_BOTH static void end(const sdpa_problem &p, const QueryRow &at) {
    output_row(p, at)[0] = ((const uint16_t *)p.workspace)[row_number(p, at)];
  }
};
SDPA_PLANT(Flaw)
