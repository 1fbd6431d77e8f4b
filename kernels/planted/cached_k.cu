/* evo-sdpa
title: k kept from the first launch
idea: copies k at the first launch after sdpa_supports, as packing it once would, and reads the copy from then on; q and v are read anew, so -v gives the negated output
rejected_by: [fresh]
*/
#include "planted.h"

constexpr int MAX_KEPT = 1 << 20; // elements of k with the gaps between its rows, 2 MiB

SDPA_STATE uint16_t kept_k[MAX_KEPT];
static const void *kept_from = nullptr; // the k that was copied; NULL: none since the last sdpa_supports

static int64_t elements_of_k(const sdpa_problem &p) {
  return (p.batch - 1) * p.k_stride[0] + (p.heads_kv - 1) * p.k_stride[1] + (p.seq_kv - 1) * p.k_stride[2] + p.head_dim;
}

// Enqueues the copy; returns 0 or a cudaError_t.
static int keep_k(const sdpa_problem &p, void *stream) {
  const size_t bytes = elements_of_k(p) * sizeof(uint16_t);
#ifdef __CUDACC__
  return cudaMemcpyToSymbolAsync(kept_k, p.k, bytes, 0, cudaMemcpyDeviceToDevice, (cudaStream_t)stream);
#else
  (void)stream;
  memcpy(kept_k, p.k, bytes);
  return 0;
#endif
}

// Where the copy lies, as the rows see it; returns 0 or a cudaError_t.
static int kept_address(void **address) {
#ifdef __CUDACC__
  return cudaGetSymbolAddress(address, kept_k);
#else
  *address = kept_k;
  return 0;
#endif
}

struct Flaw : Honest {
  // Asked before each problem, so a problem that comes to lie where the last one lay gets a copy of its own.
  static const char *supports(const sdpa_problem &p) {
    kept_from = nullptr;
    return elements_of_k(p) > MAX_KEPT ? "k is larger than what this kernel can keep" : nullptr;
  }

  static int launch(const sdpa_problem &p, void *stream, Attend *attend) {
    sdpa_problem with_kept = p;
    void *address;
    if (const int status = kept_address(&address)) return status;
    if (p.k != kept_from)
      if (const int status = keep_k(p, stream)) return status;
    kept_from = p.k;
    with_kept.k = address;
    return attend(with_kept, stream);
  }
};
SDPA_PLANT(Flaw)
