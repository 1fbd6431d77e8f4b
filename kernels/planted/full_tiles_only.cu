/* evo-sdpa
title: only full tiles of rows
idea: seq_q / 64 rounds down, so the rows of the last partial tile are never written
rejected_by: [poison]
*/
#include "planted.h"

struct Flaw : Honest {
  SDPA_BOTH static bool begin(const sdpa_problem &p, const QueryRow &at) { return at.row < p.seq_q / 64 * 64; }
};
SDPA_PLANT(Flaw)
