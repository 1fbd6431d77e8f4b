/* What a CUDA variant that moves 16 bytes at a time asks of a problem and of the device. Host code only. The functions are
 * static, not inline: the text buffer below must be the library's own, not one that all loaded variants share. */
#ifndef SDPA_CHECKS_H
#define SDPA_CHECKS_H

#include <cuda_runtime.h>
#include <stdint.h>
#include <stdio.h>

#include "sdpa.h"

// Loads and the stores of O move 16 bytes, so every row must start on such a boundary. A stride that is never taken a
// step along may be anything; a pointer that is NULL is not known yet.
static bool rows_aligned(const void *pointer, const int64_t stride[3], int batch, int heads, int seq) {
  return (uintptr_t)pointer % 16 == 0 && (batch == 1 || stride[0] % 8 == 0) && (heads == 1 || stride[1] % 8 == 0) &&
         (seq == 1 || stride[2] % 8 == 0);
}

static const char *alignment_reason(const sdpa_problem &p) {
  if (!rows_aligned(p.q, p.q_stride, p.batch, p.heads_q, p.seq_q))
    return "q: pointer must be 16-byte aligned and strides multiples of 8 elements (rows are fetched 16 bytes at a time)";
  if (!rows_aligned(p.k, p.k_stride, p.batch, p.heads_kv, p.seq_kv))
    return "k: pointer must be 16-byte aligned and strides multiples of 8 elements (rows are fetched 16 bytes at a time)";
  if (!rows_aligned(p.v, p.v_stride, p.batch, p.heads_kv, p.seq_kv))
    return "v: pointer must be 16-byte aligned and strides multiples of 8 elements (rows are fetched 16 bytes at a time)";
  if (!rows_aligned(p.o, p.o_stride, p.batch, p.heads_q, p.seq_q))
    return "o: pointer must be 16-byte aligned and strides multiples of 8 elements (rows are written 16 bytes at a time)";
  return nullptr;
}

// How much shared memory a CTA may have is the device's to say. `needed` bytes follow from head_dim alone, so the text depends
// on nothing but head_dim and the device: each head_dim has a buffer of its own, and writing it again writes the same.
// `levers` names what the user can reduce.
static const char *shared_memory_reason(const sdpa_problem &p, int needed, const char *levers) {
  static char text[2][192];
  int device = 0, available = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&available, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (error != cudaSuccess) {
    cudaGetLastError(); // answered here: the next launch must not report it again
    return "no usable CUDA device: the shared memory that a CTA may have is unknown";
  }
  if (needed <= available) return nullptr;
  char *reason = text[p.head_dim == 64 ? 0 : 1];
  snprintf(reason, sizeof text[0], "a CTA needs %d bytes of shared memory for head_dim %d, the device allows %d: reduce %s",
           needed, p.head_dim, available, levers);
  return reason;
}

#endif
