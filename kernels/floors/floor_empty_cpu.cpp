/* evo-sdpa
title: empty call on the CPU
idea: returns at once, what a call through the contract costs when it does nothing
levers: {}
*/

// The CPU twin of floor_empty.cu.

#include "sdpa.h"

const char *sdpa_supports(const sdpa_problem *) { return nullptr; }

size_t sdpa_workspace_bytes(const sdpa_problem *) { return 0; }

int sdpa_launch(const sdpa_problem *, void *) { return 0; }
