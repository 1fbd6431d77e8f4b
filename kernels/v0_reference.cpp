/* evo-sdpa
title: streaming softmax on one CPU core
parent: null
idea: keep a running row max and row sum while the keys stream past, so the score matrix never exists
expects: 25-40 ms on the goal problem, one desktop core with SSE2 alone
levers: {BLOCK_Q: [1, 4, 8, 16], BLOCK_KV: [16, 32, 64, 128], LANES: [4, 8, 16]}
*/

// The ladder's first rung, and the one that runs on any machine. Softmax needs the row's max before its first exponential;
// the streaming form takes the keys a tile at a time, keeps the max m and the sum l of what it has seen, and when a tile
// raises m it scales what it has by exp(m_old - m_new). Everything is FP32; only the inputs and the output are narrow.
//
// Written for a plain compiler (-O3, no -march, no -ffast-math): without -ffast-math gcc may not reorder one sum into a
// vector, so the vectors are spelled out. Float4 is four floats side by side, one register of any SSE2 or NEON machine, and
// LANES / 4 of them at a time keep enough independent sums in flight to hide the latency of an add.

#include <math.h>

#include "sdpa_host.h"

#ifndef BLOCK_Q
#define BLOCK_Q 8 // query rows that use a tile of K and V while it is in the L1 cache
#endif
#ifndef BLOCK_KV
#define BLOCK_KV 64 // keys in a tile
#endif
#ifndef LANES
#define LANES 16 // independent sums, so that vector registers fill and the latency of an add is hidden
#endif
static_assert(BLOCK_Q == 1 || BLOCK_Q == 4 || BLOCK_Q == 8 || BLOCK_Q == 16, "BLOCK_Q must be 1, 4, 8 or 16");
static_assert(BLOCK_KV == 16 || BLOCK_KV == 32 || BLOCK_KV == 64 || BLOCK_KV == 128, "BLOCK_KV must be 16, 32, 64 or 128");
static_assert(LANES == 4 || LANES == 8 || LANES == 16, "LANES must be 4, 8 or 16");

namespace {

typedef float Float4 __attribute__((vector_size(16), may_alias));
constexpr int VECTORS = LANES / 4;
constexpr int MAX_HEAD_DIM = 256; // a multiple of every LANES

// Rows of floats are padded with zeros to whole groups of LANES: zeros change no sum, and no loop has a tail.
int padded_dim(const sdpa_problem &p) { return (p.head_dim + LANES - 1) / LANES * LANES; }

void load_padded_row(const void *tensor, int64_t offset, const sdpa_problem &p, float *row) {
  load_as_float(tensor, offset, p.head_dim, p.dtype, row);
  for (int d = p.head_dim; d < padded_dim(p); ++d) row[d] = 0.0f;
}

float dot(const Float4 *a, const Float4 *b, int row_vectors) {
  Float4 sum[VECTORS] = {};
  for (int c = 0; c < row_vectors; c += VECTORS)
    for (int i = 0; i < VECTORS; ++i) sum[i] += a[c + i] * b[c + i];
  for (int i = 1; i < VECTORS; ++i) sum[0] += sum[i];
  return (sum[0][0] + sum[0][2]) + (sum[0][1] + sum[0][3]);
}

// One query row against one tile of keys. K and V are [num_keys, row_vectors]; row_max, row_sum and O_row are the row's state.
void attend_tile(const Float4 *Q_row, const Float4 *K, const Float4 *V, int num_keys, int row_vectors, float scale,
                 float &row_max, float &row_sum, Float4 *O_row) {
  float P[BLOCK_KV];

  float new_max = row_max;
  for (int j = 0; j < num_keys; ++j) {
    P[j] = dot(Q_row, K + (int64_t)j * row_vectors, row_vectors) * scale;
    if (P[j] > new_max) new_max = P[j]; // false for NaN, which reaches the row through its exponential instead
  }

  // While every score is -inf there is nothing to shift by, and (-inf) - (-inf) would make NaN of an empty row.
  const float shift = new_max == -INFINITY ? 0.0f : new_max;
  const float rescale = expf(row_max - shift); // 0 on the first tile, 1 when the max stands
  float tile_sum = 0.0f;
  for (int j = 0; j < num_keys; ++j) {
    P[j] = expf(P[j] - shift);
    tile_sum += P[j];
  }
  row_max = new_max;
  row_sum = row_sum * rescale + tile_sum;

  // O = O * rescale + P V, LANES columns at a time so that their sums stay in registers over all keys of the tile.
  for (int c = 0; c < row_vectors; c += VECTORS) {
    Float4 sum[VECTORS] = {};
    for (int j = 0; j < num_keys; ++j)
      for (int i = 0; i < VECTORS; ++i) sum[i] += P[j] * V[(int64_t)j * row_vectors + c + i];
    for (int i = 0; i < VECTORS; ++i) O_row[c + i] = O_row[c + i] * rescale + sum[i];
  }
}

// Causal is top-left aligned: query row i sees keys 0 .. i.
int keys_seen(const sdpa_problem &p, int row) { return p.causal && row < p.seq_kv ? row + 1 : p.seq_kv; }

// Query rows q0 .. q0 + BLOCK_Q - 1 of one head against all keys they see. K and V are [seq_kv, row_vectors].
void attend_rows(const sdpa_problem &p, int b, int h, int q0, const Float4 *K, const Float4 *V) {
  const int row_vectors = padded_dim(p) / 4;
  const int num_rows = p.seq_q - q0 < BLOCK_Q ? p.seq_q - q0 : BLOCK_Q;
  Float4 Q_tile[BLOCK_Q][MAX_HEAD_DIM / 4], O_tile[BLOCK_Q][MAX_HEAD_DIM / 4];
  float row_max[BLOCK_Q], row_sum[BLOCK_Q];

  for (int r = 0; r < num_rows; ++r) {
    const int row = q0 + r;
    load_padded_row(p.q, b * p.q_stride[0] + h * p.q_stride[1] + row * p.q_stride[2], p, (float *)Q_tile[r]);
    memset(O_tile[r], 0, row_vectors * sizeof(Float4));
    row_max[r] = -INFINITY;
    row_sum[r] = 0.0f;
  }

  const int most_keys = keys_seen(p, q0 + num_rows - 1); // the last row sees the most
  for (int kv0 = 0; kv0 < most_keys; kv0 += BLOCK_KV)
    for (int r = 0; r < num_rows; ++r) {
      const int left = keys_seen(p, q0 + r) - kv0;
      if (left <= 0) continue; // masked keys are never touched, so their NaN cannot leak into the row
      const int64_t tile = (int64_t)kv0 * row_vectors;
      attend_tile(Q_tile[r], K + tile, V + tile, left < BLOCK_KV ? left : BLOCK_KV, row_vectors, p.scale, row_max[r],
                  row_sum[r], O_tile[r]);
    }

  for (int r = 0; r < num_rows; ++r) {
    const float normalise = row_sum[r] == 0.0f ? 0.0f : 1.0f / row_sum[r]; // no weight at all: 0; NaN stays NaN
    for (int c = 0; c < row_vectors; ++c) O_tile[r][c] *= normalise;
    store_from_float(p.o, b * p.o_stride[0] + h * p.o_stride[1] + (q0 + r) * p.o_stride[2], p.head_dim, p.dtype,
                     (const float *)O_tile[r]);
  }
}

} // namespace

