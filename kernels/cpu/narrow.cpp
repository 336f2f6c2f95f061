// Three kernels, each with all its sums in registers: inner products of rows (lanes run over k, so nothing is transposed), an update of C of rank
// k, and a sum of outer products over rows.

#include "narrow.h"

#include <algorithm>
#include <array>
#include <utility>

#include "pool.h"
#include "simd.h"

namespace arbor {
namespace {

constexpr int kWidth = kLanes / 2;     // j's of a group: with kDotRows rows, and with three vectors of columns, they fill the registers
constexpr int kDotRows = 3;
constexpr int64_t kDotInner = 768;     // k's of a group at a time: a third of the first-level cache
constexpr int kUpdateVectors = 2;      // columns of a tile of an update
constexpr int64_t kUpdateColumns = kUpdateVectors * kLanes, kUpdateInner = 64;
#if defined(__AVX512F__)
constexpr int kUpdateRows = 14;
#else
constexpr int kUpdateRows = 6;
#endif
constexpr int kOuterVectors = 3;
constexpr int64_t kOuterPanel = kOuterVectors * kLanes, kOuterRows = 128, kOuterAhead = 24;
static_assert(kOuterColumns % kOuterPanel == 0);

using Sums = float[kWidth];

// Loaded once: the compiler would fold the load into each multiply-add, and loads are scarcer than those.
ARBOR_INLINE vf in_register(vf v) {
#if defined(__AVX__)
  asm("" : "+v"(v));
#endif
  return v;
}

// The sums over the lanes of each of the vectors, always in the same tree.
ARBOR_INLINE void sum_each(Sums &to, const vf (&v)[kWidth]) {
#if defined(__AVX512F__)
  const auto two = [](vf a, vf b) { return _mm512_add_ps(_mm512_unpacklo_ps((__m512)a, (__m512)b), _mm512_unpackhi_ps((__m512)a, (__m512)b)); };
  const auto four = [&](int i) {
    const __m512d ab = _mm512_castps_pd(two(v[i], v[i + 1])), cd = _mm512_castps_pd(two(v[i + 2], v[i + 3]));
    return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)), _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)));
  };
  const __m512 low = four(0), high = four(4);
  const __m512 halves = _mm512_add_ps(_mm512_shuffle_f32x4(low, high, 0x44), _mm512_shuffle_f32x4(low, high, 0xee));
  const __m512 all = _mm512_add_ps(_mm512_shuffle_f32x4(halves, halves, 0x08), _mm512_shuffle_f32x4(halves, halves, 0x0d));
  _mm256_storeu_ps(to, _mm512_castps512_ps256(all));
#elif defined(__AVX__)
  const auto two = [](vf a, vf b) { return _mm256_add_ps(_mm256_unpacklo_ps((__m256)a, (__m256)b), _mm256_unpackhi_ps((__m256)a, (__m256)b)); };
  const __m256d ab = _mm256_castps_pd(two(v[0], v[1])), cd = _mm256_castps_pd(two(v[2], v[3]));
  const __m256 halves = _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(ab, cd)), _mm256_castpd_ps(_mm256_unpackhi_pd(ab, cd)));
  _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1)));
#else
  for (int j = 0; j < kWidth; j++) to[j] = sum_lanes(v[j]);
#endif
}

// Rows x kWidth inner products over `k`; with `Packed` the next vectors of all j's lie side by side, else in rows.
template <int Rows, bool Packed> void dot_tile(Sums *to, const float *x, int64_t x_row, const float *m, int64_t m_row, int64_t k) {
  const int64_t row = Packed ? kLanes : m_row, step = Packed ? kWidth * kLanes : kLanes;
  vf sum[Rows][kWidth] = {};
  const auto multiply = [&](const float *from, int64_t from_row) __attribute__((always_inline)) {
    vf value[Rows];
#pragma GCC unroll 4
    for (int r = 0; r < Rows; r++) value[r] = load(from + r * from_row);
#pragma GCC unroll 8
    for (int j = 0; j < kWidth; j++) {
      const vf column = in_register(load(m + j * row));
#pragma GCC unroll 4
      for (int r = 0; r < Rows; r++) sum[r][j] = fma(value[r], column, sum[r][j]);
    }
  };
  int64_t i = 0;
  for (; i + kLanes <= k; i += kLanes, m += step) multiply(x + i, x_row);
  if (i < k) {
    float rest[Rows][kLanes] = {};
    for (int r = 0; r < Rows; r++) std::copy_n(x + r * x_row + i, k - i, rest[r]);
    multiply(rest[0], kLanes);
  }
#pragma GCC unroll 4
  for (int r = 0; r < Rows; r++) sum_each(to[r], sum[r]);
}

