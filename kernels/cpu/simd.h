// One vector type per build of the library (16 floats with AVX-512, else 8), and the few functions the ops need on it.
// Sums over lanes always fold in the same tree, so a sum depends on its terms and their order alone.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define ARBOR_INLINE inline __attribute__((always_inline))

namespace arbor {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#else
constexpr int kLanes = 8;
#endif

typedef float vf __attribute__((vector_size(kLanes * 4)));
typedef int32_t vi __attribute__((vector_size(kLanes * 4)));
typedef float vf_unaligned __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));

ARBOR_INLINE vf load(const float *p) { return *reinterpret_cast<const vf_unaligned *>(p); }
ARBOR_INLINE void store(float *p, vf v) { *reinterpret_cast<vf_unaligned *>(p) = v; }
ARBOR_INLINE vf splat(float x) { return x - vf{}; }
ARBOR_INLINE vf max(vf a, vf b) { return a > b ? a : b; }

// a * b + c, in one rounding where the CPU has it.
ARBOR_INLINE vf fma(vf a, vf b, vf c) {
#if defined(__AVX512F__)
  return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
  return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}
ARBOR_INLINE float fma(float a, float b, float c) {
#if defined(__FMA__) || defined(__aarch64__)
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

ARBOR_INLINE float sum_lanes(vf v) {
  float t[kLanes];
  store(t, v);
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; i++) t[i] += t[i + width];
  return t[0];
}
ARBOR_INLINE float max_lanes(vf v) {
  float best = v[0];
  for (int i = 1; i < kLanes; i++) best = v[i] > best ? v[i] : best;
  return best;
}

// e^x to about 1 ulp: x = n ln 2 + r, a polynomial in r (Taylor to r^7, |r| <= 0.35), 2^n through the exponent bits.
// Below -87.3 the answer is exactly 0, above 88 that of 88.
ARBOR_INLINE vf exp(vf x) {
  const vf limited = x > 88.0f ? splat(88.0f) : (x < -87.3f ? splat(-87.3f) : x);
  const vf magic = splat(12582912.0f); // 1.5 * 2^23: adding it rounds to an integer in the low bits
  const vf shifted = fma(limited, splat(1.44269504f), magic);
  const vf n = shifted - magic;
  const vf r = fma(n, splat(-1.42860682e-6f), fma(n, splat(-0.693145752f), limited));
  vf p = splat(1.0f / 5040);
  p = fma(p, r, splat(1.0f / 720));
  p = fma(p, r, splat(1.0f / 120));
  p = fma(p, r, splat(1.0f / 24));
  p = fma(p, r, splat(1.0f / 6));
  p = fma(p, r, splat(0.5f));
  p = fma(p, r, splat(1.0f));
  p = fma(p, r, splat(1.0f));
  const vi power = ((vi)shifted - (vi)magic) << 23;
  return x < -87.3f ? vf{} : (vf)((vi)p + power);
}

// The same function for one number: equal bits to any lane of the vector form.
ARBOR_INLINE float exp(float x) { return exp(splat(x))[0]; }

// dst[c * dst_stride + r] = src[r * src_stride + c] for r < rows, c < cols, in 8x8 blocks. Writes whole groups of 8 per c (zeros past
// `rows`, then overwritten by the next c when dst_stride is smaller): dst needs 8 floats of slack.
void transpose(float *dst, int64_t dst_stride, const float *src, int64_t src_stride, int64_t rows, int64_t cols, float scale);

} // namespace arbor
