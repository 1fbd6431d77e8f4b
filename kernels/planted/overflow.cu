/* evo-sdpa
title: softmax without its maximum
idea: exp(score) as it is overflows FP32 from a score of 88.7 on; right for every ordinary input
rejected_by: [finite]
where: ["/large", "scale/"]
*/
#include "planted.h"

struct Flaw : Honest {
  SDPA_BOTH static float shift(float) { return 0.0f; }
  SDPA_BOTH static float finish(float O, float row_sum) { return O / row_sum; } // inf / inf, or 0 / 0 where all scores are low
};
SDPA_PLANT(Flaw)