template <bool Packed> void dot_group(Sums *to, int64_t rows, const float *x, int64_t x_row, const float *m, int64_t m_row, int64_t k) {
  (rows == 1 ? dot_tile<1, Packed> : rows == 2 ? dot_tile<2, Packed> : dot_tile<3, Packed>)(to, x, x_row, m, m_row, k);
}

int64_t whole_vectors(int64_t k) { return (k + kLanes - 1) / kLanes * kLanes; }

// c [Rows, Vectors * kLanes] += u [Rows, k] p [k, kUpdateColumns].
template <int Rows> void update_tile(float *c, int64_t c_row, const float *u, int64_t u_row, const float *p, int64_t k) {
  vf sum[Rows][kUpdateVectors];
#pragma GCC unroll 16
  for (int r = 0; r < Rows; r++)
    for (int j = 0; j < kUpdateVectors; j++) sum[r][j] = load(c + r * c_row + j * kLanes);
  for (int64_t i = 0; i < k; i++, p += kUpdateColumns) {
    const vf left = load(p), right = load(p + kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < Rows; r++) {
      const vf value = splat(u[r * u_row + i]);
      sum[r][0] = fma(value, left, sum[r][0]);
      sum[r][1] = fma(value, right, sum[r][1]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < Rows; r++)
    for (int j = 0; j < kUpdateVectors; j++) store(c + r * c_row + j * kLanes, sum[r][j]);
}

// sum [Rows, kOuterPanel] += Σ_t u[t, 0 … Rows) v[t, kOuterPanel].
template <int Rows> void outer_tile(float *sum, const float *u, int64_t u_row, const float *v, int64_t count) {
  vf part[Rows][kOuterVectors] = {};
  for (int64_t t = 0; t < count; t++, u += u_row, v += kOuterPanel) {
    vf column[kOuterVectors];
#pragma GCC unroll 4
    for (int i = 0; i < kOuterVectors; i++) column[i] = load(v + i * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; r++) {
      const vf value = splat(u[r]);
#pragma GCC unroll 4
      for (int i = 0; i < kOuterVectors; i++) part[r][i] = fma(value, column[i], part[r][i]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < Rows; r++, sum += kOuterColumns)
#pragma GCC unroll 4
    for (int i = 0; i < kOuterVectors; i++) store(sum + i * kLanes, load(sum + i * kLanes) + part[r][i]);
}

using UpdateTile = void (*)(float *, int64_t, const float *, int64_t, const float *, int64_t);
using OuterTile = void (*)(float *, const float *, int64_t, const float *, int64_t);
template <size_t... I> constexpr std::array<UpdateTile, sizeof...(I)> update_tiles(std::index_sequence<I...>) { return {update_tile<int(I) + 1>...}; }
template <size_t... I> constexpr std::array<OuterTile, sizeof...(I)> outer_tiles(std::index_sequence<I...>) { return {outer_tile<int(I) + 1>...}; }
constexpr auto kUpdateTiles = update_tiles(std::make_index_sequence<kUpdateRows>());
constexpr auto kOuterTiles = outer_tiles(std::make_index_sequence<kWidth>());

// All rows of a strip of kUpdateColumns; p is packed [k][kUpdateColumns].
void update_strip(float *c, int64_t c_row, int64_t rows, const float *u, int64_t u_row, const float *p, int64_t k) {
  const int64_t tiles = (rows + kUpdateRows - 1) / kUpdateRows;
  for (int64_t t = 0; t < tiles; t++) {
    const int64_t first = t * rows / tiles, height = (t + 1) * rows / tiles - first;
    kUpdateTiles[size_t(height - 1)](c + first * c_row, c_row, u + first * u_row, u_row, p, k);
  }
}

} // namespace

bool DotColumns::in_place(int64_t width, int64_t k) { return width % kWidth == 0 && k % kLanes == 0; }

int64_t DotColumns::packed_floats(int64_t width, int64_t k) { return (width + kWidth - 1) / kWidth * kWidth * whole_vectors(k); }

DotColumns DotColumns::packed(float *to, const float *from, int64_t row, int64_t column, int64_t width, int64_t k) {
  constexpr int64_t kSquare = 8;
  const int64_t group = kWidth * whole_vectors(k);
  if (!in_place(width, k)) std::fill_n(to, packed_floats(width, k), 0.0f);
  for (int64_t j = 0; j < width; j += kSquare)
    for (int64_t i = 0; i < k; i += kLanes) {
      float block[kSquare * kLanes + 8] = {};
      const int64_t columns = std::min(kSquare, width - j), rows = std::min<int64_t>(kLanes, k - i);
      const float *begin = from + j * row + i * column;
      if (row == 1)
        transpose(block, kLanes, begin, column, rows, columns, 1);
      else
        for (int64_t c = 0; c < columns; c++)
          for (int64_t r = 0; r < rows; r++) block[c * kLanes + r] = begin[c * row + r];
      for (int64_t c = 0; c < columns; c++)
        store(to + (j + c) / kWidth * group + i * kWidth + (j + c) % kWidth * kLanes, load(block + c * kLanes));
    }
  return {to, width, k, 0};
}

void dot_rows(const DotRows &rows, int64_t count, const DotColumns &m) {
  const int64_t group = kWidth * whole_vectors(m.k);
  for (int64_t k0 = 0; k0 < m.k; k0 += kDotInner)
    for (int64_t j = 0; j < m.width; j += kWidth)
      for (int64_t r = 0; r < count; r += kDotRows) {
        const int64_t height = std::min<int64_t>(kDotRows, count - r), k = std::min(kDotInner, m.k - k0);
        const float *x = rows.x + r * rows.x_row + k0;
        Sums sums[kDotRows];
        if (m.row)
          dot_group<false>(sums, height, x, rows.x_row, m.data + j * m.row + k0, m.row, k);
        else
          dot_group<true>(sums, height, x, rows.x_row, m.data + j / kWidth * group + k0 * kWidth, 0, k);
        for (int64_t i = 0; i < height; i++)
          for (int64_t l = 0; l < std::min<int64_t>(kWidth, m.width - j); l++) {
            float &to = rows.to[(r + i) * rows.to_row + j + l];
            to = k0 > 0 ? fma(sums[i][l], rows.scale, to) : sums[i][l] * rows.scale;
          }
      }
}

void narrow_update(const NarrowUpdate &g, int64_t rows, int64_t columns) {
  alignas(64) float p[kUpdateInner * kUpdateColumns + 8];
  alignas(64) float edge[kUpdateRows * kUpdateColumns];
  for (int64_t n = 0; n < columns; n += kUpdateColumns) {
    const int64_t width = std::min(kUpdateColumns, columns - n);
    for (int64_t k0 = 0; k0 < g.k; k0 += kUpdateInner) {
      const int64_t k = std::min(kUpdateInner, g.k - k0);
      const float *b = g.b + k0 * g.b_k + n * g.b_n;
      if (g.b_k == 1)
        transpose(p, kUpdateColumns, b, g.b_n, width, k, g.scale);
      else
        for (int64_t i = 0; i < k; i++)
          for (int64_t j = 0; j < width; j++) p[i * kUpdateColumns + j] = b[i * g.b_k + j] * g.scale;
      const float *u = g.u + k0;
      float *c = g.c + n;
      if (width == kUpdateColumns)
        update_strip(c, g.c_row, rows, u, g.u_row, p, k);
      else
        for (int64_t r = 0; r < rows; r += kUpdateRows) { // what sticks out goes through a buffer
          const int64_t height = std::min<int64_t>(kUpdateRows, rows - r);
          for (int64_t i = 0; i < height; i++) std::copy_n(c + (r + i) * g.c_row, width, edge + i * kUpdateColumns);
          update_strip(edge, kUpdateColumns, height, u + r * g.u_row, g.u_row, p, k);
          for (int64_t i = 0; i < height; i++) std::copy_n(edge + i * kUpdateColumns, width, c + (r + i) * g.c_row);
        }
    }
  }
}

void outer_sum(const OuterSum &g, int64_t columns) {
  float *panels = scratch(0, kOuterRows * kOuterColumns), *sum = scratch(1, g.width * kOuterColumns);
  std::fill_n(sum, g.width * kOuterColumns, 0.0f);
  if (columns % kOuterPanel) std::fill_n(panels, kOuterRows * kOuterColumns, 0.0f);
  for (int64_t t0 = 0; t0 < g.rows; t0 += kOuterRows) {
    const int64_t count = std::min(kOuterRows, g.rows - t0);
    for (int64_t t = 0; t < count; t++) {
      const float *from = g.v + (t0 + t) * g.v_row;
      for (int64_t n = 0; n < columns; n += 16) __builtin_prefetch(from + kOuterAhead * g.v_row + n);
      for (int64_t n = 0; n < columns; n += kOuterPanel) {
        float *to = panels + n * kOuterRows + t * kOuterPanel;
        if (columns - n < kOuterPanel)
          std::copy_n(from + n, columns - n, to);
        else
          for (int i = 0; i < kOuterVectors; i++) store(to + i * kLanes, load(from + n + i * kLanes));
      }
    }
    for (int64_t n = 0; n < columns; n += kOuterPanel)
      for (int64_t j = 0; j < g.width; j += kWidth)
        kOuterTiles[size_t(std::min<int64_t>(kWidth, g.width - j) - 1)](sum + j * kOuterColumns + n, g.u + t0 * g.u_row + j, g.u_row,
                                                                        panels + n * kOuterRows, count);
  }
  for (int64_t j = 0; j < g.width; j++)
    for (int64_t n = 0; n < columns; n++) g.sum[j * g.sum_j + n * g.sum_n] += g.scale * sum[j * kOuterColumns + n];
}

} // namespace arbor
