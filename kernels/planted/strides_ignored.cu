/* evo-sdpa
title: strides of k and v ignored
idea: reads k and v as if they were contiguous; the gaps between strided rows hold NaN
rejected_by: [finite]
where: ["strided"]
*/
#include "planted.h"

struct Flaw : Honest {
  SDPA_BOTH static int64_t key_offset(const sdpa_problem &p, const int64_t *, int batch, int kv_head, int key) {
    return (((int64_t)batch * p.heads_kv + kv_head) * p.seq_kv + key) * p.head_dim;
  }
};
SDPA_PLANT(Flaw)
