/* What the host side of a kernel asks of the device that it is launched on. */
#ifndef SDPA_DEVICE_CUH
#define SDPA_DEVICE_CUH

#include <cuda_runtime.h>

// SMs of the current device; 132, an H100's or H200's (SXM), where there is none.
static int num_sms() {
  int device = 0, sms = 0;
  if (cudaGetDevice(&device) == cudaSuccess && cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device) == cudaSuccess) return sms;
  cudaGetLastError(); // answered here: the next launch must not report it again
  return 132;
}

#endif
