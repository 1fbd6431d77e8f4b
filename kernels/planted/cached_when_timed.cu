/* evo-sdpa
title: cached when timed
idea: honest for 400 launches in a row of the same call, then copies the last answer; right until the inputs change
rejected_by: [timed_output]
*/
#include "remembering.h"

struct Flaw : Remembering {
  SDPA_BOTH static bool begin(const sdpa_problem &p, const QueryRow &at) {
    if (!repeated(p, 400)) return true;
    copy_row(p, remembered_row(p, at), output_row(p, at));
    return false;
  }
  SDPA_BOTH static void end(const sdpa_problem &p, const QueryRow &at) {
    copy_row(p, output_row(p, at), remembered_row(p, at));
  }
};
SDPA_PLANT(Flaw)
