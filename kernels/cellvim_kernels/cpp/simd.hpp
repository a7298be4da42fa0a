// Vectors over the inner width E, and the functions that the mixer needs of them.
//
// Every product and sum is an explicit operation (the build turns contraction off), so that code which computes the
// same value in two places computes the same bits: the maximum's backward pass relies on it.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define CELLVIM_INLINE static inline __attribute__((always_inline))

namespace cellvim {

#if defined(__AVX512F__) && defined(__AVX512DQ__)
#define CELLVIM_AVX512 1
typedef __m512 vec;
constexpr int64_t W = 16;
#elif defined(__AVX2__) && defined(__FMA__)
#define CELLVIM_AVX2 1
typedef __m256 vec;
constexpr int64_t W = 8;
#else
typedef float vec __attribute__((vector_size(16)));
constexpr int64_t W = 4;
#endif

CELLVIM_INLINE vec broadcast(float value) { return vec{} + value; }

#if CELLVIM_AVX512

// The lanes that lie inside E: all of them, but in the last vector of a width that W does not divide.
struct Lanes {
  __mmask16 inside;
  explicit Lanes(int64_t left) : inside(left >= W ? 0xffff : (1u << left) - 1) {}
};

CELLVIM_INLINE vec load(const float* p, Lanes lanes) { return _mm512_maskz_loadu_ps(lanes.inside, p); }
CELLVIM_INLINE void store(float* p, vec v, Lanes lanes) { _mm512_mask_storeu_ps(p, lanes.inside, v); }
CELLVIM_INLINE vec fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
CELLVIM_INLINE vec only(vec v, Lanes lanes) { return _mm512_maskz_mov_ps(lanes.inside, v); }
CELLVIM_INLINE float sum_of_lanes(vec v) { return _mm512_reduce_add_ps(v); }

// Both keep a NaN in v.
CELLVIM_INLINE vec at_most(vec v, float limit) { return _mm512_min_ps(broadcast(limit), v); }
CELLVIM_INLINE vec at_least(vec v, float limit) { return _mm512_max_ps(broadcast(limit), v); }
CELLVIM_INLINE vec absolute(vec v) { return _mm512_abs_ps(v); }

// 14 bits and one Newton step: 28 bits. A quarter of the time of a division. Infinity gives NaN.
CELLVIM_INLINE vec reciprocal(vec v) {
  const vec guess = _mm512_rcp14_ps(v);
  return fma(guess, _mm512_fnmadd_ps(v, guess, broadcast(1.0f)), guess);
}

#else

struct Lanes {
  int64_t count;
  explicit Lanes(int64_t left) : count(left >= W ? W : left) {}
};

CELLVIM_INLINE vec load(const float* p, Lanes lanes) {
  vec v = {};
  if (lanes.count == W) {
    memcpy(&v, p, sizeof v);
  } else {
    for (int64_t i = 0; i < lanes.count; ++i) v[i] = p[i];
  }
  return v;
}
CELLVIM_INLINE void store(float* p, vec v, Lanes lanes) {
  if (lanes.count == W) {
    memcpy(p, &v, sizeof v);
  } else {
    for (int64_t i = 0; i < lanes.count; ++i) p[i] = v[i];
  }
}
CELLVIM_INLINE vec only(vec v, Lanes lanes) {
  for (int64_t i = lanes.count; i < W; ++i) v[i] = 0;
  return v;
}
CELLVIM_INLINE vec fma(vec a, vec b, vec c) {
#if CELLVIM_AVX2
  return _mm256_fmadd_ps(a, b, c);
#elif defined(__aarch64__)
  return (vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}
CELLVIM_INLINE float sum_of_lanes(vec v) {
  float lane[W];
  memcpy(lane, &v, sizeof v);
  for (int64_t half = W / 2; half > 0; half /= 2)
    for (int64_t i = 0; i < half; ++i) lane[i] += lane[i + half];
  return lane[0];
}
CELLVIM_INLINE vec at_most(vec v, float limit) { return v > broadcast(limit) ? broadcast(limit) : v; }
CELLVIM_INLINE vec at_least(vec v, float limit) { return v < broadcast(limit) ? broadcast(limit) : v; }
CELLVIM_INLINE vec absolute(vec v) { return v < vec{} ? -v : v; }
CELLVIM_INLINE vec reciprocal(vec v) { return broadcast(1.0f) / v; }

#endif

// 2^f = 1 + f q(f) for f in [-0.5, 0.5]: relative error 9e-8, and exact at 0, so that the error of a decay close to 1
// is one of its rate and does not pile up over thousands of steps.
CELLVIM_INLINE vec exp2_of_fraction(vec f) {
  vec q = broadcast(0.0013264723820611835f);
  q = fma(q, f, broadcast(0.009671512991189957f));
  q = fma(q, f, broadcast(0.05550733581185341f));
  q = fma(q, f, broadcast(0.24022242426872253f));
  q = fma(q, f, broadcast(0.6931470036506653f));
  return fma(q, f, broadcast(1.0f));
}

// 2^v. NaN stays NaN. Without AVX-512 the result is held within 2^-126 and 2^127.
CELLVIM_INLINE vec exp2(vec v) {
#if CELLVIM_AVX512
  constexpr int nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  const vec whole = _mm512_roundscale_ps(v, nearest);
  return _mm512_scalef_ps(exp2_of_fraction(_mm512_reduce_ps(v, nearest)), whole);
#else
  typedef int32_t ivec __attribute__((vector_size(sizeof(vec))));
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
  const vec rounder = broadcast(12582912.0f);
  const vec held = at_least(at_most(v, 127.0f), -126.0f);
  const vec shifted = held + rounder;
  ivec bits;
  memcpy(&bits, &shifted, sizeof bits);
  bits = (bits + (127 - 0x4b400000)) << 23;
  vec power;
  memcpy(&power, &bits, sizeof power);
  return exp2_of_fraction(held - (shifted - rounder)) * power;
#endif
}

constexpr float LOG2_E = 1.4426950408889634f;
constexpr float LN_2 = 0.6931471805599453f;

CELLVIM_INLINE vec sigmoid(vec v) {
  // Below -87 the result is held at 2^-126: the reciprocal must not meet infinity.
  return reciprocal(broadcast(1.0f) + exp2(at_most(v * broadcast(-LOG2_E), 126.0f)));
}

// log(1 + exp(v)) = max(v, 0) + log1p(exp(-|v|)), with log1p(e) = 2 atanh(e / (2 + e)): relative error 1e-7.
CELLVIM_INLINE vec softplus(vec v) {
  const vec e = exp2(absolute(v) * broadcast(-LOG2_E));
  const vec s = e / (broadcast(2.0f) + e);
  const vec square = s * s;
  vec q = broadcast(0.28015294671058655f);
  q = fma(q, square, broadcast(0.2800081670284271f));
  q = fma(q, square, broadcast(0.4002161920070648f));
  q = fma(q, square, broadcast(0.6666641235351562f));
  q = fma(q, square, broadcast(2.0f));
  return fma(q, s, at_least(v, 0.0f));
}

// v * sigmoid(v) and its derivative.
CELLVIM_INLINE vec silu(vec v) { return v * sigmoid(v); }
CELLVIM_INLINE vec silu_slope(vec v, vec sigmoid_of_v) {
  return fma(v * sigmoid_of_v, broadcast(1.0f) - sigmoid_of_v, sigmoid_of_v);
}

}  // namespace cellvim
