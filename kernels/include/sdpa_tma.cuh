/* Hopper's copy engine: tensor maps made on the host, boxes of a tensor fetched into swizzled shared memory by one thread, and the
 * mbarriers that count the bytes as they arrive. Needs sm_90; a source that includes it says so in sdpa_supports().
 *
 * A box here is always ROWS x 64 elements of 16 bits: rows of 128 bytes with the 128-byte swizzle, which is what wgmma's descriptors
 * in sdpa_wgmma.cuh read. head_dim 128 is two boxes. A box must start at a multiple of 1024 bytes of shared memory. */
#ifndef SDPA_TMA_CUH
#define SDPA_TMA_CUH

#include <cuda.h>
#include <cuda_runtime.h>
#include <stdint.h>

#include "sdpa.h"

constexpr int BOX_COLUMNS = 64;

// ---- Host: tensor maps -----------------------------------------------------------------------------------------------

// The map of a [batch, heads, seq, head_dim] tensor of 16-bit elements, read in boxes of box_rows x 64; what lies behind the last
// row of a head arrives as zeros. Made anew on every launch (some 100 ns on the host): nothing is kept between calls. The driver's
// function is asked for by name, so that no library but the runtime is linked. Returns 0 or a cudaError_t.
static int make_tensor_map(CUtensorMap *map, const void *tensor, int batch, int heads, int seq, int head_dim, const int64_t stride[3],
                           int dtype, int box_rows) {
  void *symbol = nullptr;
  cudaDriverEntryPointQueryResult found;
  const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &symbol, 12000, cudaEnableDefault, &found);
  if (error != cudaSuccess) return error;
  if (found != cudaDriverEntryPointSuccess) return cudaErrorNotSupported;
  const cuuint64_t sizes[4] = {(cuuint64_t)head_dim, (cuuint64_t)seq, (cuuint64_t)heads, (cuuint64_t)batch};
  // A stride that is never taken a step along may be anything in the contract, but the driver wants a multiple of 16 bytes.
  const cuuint64_t strides[3] = {seq > 1 ? (cuuint64_t)stride[2] * 2 : (cuuint64_t)head_dim * 2,
                                 heads > 1 ? (cuuint64_t)stride[1] * 2 : (cuuint64_t)head_dim * 2,
                                 batch > 1 ? (cuuint64_t)stride[0] * 2 : (cuuint64_t)head_dim * 2};
  const cuuint32_t box[4] = {BOX_COLUMNS, (cuuint32_t)box_rows, 1, 1}, steps[4] = {1, 1, 1, 1};
  const CUresult result = ((decltype(&cuTensorMapEncodeTiled))symbol)(
      map, dtype == SDPA_BF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 4, const_cast<void *>(tensor), sizes,
      strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

// Why a tensor has no map: strides along which steps are taken are bytes between 1 and 2^40 there. NULL when all have one.
static bool has_tensor_map(const int64_t stride[3], int batch, int heads, int seq) {
  const int sizes[3] = {batch, heads, seq};
  for (int i = 0; i < 3; ++i)
    if (sizes[i] > 1 && (stride[i] < 1 || stride[i] >= (int64_t)1 << 39)) return false;
  return true;
}

static const char *tensor_map_reason(const sdpa_problem &p) {
  if (!has_tensor_map(p.q_stride, p.batch, p.heads_q, p.seq_q)) return "q: strides must be positive and below 2^39 elements (TMA)";
  if (!has_tensor_map(p.k_stride, p.batch, p.heads_kv, p.seq_kv)) return "k: strides must be positive and below 2^39 elements (TMA)";
  if (!has_tensor_map(p.v_stride, p.batch, p.heads_kv, p.seq_kv)) return "v: strides must be positive and below 2^39 elements (TMA)";
  return nullptr;
}

// What a kernel needs to know besides its tensor maps. Small, since every SM fetches it anew on each launch.
typedef struct {
  void *o;
  int64_t o_stride[3];
  int32_t seq_q, seq_kv, causal;
  uint32_t group_inverse; /* 2^32 over the query heads of a kv head, rounded up; 0 when there is one of each */
  float scale;            /* multiplies q.k and log2(e): weights are powers of 2 */
} tiled_problem;

static tiled_problem tiled(const sdpa_problem &p) {
  const uint32_t group = p.heads_q / p.heads_kv;
  return {p.o, {p.o_stride[0], p.o_stride[1], p.o_stride[2]}, p.seq_q, p.seq_kv, p.causal,
          group == 1 ? 0 : (uint32_t)((0x100000000ull + group - 1) / group), p.scale * 1.44269504f};
}

// The kv head of a query head. A division would stand between the start of a kernel and its first load. Exact: the inverse is less than
// 2^-32 too large, and head x group < 2^32 keeps the product's error below 1 / group, the distance to the next integer.
__device__ __forceinline__ int kv_head_of(const tiled_problem &p, int head) {
  return p.group_inverse ? (int)__umulhi((uint32_t)head, p.group_inverse) : head;
}

// Why the device cannot run code built for sm_90a; NULL when it can.
static const char *hopper_reason() {
  int device = 0, major = 0, minor = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  if (error != cudaSuccess) {
    cudaGetLastError(); // answered here: the next launch must not report it again
    return "no usable CUDA device";
  }
  if (major != 9 || minor != 0) return "needs an sm_90 device (Hopper): it uses wgmma and TMA";
  return nullptr;
}

// ---- Device: barriers and copies --------------------------------------------------------------------------------------

__device__ __forceinline__ uint32_t smem_address(const void *smem) { return (uint32_t)__cvta_generic_to_shared(smem); }

// One thread of the (fully active) warp, the same one every time. Unlike `lane == 0` the compiler knows that it is one.
__device__ __forceinline__ bool elect_one() {
  uint32_t elected;
  asm volatile("{ .reg .pred p; elect.sync _|p, 0xffffffff; selp.u32 %0, 1, 0, p; }" : "=r"(elected));
  return elected;
}

__device__ __forceinline__ void mbarrier_init(uint64_t *barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" : : "r"(smem_address(barrier)), "r"(arrivals) : "memory");
}

// Initialised barriers become visible to the copy engine (and to the cluster). Other threads need a barrier of their own as well.
__device__ __forceinline__ void mbarrier_init_fence() { asm volatile("fence.mbarrier_init.release.cluster;" : : : "memory"); }

// Arrives and announces that so many bytes are on their way.
__device__ __forceinline__ void mbarrier_expect(uint64_t *barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" : : "r"(smem_address(barrier)), "r"(bytes) : "memory");
}

__device__ __forceinline__ void mbarrier_arrive(uint64_t *barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" : : "r"(smem_address(barrier)) : "memory");
}

// Until the phase with this parity is complete; the bytes that it counted are then visible to the thread.
__device__ __forceinline__ void mbarrier_wait(uint64_t *barrier, int parity) {
  asm volatile("{\n"
               ".reg .pred done;\n"
               "again:\n"
               "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
               "@!done bra again;\n"
               "}" : : "r"(smem_address(barrier)), "r"(parity) : "memory");
}

// Fetches the box that begins at column, row of a head; its bytes count towards the barrier. One thread calls it.
__device__ __forceinline__ void tma_load(void *smem, const CUtensorMap *map, uint64_t *barrier, int column, int row, int head, int batch) {
  asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], [%2];"
               :
               : "r"(smem_address(smem)), "l"(map), "r"(smem_address(barrier)), "r"(column), "r"(row), "r"(head), "r"(batch)
               : "memory");
}

#endif
