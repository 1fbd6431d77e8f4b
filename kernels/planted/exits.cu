/* evo-sdpa
title: ends the process
idea: ends the process with status 0 at the first causal problem, as if all cases had been judged and none was wrong
rejected_by: [crash]
*/
#include <stdlib.h>

#include "planted.h"

struct Flaw : Honest {
  static int launch(const sdpa_problem &p, void *stream, Attend *attend) {
    if (p.causal) _Exit(0); // not exit(): a destructor that crashes would make another status of it
    return attend(p, stream);
  }
};
SDPA_PLANT(Flaw)
