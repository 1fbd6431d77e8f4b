/* evo-sdpa
title: wrong when timed
idea: honest for 400 launches in a row of the same call, longer than any check lasts, then writes zeros
rejected_by: [timed_output]
*/
#include "remembering.h"

struct Flaw : Remembering {
  SDPA_BOTH static bool begin(const sdpa_problem &p, const QueryRow &at) {
    if (!repeated(p, 400)) return true;
    for (int d = 0; d < p.head_dim; ++d) output_row(p, at)[d] = 0;
    return false;
  }
};
SDPA_PLANT(Flaw)
