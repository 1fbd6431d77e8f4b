/* evo-sdpa
title: never ends
idea: waits for a flag that nobody sets
rejected_by: [timeout]
*/
#include "planted.h"

struct Flaw : Honest {
  SDPA_BOTH static bool begin(const sdpa_problem &, const QueryRow &) {
    volatile bool ready = false;
    while (!ready) {
    }
    return true;
  }
};
SDPA_PLANT(Flaw)
