/* How a kernel with much shared memory is started, and programmatic dependent launch: the next launch may begin while this one still
 * runs, and waits by itself until it may touch memory. Times of such launches in a row are a throughput, shorter than any of them
 * takes, so a variant that uses it says so in its name (lever PDL) and is never ranked beside the others. */
#ifndef SDPA_LAUNCH_CUH
#define SDPA_LAUNCH_CUH

#include <cuda_runtime.h>

// kernel<<<grid, threads, shared_bytes, stream>>>(args...); overlapping: it may begin before the launch before has ended. Returns 0
// or a cudaError_t. Above 48 KiB of shared memory a kernel must ask: asked on every launch, which costs little, so that no state
// outlives the call.
template <typename... Parameters, typename... Arguments>
static int launch_kernel(void (*kernel)(Parameters...), dim3 grid, int threads, int shared_bytes, void *stream, bool overlapping,
                         const Arguments &...arguments) {
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = (cudaStream_t)stream;
  config.attrs = &attribute;
  config.numAttrs = overlapping;
  cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
  if (error == cudaSuccess) error = cudaLaunchKernelEx(&config, kernel, arguments...);
  const cudaError_t last = cudaGetLastError(); // the same error again; either way it is cleared
  return error != cudaSuccess ? error : last;
}

// The next launch may begin. Without effect when it was not launched to overlap.
__device__ __forceinline__ void allow_next_launch() { asm volatile("griddepcontrol.launch_dependents;" : : : "memory"); }

// Until the launch before has ended and what it wrote is visible. Nothing that it might write or read is touched before.
__device__ __forceinline__ void wait_for_previous_launch() { asm volatile("griddepcontrol.wait;" : : : "memory"); }

#endif
