// The two inner products of attention on rows given as pointers: scores (row · key) and weighted sums (Σ weight · row). Every result has one
// order of sums, whatever tile it falls into.
#pragma once

#include "simd.h"

namespace arbor {

// Sums of the lanes of four vectors.
ARBOR_INLINE void sum_lanes_of_four(float *to, vf a, vf b, vf c, vf d) {
#if defined(__AVX__)
#if defined(__AVX512F__)
  const auto fold = [](vf v) {
    return _mm256_add_ps(_mm512_castps512_ps256((__m512)v), _mm512_extractf32x8_ps((__m512)v, 1));
  };
  const __m256 ab = _mm256_hadd_ps(fold(a), fold(b)), cd = _mm256_hadd_ps(fold(c), fold(d));
#else
  const __m256 ab = _mm256_hadd_ps((__m256)a, (__m256)b), cd = _mm256_hadd_ps((__m256)c, (__m256)d);
#endif
  const __m256 all = _mm256_hadd_ps(ab, cd);
  _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1)));
#else
  to[0] = sum_lanes(a), to[1] = sum_lanes(b), to[2] = sum_lanes(c), to[3] = sum_lanes(d);
#endif
}

template <int Rows>
ARBOR_INLINE void scores_tile(float *scores, int64_t stride, const float *const *rows, const float *const *keys, int64_t dim) {
  const float *row[Rows], *key[4];
  vf sum[Rows][4] = {};
#pragma GCC unroll 4
  for (int r = 0; r < Rows; r++) row[r] = rows[r];
#pragma GCC unroll 4
  for (int j = 0; j < 4; j++) key[j] = keys[j];
  int64_t d = 0;
  for (; d + kLanes <= dim; d += kLanes) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
      const vf value = load(key[j] + d);
#pragma GCC unroll 4
      for (int r = 0; r < Rows; r++) sum[r][j] = fma(load(row[r] + d), value, sum[r][j]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < Rows; r++) {
    float *to = scores + r * stride;
    sum_lanes_of_four(to, sum[r][0], sum[r][1], sum[r][2], sum[r][3]);
    for (int64_t e = d; e < dim; e++)
      for (int j = 0; j < 4; j++) to[j] = fma(row[r][e], key[j][e], to[j]);
  }
}

// scores[r * stride + j] = rows[r] · keys[j]. `stride` and the buffer hold key_count rounded up to 4.
inline void scores_tiles(float *scores, int64_t stride, const float *const *rows, int64_t row_count, const float *const *keys,
                         int64_t key_count, int64_t dim) {
  for (int64_t j = 0; j < key_count; j += 4) {
    const float *four[4]; // past the end the last key stands in; its scores are never read
    for (int64_t i = 0; i < 4; i++) four[i] = keys[j + i < key_count ? j + i : key_count - 1];
    int64_t r = 0;
    for (; r + 3 <= row_count; r += 3) scores_tile<3>(scores + r * stride + j, stride, rows + r, four, dim);
    if (row_count - r == 2) scores_tile<2>(scores + r * stride + j, stride, rows + r, four, dim);
    if (row_count - r == 1) scores_tile<1>(scores + r * stride + j, stride, rows + r, four, dim);
  }
}

template <int Rows, int Vectors>
ARBOR_INLINE void weighted_tile(float *const *out, int64_t d, const float *weights, int64_t row_stride, int64_t key_stride,
                                const float *const *values, int64_t key_count) {
  vf sum[Rows][Vectors];
#pragma GCC unroll 4
  for (int r = 0; r < Rows; r++)
#pragma GCC unroll 4
    for (int i = 0; i < Vectors; i++) sum[r][i] = load(out[r] + d + i * kLanes);
  for (int64_t j = 0; j < key_count; j++, weights += key_stride) {
    const float *value = values[j] + d;
    vf weight[Rows];
#pragma GCC unroll 4
    for (int r = 0; r < Rows; r++) weight[r] = splat(weights[r * row_stride]);
#pragma GCC unroll 4
    for (int i = 0; i < Vectors; i++) {
      const vf column = load(value + i * kLanes);
#pragma GCC unroll 4
      for (int r = 0; r < Rows; r++) sum[r][i] = fma(weight[r], column, sum[r][i]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < Rows; r++)
#pragma GCC unroll 4
    for (int i = 0; i < Vectors; i++) store(out[r] + d + i * kLanes, sum[r][i]);
}

template <int Rows>
void weighted_rows(float *const *out, const float *weights, int64_t row_stride, int64_t key_stride, const float *const *values,
                   int64_t key_count, int64_t dim) {
  int64_t d = 0;
  for (; d + 4 * kLanes <= dim; d += 4 * kLanes) weighted_tile<Rows, 4>(out, d, weights, row_stride, key_stride, values, key_count);
  for (; d + kLanes <= dim; d += kLanes) weighted_tile<Rows, 1>(out, d, weights, row_stride, key_stride, values, key_count);
  for (; d < dim; d++)
    for (int r = 0; r < Rows; r++)
      for (int64_t j = 0; j < key_count; j++) out[r][d] = fma(weights[r * row_stride + j * key_stride], values[j][d], out[r][d]);
}

// out[r] += Σ_j weights[r * row_stride + j * key_stride] · values[j], j in order.
inline void add_weighted(float *const *out, int64_t row_count, const float *weights, int64_t row_stride, int64_t key_stride,
                         const float *const *values, int64_t key_count, int64_t dim) {
  int64_t r = 0;
  for (; r + 3 <= row_count; r += 3)
    weighted_rows<3>(out + r, weights + r * row_stride, row_stride, key_stride, values, key_count, dim);
  if (row_count - r == 2) weighted_rows<2>(out + r, weights + r * row_stride, row_stride, key_stride, values, key_count, dim);
  if (row_count - r == 1) weighted_rows<1>(out + r, weights + r * row_stride, row_stride, key_stride, values, key_count, dim);
}

} // namespace arbor
