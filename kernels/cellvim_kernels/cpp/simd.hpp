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

#define CELLVIM_EXPORT extern "C" __attribute__((visibility("default")))
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

// Minus zero, which changes nothing: plus zero would, and costs an addition.
CELLVIM_INLINE vec broadcast(float value) { return value - vec{}; }

// Bring a cache line nearer; any address may be given.
CELLVIM_INLINE void fetch(const float* p) { __builtin_prefetch(p, 0, 2); }
CELLVIM_INLINE void fetch_to_write(float* p) { __builtin_prefetch(p, 1, 2); }

// Which lanes of a vector lie inside E: all, or the first few in the last vector of a width that W does not divide.
struct Full {};

#if CELLVIM_AVX512

struct Part {
  __mmask16 inside;
  explicit Part(int64_t count) : inside((1u << count) - 1) {}
};

CELLVIM_INLINE vec load(const float* p, Part lanes) { return _mm512_maskz_loadu_ps(lanes.inside, p); }
CELLVIM_INLINE void store(float* p, vec v, Part lanes) { _mm512_mask_storeu_ps(p, lanes.inside, v); }
CELLVIM_INLINE vec only(vec v, Part lanes) { return _mm512_maskz_mov_ps(lanes.inside, v); }
CELLVIM_INLINE vec fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
CELLVIM_INLINE float sum_of_lanes(vec v) { return _mm512_reduce_add_ps(v); }
// Keeps a NaN in v.
CELLVIM_INLINE vec at_least(vec v, float limit) { return _mm512_max_ps(broadcast(limit), v); }
CELLVIM_INLINE vec absolute(vec v) { return _mm512_abs_ps(v); }

#else

struct Part {
  int64_t count;
  explicit Part(int64_t count) : count(count) {}
};

CELLVIM_INLINE vec load(const float* p, Part lanes) {
  vec v = {};
  for (int64_t i = 0; i < lanes.count; ++i) v[i] = p[i];
  return v;
}
CELLVIM_INLINE void store(float* p, vec v, Part lanes) {
  for (int64_t i = 0; i < lanes.count; ++i) p[i] = v[i];
}
CELLVIM_INLINE vec only(vec v, Part lanes) {
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

#endif

CELLVIM_INLINE vec load(const float* p, Full) {
  vec v;
  memcpy(&v, p, sizeof v);
  return v;
}
CELLVIM_INLINE void store(float* p, vec v, Full) { memcpy(p, &v, sizeof v); }
CELLVIM_INLINE vec only(vec v, Full) { return v; }

// body(e, lanes) for each vector of the channels [e0, e1). Only the last may be a Part: a masked store is slow, and a
// load soon after it slower.
template <class Body>
CELLVIM_INLINE void for_vectors(int64_t e0, int64_t e1, Body body) {
  int64_t e = e0;
  for (; e + W <= e1; e += W) body(e, Full{});
  if (e < e1) body(e, Part(e1 - e));
}

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

// Divisions: on a processor with AVX-512 the divider works beside the multipliers, a Newton step would not.
CELLVIM_INLINE vec one_plus_exp_of_minus(vec v) { return broadcast(1.0f) + exp2(v * broadcast(-LOG2_E)); }
CELLVIM_INLINE vec sigmoid(vec v) { return broadcast(1.0f) / one_plus_exp_of_minus(v); }
CELLVIM_INLINE vec silu(vec v) { return v / one_plus_exp_of_minus(v); }

// Derivative of silu.
CELLVIM_INLINE vec silu_slope(vec v, vec sigmoid_of_v) {
  return fma(v * sigmoid_of_v, broadcast(1.0f) - sigmoid_of_v, sigmoid_of_v);
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

}  // namespace cellvim
