/* evo-sdpa
title: fails what it took
idea: sdpa_supports takes head_dim 128, sdpa_launch then returns an error, as when a CTA asks for more shared memory than there is
rejected_by: [launch]
where: ["d128"]
*/
#include "planted.h"

struct Flaw : Honest {
  static int launch(const sdpa_problem &p, void *stream, Attend *attend) {
    return p.head_dim == 128 ? 1 /* cudaErrorInvalidValue */ : attend(p, stream);
  }
};
SDPA_PLANT(Flaw)
