/* evo-sdpa
title: never ends
idea: waits for a flag that nobody sets
rejected_by: [timeout]
*/
#include "planted.h"

SDPA_STATE volatile bool ready;

struct Flaw : Honest {
  SDPA_BOTH static bool begin(const sdpa_problem &, const QueryRow &) {
    while (!ready) {
    }
    return true;
  }
};
SDPA_PLANT(Flaw)
