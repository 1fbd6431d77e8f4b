/* evo-sdpa
title: cached by pointer
idea: when all pointers are those of the launch before, the answer is taken from a cache; benchmarks reuse their tensors
rejected_by: [fresh]
*/
#include "remembering.h"

struct Flaw : Remembering {
  SDPA_BOTH static bool begin(const sdpa_problem &p, const QueryRow &at) {
    if (!repeated(p, 1)) return true;
    copy_row(p, remembered_row(p, at), output_row(p, at));
    return false;
  }
  SDPA_BOTH static void end(const sdpa_problem &p, const QueryRow &at) {
    copy_row(p, output_row(p, at), remembered_row(p, at));
  }
};
SDPA_PLANT(Flaw)
