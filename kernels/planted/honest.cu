/* evo-sdpa
title: no flaw
idea: the control; what the other planted kernels would be without their flaw passes every check
rejected_by: []
*/
#include "planted.h"
SDPA_PLANT(Honest)
