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
// The larger and the smaller of each lane; a NaN in `b` stays.
ARBOR_INLINE vf max(vf a, vf b) {
#if defined(__AVX512F__)
  return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX__)
  return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return a > b ? a : b;
#endif
}
ARBOR_INLINE vf min(vf a, vf b) {
#if defined(__AVX512F__)
  return (vf)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX__)
  return (vf)_mm256_min_ps((__m256)a, (__m256)b);
#else
  return a < b ? a : b;
#endif
}

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

#if defined(__AVX__)
// Folds the upper half of a vector onto the lower, until one lane is left.
template <class Fold> ARBOR_INLINE float fold_lanes(vf v, const Fold &fold) {
#if defined(__AVX512F__)
  const __m256 eight = fold(_mm512_castps512_ps256((__m512)v), _mm512_extractf32x8_ps((__m512)v, 1));
#else
  const __m256 eight = (__m256)v;
#endif
  const __m256 four = fold(eight, _mm256_permute2f128_ps(eight, eight, 0x11));
  const __m256 two = fold(four, _mm256_permute_ps(four, 0x0e));
  return _mm256_cvtss_f32(fold(two, _mm256_permute_ps(two, 0x01)));
}
#else
template <class Fold> ARBOR_INLINE float fold_lanes(vf v, const Fold &fold) {
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; i++) v[i] = fold(v[i], v[i + width]);
  return v[0];
}
#endif
ARBOR_INLINE float sum_lanes(vf v) {
  return fold_lanes(v, [](auto a, auto b) { return a + b; });
}
ARBOR_INLINE float max_lanes(vf v) {
  return fold_lanes(v, [](auto a, auto b) { return a > b ? a : b; });
}

// e^x to about 1.5 ulp: x = n ln 2 + r, |r| <= 0.35, a polynomial in r (minimax to r^5, exact at 0), times 2^n. n + 127 stands in the low
// bits of `shifted`, where a shift makes it the exponent of 2^n. Below -87.7 the answer is exactly 0 (n = -127), above 88 that of 88.
ARBOR_INLINE vf exp(vf x) {
  const vf limited = min(splat(88.0f), max(splat(-88.0f), x));
  const vf magic = splat(12582912.0f + 127); // 1.5 * 2^23: adding it rounds to an integer
  const vf shifted = fma(limited, splat(1.44269504f), magic);
  const vf n = shifted - magic;
  const vf r = fma(n, splat(-1.42860682e-6f), fma(n, splat(-0.693145752f), limited));
  vf p = splat(0.00829027221f);
  p = fma(p, r, splat(0.0418981612f));
  p = fma(p, r, splat(0.166676387f));
  p = fma(p, r, splat(0.499991477f));
  p = fma(p, r, splat(0.999999702f));
  p = fma(p, r, splat(1.0f));
  return p * (vf)((vi)shifted << 23);
}

// The same function for one number: equal bits to any lane of the vector form.
ARBOR_INLINE float exp(float x) { return exp(splat(x))[0]; }

// dst[c * dst_stride + r] = src[r * src_stride + c] for r < rows, c < cols, in 8x8 blocks. Writes whole groups of 8 per c (zeros past
// `rows`, then overwritten by the next c when dst_stride is smaller): dst needs 8 floats of slack.
void transpose(float *dst, int64_t dst_stride, const float *src, int64_t src_stride, int64_t rows, int64_t cols, float scale);

} // namespace arbor
