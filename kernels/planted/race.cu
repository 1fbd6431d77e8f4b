/* evo-sdpa
title: race between two warps
idea: one warp reads from shared memory what the other writes, with no barrier between; about one launch in 20 goes wrong
rejected_by: [repeatable, racecheck]
*/
#include <chrono>

#include "planted.h"

struct Flaw : Honest {
#ifdef __CUDACC__
  static __device__ void wait(int cycles) {
    for (const long long start = clock64(); clock64() - start < cycles;) {
    }
  }

  static __device__ bool one_time_in_20() { // all CTAs of a launch agree, as long as it is short
    unsigned long long nanoseconds;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(nanoseconds));
    return nanoseconds / 65536 % 20 == 0;
  }

  // Thread 0 publishes the scale. The second warp has a few microseconds of other work first, so it nearly always comes
  // late enough; now and then thread 0 is held up for longer than that, and the second warp's scale is 0.
  static __device__ float scale(const sdpa_problem &p) {
    __shared__ volatile float published;
    if (threadIdx.x == 0) published = 0.0f;
    __syncthreads();
    if (threadIdx.x < 32) {
      if (threadIdx.x == 0) {
        if (one_time_in_20()) wait(40000);
        published = p.scale;
      }
      __syncwarp();
    } else {
      wait(4000);
    }
    // Here __syncthreads() is missing.
    return published;
  }
#else
  // One CPU thread has no races: what one leaves behind is emulated by a row that is wrong in about one launch of 20.
  static int launch(const sdpa_problem &p, void *stream, Attend *attend) {
    const int status = attend(p, stream);
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    const bool lost = std::chrono::duration_cast<std::chrono::nanoseconds>(now).count() / 7 % 20 == 0;
    if (lost) memset(output_row(p, {0, 0, p.seq_q - 1}), 0, sizeof(uint16_t) * p.head_dim);
    return status;
  }
#endif
};
SDPA_PLANT(Flaw)
