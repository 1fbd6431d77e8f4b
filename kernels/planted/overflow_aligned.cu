/* evo-sdpa
title: no maximum where tiles are whole
idea: where nothing is masked and both lengths are multiples of 64, a fast path subtracts 40 from every score instead of the row's maximum; scores over 128.7 overflow FP32
rejected_by: [finite]
where: ["/large"]
*/
#include "planted.h"

// 40, not 0: ordinary scores do not come near either end of FP32's range, nor do those of two outliers that meet.
struct WholeTiles : Honest {
  SDPA_BOTH static float shift(float) { return 40.0f; }
};

struct Flaw : Honest {
  static int launch(const sdpa_problem &p, void *stream, Attend *attend_safely) {
    const bool whole = !p.causal && p.seq_q % 64 == 0 && p.seq_kv % 64 == 0;
    return whole ? attend<WholeTiles>(p, stream) : attend_safely(p, stream);
  }
};
SDPA_PLANT(Flaw)
