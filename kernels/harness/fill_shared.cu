/* evo-sdpa
title: fill shared memory
idea: one byte all over every SM's shared memory, so that a kernel that reads what it never wrote meets a known value
*/

#include <cuda_runtime.h>

#include <stdint.h>

constexpr int NUM_THREADS = 256;
constexpr int CTAS_PER_SM = 4; // one fills an SM; more than one wave of them, should an SM have been busy in the first

// volatile: these writes are never read here, and must be done all the same.
__global__ void __launch_bounds__(NUM_THREADS) fill(uint32_t word, int words) {
  extern __shared__ volatile uint32_t shared[];
  for (int i = threadIdx.x; i < words; i += NUM_THREADS) shared[i] = word;
}

// Enqueues on `stream`; no allocation, no synchronisation. Returns 0 or a cudaError_t.
extern "C" __attribute__((visibility("default"))) int fill_shared(int byte_pattern, void *stream) {
  int device, sms, bytes; // bytes: the most that one CTA may ask for, so that no two are on an SM together
  if (const cudaError_t error = cudaGetDevice(&device)) return error;
  if (const cudaError_t error = cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device)) return error;
  if (const cudaError_t error = cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device)) return error;
  if (const cudaError_t error = cudaFuncSetAttribute(fill, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes)) return error;
  const uint32_t word = 0x01010101u * (uint8_t)byte_pattern;
  fill<<<CTAS_PER_SM * sms, NUM_THREADS, bytes, (cudaStream_t)stream>>>(word, bytes / (int)sizeof word);
  return cudaGetLastError();
}
