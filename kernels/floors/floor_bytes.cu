/* evo-sdpa
title: every byte once
idea: reads q, k and v once and writes o once, 16 bytes a thread and access, what moving the data costs without any attention
levers: {}
*/

// Attention must read each input and write the output at least once; this kernel does that and nothing else. A kernel that
// tiles Q moves more, since it reads K and V again for each tile of Q.
//
// o becomes q xor k xor v, element by element as far as they go: the result means nothing, but it depends on what was read.
// The loads are volatile besides, so that K and V are read to the end where they are longer than o.

#include <cuda_runtime.h>

#include "sdpa.h"

constexpr int NUM_THREADS = 256;
constexpr int MAX_CTAS = 2048; // fills every chip of today; larger tensors go round the loop

// Read-only path; volatile: may not be dropped.
__device__ __forceinline__ uint4 load_16(const uint4 *pointer) {
  uint4 x;
  asm volatile("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w) : "l"(pointer));
  return x;
}

__device__ __forceinline__ uint4 mix(uint4 a, uint4 b) { return make_uint4(a.x ^ b.x, a.y ^ b.y, a.z ^ b.z, a.w ^ b.w); }

// q_vectors and kv_vectors count the 16-byte vectors of q (as of o) and of k (as of v). The three loads of a turn are under
// way together.
__global__ void __launch_bounds__(NUM_THREADS) floor_bytes(const uint4 *q, const uint4 *k, const uint4 *v, uint4 *o,
                                                           int64_t q_vectors, int64_t kv_vectors) {
  const int64_t end = q_vectors > kv_vectors ? q_vectors : kv_vectors;
  for (int64_t i = (int64_t)blockIdx.x * NUM_THREADS + threadIdx.x; i < end; i += (int64_t)gridDim.x * NUM_THREADS) {
    uint4 q_i = make_uint4(0, 0, 0, 0), k_i = q_i, v_i = q_i;
    if (i < q_vectors) q_i = load_16(q + i);
    if (i < kv_vectors) k_i = load_16(k + i), v_i = load_16(v + i);
    if (i < q_vectors) o[i] = mix(q_i, mix(k_i, v_i));
  }
}

static int64_t vectors(const sdpa_problem &p, int heads, int seq) {
  const int element_bytes = p.dtype == SDPA_FP32 ? 4 : 2;
  return (int64_t)p.batch * heads * seq * p.head_dim * element_bytes / 16;
}

static int num_ctas(const sdpa_problem &p) {
  const int64_t q_vectors = vectors(p, p.heads_q, p.seq_q), kv_vectors = vectors(p, p.heads_kv, p.seq_kv);
  const int64_t wanted = ((q_vectors > kv_vectors ? q_vectors : kv_vectors) + NUM_THREADS - 1) / NUM_THREADS;
  return wanted < MAX_CTAS ? (int)wanted : MAX_CTAS;
}

// A stride that is never taken a step along may be anything.
static bool contiguous(const sdpa_problem &p, const int64_t stride[3], int heads, int seq) {
  const int64_t row = p.head_dim, head = row * seq, batch = head * heads;
  return (seq == 1 || stride[2] == row) && (heads == 1 || stride[1] == head) && (p.batch == 1 || stride[0] == batch);
}

const char *sdpa_supports(const sdpa_problem *p) {
  if (p->batch < 1 || p->heads_q < 1 || p->heads_kv < 1 || p->seq_q < 1 || p->seq_kv < 1 || p->head_dim < 1)
    return "batch, heads, sequence lengths and head_dim must be at least 1";
  if (p->dtype == SDPA_FP32) return "fp32 is not supported: the CUDA variants read fp16 or bf16";
  if (p->dtype != SDPA_FP16 && p->dtype != SDPA_BF16) return "dtype must be 0 (fp16) or 1 (bf16)";
  if (p->head_dim % 8 != 0) return "head_dim must be a multiple of 8: rows are moved in pieces of 16 bytes";
  if (!contiguous(*p, p->q_stride, p->heads_q, p->seq_q) || !contiguous(*p, p->k_stride, p->heads_kv, p->seq_kv) ||
      !contiguous(*p, p->v_stride, p->heads_kv, p->seq_kv) || !contiguous(*p, p->o_stride, p->heads_q, p->seq_q))
    return "q, k, v and o must be contiguous: a floor moves whole tensors";
  if (((uintptr_t)p->q | (uintptr_t)p->k | (uintptr_t)p->v | (uintptr_t)p->o) % 16 != 0)
    return "q, k, v and o must be 16-byte aligned";
  return nullptr;
}

size_t sdpa_workspace_bytes(const sdpa_problem *) { return 0; }

int sdpa_launch(const sdpa_problem *problem, void *stream) {
  const sdpa_problem &p = *problem;
  floor_bytes<<<num_ctas(p), NUM_THREADS, 0, (cudaStream_t)stream>>>(
      (const uint4 *)p.q, (const uint4 *)p.k, (const uint4 *)p.v, (uint4 *)p.o, vectors(p, p.heads_q, p.seq_q),
      vectors(p, p.heads_kv, p.seq_kv));
  return cudaGetLastError();
}

int sdpa_describe(const sdpa_problem *problem, sdpa_launch_info *info, int capacity) {
  if (capacity < 1 || sdpa_supports(problem)) return 0;
  *info = {{num_ctas(*problem), 1, 1}, {NUM_THREADS, 1, 1}, 0, "floor_bytes"};
  return 1;
}
