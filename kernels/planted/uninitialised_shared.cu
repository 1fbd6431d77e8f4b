/* evo-sdpa
title: shared memory read before it is written
idea: takes the first column of each row from a tile in shared memory that nobody filled
rejected_by: [poison]
runs_on: [gpu]
*/
#include "planted.h"

struct Flaw : Honest {
  SDPA_BOTH static void end(const sdpa_problem &p, const QueryRow &at) {
    __shared__ volatile uint16_t tile[CTA_ROWS][MAX_HEAD_DIM]; // volatile: without it the compiler may make up a value
    output_row(p, at)[0] = tile[threadIdx.x][0];
  }
};
SDPA_PLANT(Flaw)
