/* The contract between a variant and evo-sdpa.
 *
 * A variant is one source file that exports the functions below. They are plain C, so a variant compiles in seconds
 * without PyTorch's headers and nothing in Python can patch what it does. CUDA sources (kernels/<name>.cu) and host
 * sources (kernels/<name>.cpp, run on the CPU with `stream` ignored) include the same header.
 *
 * Rules a variant keeps, and the checks that find out:
 *   - everything is enqueued on the given stream; no allocation, no synchronisation, no state kept between calls
 *     (a launch must be capturable in a CUDA graph);
 *   - nothing is written outside `o` and `workspace`; the inputs stay untouched;
 *   - what sdpa_supports() refuses is shown to the user with its reason; what it accepts must be right.
 */
#ifndef SDPA_H
#define SDPA_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#define SDPA_API extern "C" __attribute__((visibility("default")))
#else
#define SDPA_API __attribute__((visibility("default")))
#endif

enum { SDPA_FP16 = 0, SDPA_BF16 = 1, SDPA_FP32 = 2 };

typedef struct {
  int32_t batch, heads_q, heads_kv, seq_q, seq_kv, head_dim; /* heads_kv divides heads_q (GQA) */
  int32_t dtype;                                             /* SDPA_FP16, SDPA_BF16 or SDPA_FP32 */
  int32_t causal;      /* 1: query i sees keys 0..i, top-left aligned, as PyTorch's is_causal */
  float scale;         /* multiplies q.k; 1/sqrt(head_dim) by default */
  const void *q, *k, *v; /* [batch, heads, seq, head_dim]; last dimension contiguous */
  void *o;               /* same dtype as q */
  int64_t q_stride[3], k_stride[3], v_stride[3], o_stride[3]; /* elements: batch, head, row */
  void *workspace;       /* sdpa_workspace_bytes() bytes, contents undefined, 256-byte aligned */
} sdpa_problem;

/* NULL: yes. Otherwise the reason, a string that lives as long as the library, shown to the user as it is. */
SDPA_API const char *sdpa_supports(const sdpa_problem *problem);

/* Bytes of scratch that one launch needs; 0 for none. */
SDPA_API size_t sdpa_workspace_bytes(const sdpa_problem *problem);

/* Enqueue the work on `stream` (a cudaStream_t; ignored by host variants). Returns 0 or a cudaError_t. */
SDPA_API int sdpa_launch(const sdpa_problem *problem, void *stream);

/* How one kernel of a launch is configured: what the cubin alone does not tell. */
typedef struct {
  int32_t grid[3], block[3];
  int32_t dynamic_shared_bytes;
  const char *kernel; /* a part of the kernel's mangled name that picks it out of the cubin */
} sdpa_launch_info;

/* Optional, CUDA variants only: fill up to `capacity` entries, one for each kernel that sdpa_launch() would start for
 * this problem, and return how many there are. Must work on a machine without a GPU; it lets occupancy and waves be
 * computed there. The problem's pointers may be NULL. */
SDPA_API int sdpa_describe(const sdpa_problem *problem, sdpa_launch_info *info, int capacity);

#endif