const char *sdpa_supports(const sdpa_problem *p) {
  if (dtype_bytes(p->dtype) == 0) return "dtype must be 0 (fp16), 1 (bf16) or 2 (fp32)";
  if (p->batch < 1 || p->heads_q < 1 || p->heads_kv < 1 || p->seq_q < 1 || p->seq_kv < 1)
    return "batch, heads and sequence lengths must be at least 1";
  if (p->heads_q % p->heads_kv != 0) return "heads_kv must divide heads_q";
  if (p->head_dim < 1 || p->head_dim > MAX_HEAD_DIM) return "head_dim must be between 1 and 256";
  return nullptr;
}

// K and V of one key/value head as floats: converted once, read by every query row that uses the head.
size_t sdpa_workspace_bytes(const sdpa_problem *p) {
  return 2 * sizeof(float) * (size_t)p->seq_kv * (size_t)padded_dim(*p);
}

int sdpa_launch(const sdpa_problem *problem, void *) {
  const sdpa_problem &p = *problem;
  const int group = p.heads_q / p.heads_kv; // query heads that share a key/value head
  const int dim = padded_dim(p);
  float *K = (float *)p.workspace;        // [seq_kv, dim]
  float *V = K + (int64_t)p.seq_kv * dim; // [seq_kv, dim]

  for (int b = 0; b < p.batch; ++b)
    for (int h_kv = 0; h_kv < p.heads_kv; ++h_kv) {
      for (int64_t j = 0; j < p.seq_kv; ++j) {
        load_padded_row(p.k, b * p.k_stride[0] + h_kv * p.k_stride[1] + j * p.k_stride[2], p, K + j * dim);
        load_padded_row(p.v, b * p.v_stride[0] + h_kv * p.v_stride[1] + j * p.v_stride[2], p, V + j * dim);
      }
      for (int h = h_kv * group; h < (h_kv + 1) * group; ++h)
        for (int q0 = 0; q0 < p.seq_q; q0 += BLOCK_Q) attend_rows(p, b, h, q0, (const Float4 *)K, (const Float4 *)V);
    }
  return 0;
}
