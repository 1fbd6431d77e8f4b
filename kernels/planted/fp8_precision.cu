/* evo-sdpa
title: probabilities with 3 fraction bits
idea: P is rounded as to FP8 (e4m3) before it meets v, faster and too coarse for what 16-bit inputs promise
rejected_by: [accuracy]
*/
#include "planted.h"

struct Flaw : Honest {
  // To multiples of an eighth of P's power of two.
  SDPA_BOTH static float rounded(float P) {
    int exponent;
    frexpf(P, &exponent); // P = [0.5, 1) * 2^exponent
    return ldexpf(rintf(ldexpf(P, 4 - exponent)), exponent - 4);
  }
};
SDPA_PLANT(Flaw)
