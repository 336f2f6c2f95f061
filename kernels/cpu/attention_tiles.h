// The two inner products of attention: scores (row · key, over a block of keys that is packed once for all rows) and weighted sums
// (Σ weight · row). Rows are given as pointers. Every result has one order of sums, whatever tile it falls into.
#pragma once

#include "simd.h"

namespace arbor {

constexpr int64_t kBlock = 64;   // keys at a time
constexpr int64_t kTileRows = 6; // rows of a tile

#if defined(__AVX__)
// to[c * kBlock + i] = rows[i][c] for i, c < 8.
ARBOR_INLINE void pack_8x8(float *to, const float *const *rows, int64_t at) {
  for (int half = 0; half < 2; half++, at += 4, to += 4 * kBlock) {
    __m256 r[4]; // rows i and i + 4 side by side
    for (int i = 0; i < 4; i++)
      r[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(rows[i] + at)), _mm_loadu_ps(rows[i + 4] + at), 1);
    const __m256 a = _mm256_unpacklo_ps(r[0], r[1]), b = _mm256_unpackhi_ps(r[0], r[1]);
    const __m256 c = _mm256_unpacklo_ps(r[2], r[3]), d = _mm256_unpackhi_ps(r[2], r[3]);
    _mm256_storeu_ps(to, _mm256_shuffle_ps(a, c, 0x44));
    _mm256_storeu_ps(to + kBlock, _mm256_shuffle_ps(a, c, 0xee));
    _mm256_storeu_ps(to + 2 * kBlock, _mm256_shuffle_ps(b, d, 0x44));
    _mm256_storeu_ps(to + 3 * kBlock, _mm256_shuffle_ps(b, d, 0xee));
  }
}
#endif

// Keys in whole groups of 16, the width that a tile needs.
ARBOR_INLINE int64_t whole_keys(int64_t count) { return (count + 15) / 16 * 16; }

// packed[d * kBlock + j] = rows[j][d]. Past the end the last row stands in, up to whole_keys(count).
inline void pack_block(float *packed, const float *const *rows, int64_t count, int64_t dim) {
  const int64_t whole = whole_keys(count);
  for (int64_t j = 0; j < whole; j += 8) {
    const float *eight[8];
    for (int64_t i = 0; i < 8; i++) eight[i] = rows[j + i < count ? j + i : count - 1];
    int64_t d = 0;
#if defined(__AVX__)
    for (; d + 8 <= dim; d += 8) pack_8x8(packed + d * kBlock + j, eight, d);
#endif
    for (; d < dim; d++)
      for (int64_t i = 0; i < 8; i++) packed[d * kBlock + j + i] = eight[i][d];
  }
}

// How many vectors wide a tile of `Rows` rows may be: its sums stay in registers, and there are enough of them to hide the latency.
template <int Rows> constexpr int kTileVectors = kLanes == 16 || Rows <= 3 ? 4 : 2;

// sum[r][i] += left(r) · right(i). The smaller side is held in registers, the larger passes by.
template <int Rows, int Vectors, class Left, class Right>
ARBOR_INLINE void add_outer(vf (&sum)[Rows][Vectors], const Left &left, const Right &right) {
  vf held[Rows < Vectors ? Rows : Vectors];
  if constexpr (Rows < Vectors) {
#pragma GCC unroll 6
    for (int r = 0; r < Rows; r++) held[r] = left(r);
#pragma GCC unroll 4
    for (int i = 0; i < Vectors; i++) {
      const vf passing = right(i);
#pragma GCC unroll 6
      for (int r = 0; r < Rows; r++) sum[r][i] = fma(held[r], passing, sum[r][i]);
    }
  } else {
#pragma GCC unroll 4
    for (int i = 0; i < Vectors; i++) held[i] = right(i);
#pragma GCC unroll 6
    for (int r = 0; r < Rows; r++) {
      const vf passing = left(r);
#pragma GCC unroll 4
      for (int i = 0; i < Vectors; i++) sum[r][i] = fma(passing, held[i], sum[r][i]);
    }
  }
}

template <int Rows, int Vectors>
ARBOR_INLINE void scores_tile(float *scores, const float *const *rows, const float *packed, int64_t dim) {
  const float *row[Rows];
  vf sum[Rows][Vectors] = {};
#pragma GCC unroll 6
  for (int r = 0; r < Rows; r++) row[r] = rows[r];
  for (int64_t d = 0; d < dim; d++, packed += kBlock) {
    add_outer(sum, [&](int r) { return splat(row[r][d]); }, [&](int i) { return load(packed + i * kLanes); });
  }
#pragma GCC unroll 6
  for (int r = 0; r < Rows; r++)
#pragma GCC unroll 4
    for (int i = 0; i < Vectors; i++) store(scores + r * kBlock + i * kLanes, sum[r][i]);
}

