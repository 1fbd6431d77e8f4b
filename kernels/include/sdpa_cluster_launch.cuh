/* How a kernel is started whose cluster's size is known only at launch, and how many such clusters run at once. Host code only. */
#ifndef SDPA_CLUSTER_LAUNCH_CUH
#define SDPA_CLUSTER_LAUNCH_CUH

#include <cuda_runtime.h>

#include "sdpa_device.cuh"

// What a launch of clusters of so many CTAs along x is configured by; `attribute` must live as long.
static cudaLaunchConfig_t cluster_config(cudaLaunchAttribute &attribute, dim3 grid, unsigned cluster, int threads, int shared_bytes) {
  attribute = {};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = cluster, attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared_bytes;
  config.attrs = &attribute;
  config.numAttrs = 1;
  return config;
}

// How many clusters the device runs at once: which of its SMs can be in one is its own. Without a device as many
// as there are SMs for.
template <typename... Parameters>
static int clusters_at_once(void (*kernel)(Parameters...), unsigned cluster, int threads, int shared_bytes) {
  cudaLaunchAttribute attribute;
  const cudaLaunchConfig_t config = cluster_config(attribute, dim3(cluster), cluster, threads, shared_bytes);
  int count = 0;
  cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
  if (error == cudaSuccess) error = cudaOccupancyMaxActiveClusters(&count, kernel, &config);
  if (error == cudaSuccess) return count;
  cudaGetLastError(); // answered here: the next launch must not report it again
  return num_sms() / (int)cluster;
}

// launch_kernel() (sdpa_launch.cuh) for clusters of so many CTAs along x, of which grid.x is a multiple. Returns 0 or a cudaError_t.
template <typename... Parameters, typename... Arguments>
static int launch_clusters(void (*kernel)(Parameters...), dim3 grid, unsigned cluster, int threads, int shared_bytes, void *stream,
                           const Arguments &...arguments) {
  cudaLaunchAttribute attribute;
  cudaLaunchConfig_t config = cluster_config(attribute, grid, cluster, threads, shared_bytes);
  config.stream = (cudaStream_t)stream;
  cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
  if (error == cudaSuccess) error = cudaLaunchKernelEx(&config, kernel, arguments...);
  const cudaError_t last = cudaGetLastError(); // the same error again; either way it is cleared
  return error != cudaSuccess ? error : last;
}

#endif
