/* evo-sdpa
title: one element before o
idea: writes the element that precedes o's first row
rejected_by: [bounds]
*/
#include "planted.h"

struct Flaw : Honest {
  SDPA_BOTH static void end(const sdpa_problem &p, const QueryRow &at) {
    if (row_number(p, at) == 0) output_row(p, at)[-1] = 0;
  }
};
SDPA_PLANT(Flaw)