template <int Rows> void scores_rows(float *scores, const float *const *rows, const float *packed, int64_t key_count, int64_t dim) {
  const int64_t whole = whole_keys(key_count);
  constexpr int kMost = kTileVectors<Rows>;
  int64_t j = 0;
  if constexpr (kMost > 2)
    for (; j + kMost * kLanes <= whole; j += kMost * kLanes) scores_tile<Rows, kMost>(scores + j, rows, packed + j, dim);
  for (; j + 2 * kLanes <= whole; j += 2 * kLanes) scores_tile<Rows, 2>(scores + j, rows, packed + j, dim);
  if (j < whole) scores_tile<Rows, 1>(scores + j, rows, packed + j, dim);
}

// out[r][d] += Σ_j weights[r * row_stride + j * key_stride] · values[j][d], j in order, for a tile's columns d.
template <int Rows, int Vectors>
ARBOR_INLINE void weighted_tile(float *const *out, int64_t d, const float *weights, int64_t row_stride, int64_t key_stride,
                                const float *const *values, int64_t key_count) {
  vf sum[Rows][Vectors];
#pragma GCC unroll 6
  for (int r = 0; r < Rows; r++)
#pragma GCC unroll 4
    for (int i = 0; i < Vectors; i++) sum[r][i] = load(out[r] + d + i * kLanes);
  for (int64_t j = 0; j < key_count; j++, weights += key_stride) {
    const float *value = values[j] + d;
    add_outer(sum, [&](int r) { return splat(weights[r * row_stride]); }, [&](int i) { return load(value + i * kLanes); });
  }
#pragma GCC unroll 6
  for (int r = 0; r < Rows; r++)
#pragma GCC unroll 4
    for (int i = 0; i < Vectors; i++) store(out[r] + d + i * kLanes, sum[r][i]);
}

template <int Rows>
void weighted_rows(float *const *out, const float *weights, int64_t row_stride, int64_t key_stride, const float *const *values,
                   int64_t key_count, int64_t dim) {
  constexpr int kMost = kTileVectors<Rows>;
  int64_t d = 0;
  if constexpr (kMost > 2)
    for (; d + kMost * kLanes <= dim; d += kMost * kLanes)
      weighted_tile<Rows, kMost>(out, d, weights, row_stride, key_stride, values, key_count);
  for (; d + 2 * kLanes <= dim; d += 2 * kLanes) weighted_tile<Rows, 2>(out, d, weights, row_stride, key_stride, values, key_count);
  for (; d + kLanes <= dim; d += kLanes) weighted_tile<Rows, 1>(out, d, weights, row_stride, key_stride, values, key_count);
  for (; d < dim; d++)
    for (int r = 0; r < Rows; r++)
      for (int64_t j = 0; j < key_count; j++) out[r][d] = fma(weights[r * row_stride + j * key_stride], values[j][d], out[r][d]);
}

// Calls body(std::integral_constant) with the number of rows, 1 to kTileRows, as a constant.
template <class Body> ARBOR_INLINE void by_row_count(int64_t rows, const Body &body) {
  switch (rows) {
  case 1: return body(std::integral_constant<int, 1>());
  case 2: return body(std::integral_constant<int, 2>());
  case 3: return body(std::integral_constant<int, 3>());
  case 4: return body(std::integral_constant<int, 4>());
  case 5: return body(std::integral_constant<int, 5>());
  default: return body(std::integral_constant<int, 6>());
  }
}

// scores[r * kBlock + j] = rows[r] · key j of the packed block, for the rows of one tile.
inline void scores_of_tile(float *scores, const float *const *rows, int64_t row_count, const float *packed, int64_t key_count,
                           int64_t dim) {
  by_row_count(row_count, [&](auto count) { scores_rows<count>(scores, rows, packed, key_count, dim); });
}

// out[r] += Σ_j weights[r * row_stride + j * key_stride] · values[j], j in order, for the rows of one tile.
inline void add_weighted_to_tile(float *const *out, int64_t row_count, const float *weights, int64_t row_stride, int64_t key_stride,
                                 const float *const *values, int64_t key_count, int64_t dim) {
  by_row_count(row_count,
               [&](auto count) { weighted_rows<count>(out, weights, row_stride, key_stride, values, key_count, dim); });
}

} // namespace arbor
