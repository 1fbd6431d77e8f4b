/* What the host side of a Hopper kernel needs: the tensor maps of a problem, and why it does not take one. Host code only. */
#ifndef SDPA_HOPPER_CUH
#define SDPA_HOPPER_CUH

#include "sdpa_checks.h"
#include "sdpa_tma.cuh"

// The maps of a problem's q, k and v, in boxes of so many rows. Where `error` is not 0 there are none, and a launch returns it.
struct tensor_maps {
  CUtensorMap Q, K, V;
  int error;
  tensor_maps(const sdpa_problem &p, int q_rows, int kv_rows) {
    error = make_tensor_map(&Q, p.q, p.batch, p.heads_q, p.seq_q, p.head_dim, p.q_stride, p.dtype, q_rows);
    if (!error) error = make_tensor_map(&K, p.k, p.batch, p.heads_kv, p.seq_kv, p.head_dim, p.k_stride, p.dtype, kv_rows);
    if (!error) error = make_tensor_map(&V, p.v, p.batch, p.heads_kv, p.seq_kv, p.head_dim, p.v_stride, p.dtype, kv_rows);
    if (error) cudaGetLastError(); // returned by the launch: the next one must not report it again
  }
};

// Why a kernel of tensor maps and wgmma does not take a problem, or does not run here; NULL when it does.
static const char *hopper_kernel_reason(const sdpa_problem &p) {
  if (const char *reason = alignment_reason(p)) return reason;
  if (const char *reason = tensor_map_reason(p)) return reason; // TMA wants the same multiples of 16 bytes
  if (!(p.scale > 0.0f)) return "scale must be above 0: the largest score of a row is found before scaling";
  return hopper_reason();
}

#endif
