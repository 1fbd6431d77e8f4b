/* State between launches, which the contract forbids: what the planted kernels with a memory share.
 *
 * All of it lives where the rows are computed, on a GPU in the GPU's memory, so that it also works when a CUDA graph
 * replays a launch and no host code runs.
 */
#ifndef SDPA_REMEMBERING_H
#define SDPA_REMEMBERING_H

#include "planted.h"

constexpr int MAX_REMEMBERED = 1 << 20; // elements of an answer, 2 MiB

SDPA_STATE uint16_t remembered_answer[MAX_REMEMBERED];
SDPA_STATE sdpa_problem last_problem; // of the launch before
SDPA_STATE int launches_in_a_row;     // that were given last_problem, up to now

// Whether two launches are the same call: sizes, type, mask and pointers. What the pointers point at may differ.
SDPA_BOTH inline bool same_call(const sdpa_problem &a, const sdpa_problem &b) {
  for (int i = 0; i < 3; ++i)
    if (a.q_stride[i] != b.q_stride[i] || a.k_stride[i] != b.k_stride[i] || a.v_stride[i] != b.v_stride[i] ||
        a.o_stride[i] != b.o_stride[i])
      return false;
  return a.batch == b.batch && a.heads_q == b.heads_q && a.heads_kv == b.heads_kv && a.seq_q == b.seq_q &&
         a.seq_kv == b.seq_kv && a.head_dim == b.head_dim && a.dtype == b.dtype && a.causal == b.causal &&
         a.scale == b.scale && a.q == b.q && a.k == b.k && a.v == b.v && a.o == b.o;
}

SDPA_BOTH inline void remember_problem(const sdpa_problem &p) {
  launches_in_a_row = same_call(p, last_problem) ? launches_in_a_row + 1 : 1;
  last_problem = p;
}

#ifdef __CUDACC__
// A kernel of its own behind the rows, which read the state: one thread may then change it.
static __global__ void remember(const __grid_constant__ sdpa_problem p) { remember_problem(p); }
#endif

struct Remembering : Honest {
  static const char *supports(const sdpa_problem &p) {
    const int64_t elements = (int64_t)p.batch * p.heads_q * p.seq_q * p.head_dim;
    return elements > MAX_REMEMBERED ? "the output is larger than what this kernel can remember" : nullptr;
  }

  static int launch(const sdpa_problem &p, void *stream, Attend *attend) {
    if (const int status = attend(p, stream)) return status;
#ifdef __CUDACC__
    remember<<<1, 1, 0, (cudaStream_t)stream>>>(p);
    return cudaGetLastError();
#else
    remember_problem(p);
    return 0;
#endif
  }

  // Whether this launch is the same call as at least `count` launches just before it.
  SDPA_BOTH static bool repeated(const sdpa_problem &p, int count) {
    return launches_in_a_row >= count && same_call(p, last_problem);
  }

  SDPA_BOTH static uint16_t *remembered_row(const sdpa_problem &p, const QueryRow &at) {
    return remembered_answer + row_number(p, at) * p.head_dim;
  }

  SDPA_BOTH static void copy_row(const sdpa_problem &p, const uint16_t *from, uint16_t *to) {
    for (int d = 0; d < p.head_dim; ++d) to[d] = from[d];
  }
};

#endif
