/* evo-sdpa
title: every byte once on the CPU
idea: reads q, k and v once and writes o once, what moving the data costs without any attention
levers: {}
*/

// The CPU twin of floor_bytes.cu: o becomes q xor (all of k and v folded into 64 bytes). The result means nothing, but it
// depends on every byte that was read, so the compiler cannot drop the reads.

#include "sdpa_host.h"

namespace {

constexpr int64_t FOLD_WORDS = 8; // of 8 bytes: independent lanes that the compiler turns into vectors

uint64_t word_at(const void *tensor, int64_t byte, int64_t bytes) { // zeros behind the end
  uint64_t word = 0;
  const int64_t left = bytes - byte;
  memcpy(&word, (const char *)tensor + byte, left < 8 ? (size_t)left : 8);
  return word;
}

// fold[i] ^= every FOLD_WORDS-th word of the tensor, from the i-th on.
void fold_tensor(const void *tensor, int64_t bytes, uint64_t *fold) {
  const int64_t group = FOLD_WORDS * 8;
  int64_t byte = 0;
  for (; byte + group <= bytes; byte += group) {
    uint64_t words[FOLD_WORDS];
    memcpy(words, (const char *)tensor + byte, group);
    for (int64_t i = 0; i < FOLD_WORDS; ++i) fold[i] ^= words[i];
  }
  for (int64_t i = 0; byte < bytes; byte += 8, ++i) fold[i] ^= word_at(tensor, byte, bytes);
}

int64_t tensor_bytes(const sdpa_problem &p, int heads, int seq) {
  return (int64_t)p.batch * heads * seq * p.head_dim * dtype_bytes(p.dtype);
}

// A stride that is never taken a step along may be anything.
bool contiguous(const sdpa_problem &p, const int64_t stride[3], int heads, int seq) {
  const int64_t row = p.head_dim, head = row * seq, batch = head * heads;
  return (seq == 1 || stride[2] == row) && (heads == 1 || stride[1] == head) && (p.batch == 1 || stride[0] == batch);
}

} // namespace

const char *sdpa_supports(const sdpa_problem *p) {
  if (p->batch < 1 || p->heads_q < 1 || p->heads_kv < 1 || p->seq_q < 1 || p->seq_kv < 1 || p->head_dim < 1)
    return "batch, heads, sequence lengths and head_dim must be at least 1";
  if (dtype_bytes(p->dtype) == 0) return "dtype must be 0 (fp16), 1 (bf16) or 2 (fp32)";
  if (!contiguous(*p, p->q_stride, p->heads_q, p->seq_q) || !contiguous(*p, p->k_stride, p->heads_kv, p->seq_kv) ||
      !contiguous(*p, p->v_stride, p->heads_kv, p->seq_kv) || !contiguous(*p, p->o_stride, p->heads_q, p->seq_q))
    return "q, k, v and o must be contiguous: a floor moves whole tensors";
  return nullptr;
}

size_t sdpa_workspace_bytes(const sdpa_problem *) { return 0; }

int sdpa_launch(const sdpa_problem *problem, void *) {
  const sdpa_problem &p = *problem;
  const int64_t q_bytes = tensor_bytes(p, p.heads_q, p.seq_q), kv_bytes = tensor_bytes(p, p.heads_kv, p.seq_kv);
  uint64_t fold[FOLD_WORDS] = {};
  fold_tensor(p.k, kv_bytes, fold);
  fold_tensor(p.v, kv_bytes, fold);

  const int64_t group = FOLD_WORDS * 8;
  int64_t byte = 0;
  for (; byte + group <= q_bytes; byte += group) {
    uint64_t words[FOLD_WORDS];
    memcpy(words, (const char *)p.q + byte, group);
    for (int64_t i = 0; i < FOLD_WORDS; ++i) words[i] ^= fold[i];
    memcpy((char *)p.o + byte, words, group);
  }
  for (int64_t i = 0; byte < q_bytes; byte += 8, ++i) {
    const uint64_t word = word_at(p.q, byte, q_bytes) ^ fold[i];
    const int64_t left = q_bytes - byte;
    memcpy((char *)p.o + byte, &word, left < 8 ? (size_t)left : 8);
  }
  return 0;
}
