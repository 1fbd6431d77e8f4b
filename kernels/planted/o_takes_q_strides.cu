/* evo-sdpa
title: o written with q's strides
idea: takes o to be laid out as q is, which callers mostly do; otherwise its rows land in the gaps between o's
rejected_by: [bounds]
where: ["strided"]
*/
#include "planted.h"

struct Flaw : Honest {
  static int launch(const sdpa_problem &p, void *stream, Attend *attend) {
    sdpa_problem assumed = p;
    for (int i = 0; i < 3; ++i) assumed.o_stride[i] = p.q_stride[i];
    return attend(assumed, stream);
  }
};
SDPA_PLANT(Flaw)
