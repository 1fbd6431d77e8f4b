/* evo-sdpa
title: NaN hidden
idea: a row whose sum is 0 or NaN becomes 0, as some libraries guard their division; a broken input then looks like an answer
rejected_by: [nan]
where: ["/nan"]
*/
#include "planted.h"

struct Flaw : Honest {
  SDPA_BOTH static float finish(float O, float row_sum) {
    return row_sum == 0.0f || row_sum != row_sum ? 0.0f : O / row_sum;
  }
};
SDPA_PLANT(Flaw)
