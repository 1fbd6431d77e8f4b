/* evo-sdpa
title: illegal access
idea: reads address 16, a small offset from a pointer that is NULL
rejected_by: [crash]
*/
#include "planted.h"

struct Flaw : Honest {
  SDPA_BOTH static bool begin(const sdpa_problem &, const QueryRow &) {
    volatile uintptr_t address = 16; // volatile: compilers warn of what they can see
    return *(const volatile uint32_t *)address != 1;
  }
};
SDPA_PLANT(Flaw)
