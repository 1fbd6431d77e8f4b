/* evo-sdpa
title: v read with k's strides
idea: copy and paste; right as long as k and v are laid out alike, and the gaps between strided rows hold NaN
rejected_by: [finite]
where: ["strided"]
*/
#include "planted.h"

struct Flaw : Honest {
  SDPA_BOTH static int64_t key_offset(const sdpa_problem &p, const int64_t *, int batch, int kv_head, int key) {
    return Honest::key_offset(p, p.k_stride, batch, kv_head, key);
  }
};
SDPA_PLANT(Flaw)
