// Occupancy of one kernel launch, by NVIDIA's own cuda_occupancy.h; needs neither a GPU nor a driver.
// Arguments: major minor threads_per_sm registers_per_sm shared_per_sm shared_per_block sms
//            registers static_shared dynamic_shared threads_per_block
// Prints: active blocks per SM, bit mask of limiting factors.
#include <cuda_occupancy.h>

#include <cstdio>
#include <cstdlib>

int main(int argc, char **argv) {
  if (argc != 12) return 2;
  const auto number = [&](int i) { return std::atoi(argv[i]); };
  cudaOccDeviceProp device;
  device.computeMajor = number(1);
  device.computeMinor = number(2);
  device.maxThreadsPerBlock = 1024;
  device.maxThreadsPerMultiprocessor = number(3);
  device.regsPerBlock = device.regsPerMultiprocessor = number(4);
  device.warpSize = 32;
  device.sharedMemPerBlock = 49152;
  device.sharedMemPerMultiprocessor = number(5);
  device.sharedMemPerBlockOptin = number(6);
  device.reservedSharedMemPerBlock = 1024;
  device.numSms = number(7);
  cudaOccFuncAttributes kernel;
  kernel.maxThreadsPerBlock = 1024;
  kernel.numRegs = number(8);
  kernel.sharedSizeBytes = number(9);
  kernel.partitionedGCConfig = PARTITIONED_GC_OFF;
  kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
  kernel.maxDynamicSharedSizeBytes = number(10);
  kernel.numBlockBarriers = 1;
  cudaOccDeviceState state;
  cudaOccResult result;
  if (cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &kernel, &state, number(11), number(10)) != CUDA_OCC_SUCCESS)
    return 1;
  std::printf("%d %u\n", result.activeBlocksPerMultiprocessor, result.limitingFactors);
}
