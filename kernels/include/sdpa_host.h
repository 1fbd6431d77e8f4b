/* What host variants share: fp16 and bf16 as bits, and rows of a tensor as floats.
 *
 * The conversions use integer and plain float arithmetic alone, so they need no compiler extension and no -march flag and
 * give the same bits on every machine. Narrowing rounds to nearest, ties to even; subnormals, infinities and NaN come out
 * as IEEE 754 has them. None of them touches an fp32 subnormal on the fp16 path, so flush-to-zero modes change nothing.
 */
#ifndef SDPA_HOST_H
#define SDPA_HOST_H

#include <stdint.h>
#include <string.h>

#include "sdpa.h"

static inline float float_from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static inline uint32_t bits_from_float(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

/* fp16: 1 sign, 5 exponent (bias 15), 10 fraction bits. fp32: 1, 8 (bias 127), 23.
 * The fraction moves up by 13 bits and the exponent's bias grows by 127 - 15 = 112. No branches: loops over it vectorise. */
static inline float float_from_fp16(uint16_t half) {
  const uint32_t rebias = 112u << 23;
  const uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
  const uint32_t moved = (uint32_t)(half & 0x7fffu) << 13;
  const uint32_t exponent = moved & (0x1fu << 23);
  /* The largest exponent (inf, NaN) must become fp32's largest one: 31 + 112 + 112 = 255. */
  const uint32_t normal = moved + rebias + (exponent == (0x1fu << 23) ? rebias : 0u);
  /* Exponent 0 means fraction * 2^-24: give it the leading 1 of 2^-14 and take that away again, which is exact. */
  const uint32_t leading = 113u << 23;
  const uint32_t subnormal = bits_from_float(float_from_bits(moved + leading) - float_from_bits(leading));
  return float_from_bits(sign | (exponent == 0u ? subnormal : normal));
}

static inline uint16_t fp16_from_float(float value) {
  const uint32_t bits = bits_from_float(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t half;
  if (magnitude > 0x7f800000u) { /* NaN: keep the payload's top bits, make it quiet */
    half = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
  } else if (magnitude >= 0x477ff000u) { /* 65520 and above, half a step over the largest fp16: infinity */
    half = 0x7c00u;
  } else if (magnitude < 0x38800000u) { /* below 2^-14: subnormal, steps of 2^-24, which is one ulp of [0.5, 1) */
    half = bits_from_float(float_from_bits(magnitude) + 0.5f) - bits_from_float(0.5f);
  } else { /* add just under half of the dropped part, or exactly half when the kept part is odd: ties go to even */
    half = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  }
  return (uint16_t)(sign | half);
}

/* bf16 is the upper half of an fp32. */
static inline float float_from_bf16(uint16_t value) { return float_from_bits((uint32_t)value << 16); }

static inline uint16_t bf16_from_float(float value) {
  const uint32_t bits = bits_from_float(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((bits >> 16) | 0x40u); /* NaN stays NaN, quiet */
  return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);                 /* may carry into infinity: right */
}

/* Bytes of one element, 0 for a dtype that does not exist. */
static inline int dtype_bytes(int dtype) {
  return dtype == SDPA_FP32 ? 4 : dtype == SDPA_FP16 || dtype == SDPA_BF16 ? 2 : 0;
}

/* `count` elements that start `offset` elements into a tensor, as floats. */
static inline void load_as_float(const void *tensor, int64_t offset, int count, int dtype, float *out) {
  if (dtype == SDPA_FP32) {
    memcpy(out, (const float *)tensor + offset, (size_t)count * sizeof(float));
    return;
  }
  const uint16_t *in = (const uint16_t *)tensor + offset;
  if (dtype == SDPA_FP16)
    for (int i = 0; i < count; ++i) out[i] = float_from_fp16(in[i]);
  else
    for (int i = 0; i < count; ++i) out[i] = float_from_bf16(in[i]);
}

/* The way back: `count` floats rounded into the tensor. */
static inline void store_from_float(void *tensor, int64_t offset, int count, int dtype, const float *in) {
  if (dtype == SDPA_FP32) {
    memcpy((float *)tensor + offset, in, (size_t)count * sizeof(float));
    return;
  }
  uint16_t *out = (uint16_t *)tensor + offset;
  if (dtype == SDPA_FP16)
    for (int i = 0; i < count; ++i) out[i] = fp16_from_float(in[i]);
  else
    for (int i = 0; i < count; ++i) out[i] = bf16_from_float(in[i]);
}

#endif
