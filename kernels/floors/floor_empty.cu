/* evo-sdpa
title: empty launch
idea: 128 CTAs of 256 threads that return at once, what a launch costs when it does nothing
levers: {}
*/

// No kernel of this contract can take less time than one that does nothing. 128 CTAs of 256 threads is the shape of the
// kernels that race for the goal problem: about one CTA for each SM.

#include <cuda_runtime.h>

#include "sdpa.h"

constexpr int NUM_CTAS = 128;
constexpr int NUM_THREADS = 256;

// Takes the problem by value as every variant does: the parameters are part of a launch.
__global__ void __launch_bounds__(NUM_THREADS) floor_empty(const __grid_constant__ sdpa_problem) {}

const char *sdpa_supports(const sdpa_problem *) { return nullptr; }

size_t sdpa_workspace_bytes(const sdpa_problem *) { return 0; }

int sdpa_launch(const sdpa_problem *problem, void *stream) {
  floor_empty<<<NUM_CTAS, NUM_THREADS, 0, (cudaStream_t)stream>>>(*problem);
  return cudaGetLastError();
}

int sdpa_describe(const sdpa_problem *, sdpa_launch_info *info, int capacity) {
  if (capacity < 1) return 0;
  *info = {{NUM_CTAS, 1, 1}, {NUM_THREADS, 1, 1}, 0, "floor_empty"};
  return 1;
}
