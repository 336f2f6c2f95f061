// Products in which one side is as narrow as an adapter's rank. Packing the wide side for 16 columns, as gemm.h does for hundreds, would cost half as
// much as the product: here it is read where it lies. A row's sums depend on nothing but the row and the sizes k and width.
#pragma once

#include <cstdint>

namespace arbor {

// The narrow operand of dot_rows: element (j, k) of [width, k], read in place or packed in groups of some j's.
struct DotColumns {
  const float *data;
  int64_t width, k, row; // row: 0 where packed

  // Whether a matrix [width, k] can be read where it lies; worth it for a few rows only.
  static bool in_place(int64_t width, int64_t k);
  static int64_t packed_floats(int64_t width, int64_t k);
  // Element (j, i) lies at from[j * row + i * column].
  static DotColumns packed(float *to, const float *from, int64_t row, int64_t column, int64_t width, int64_t k);
};

// to[r, j] = scale Σ_k x[r, k] columns[j, k] for r < rows.
struct DotRows {
  const float *x;
  int64_t x_row;
  float *to;
  int64_t to_row;
  float scale;
};
void dot_rows(const DotRows &rows, int64_t count, const DotColumns &columns);

// c[r, n] += scale Σ_k u[r, k] b[k, n] for r < rows, n < columns; b's element lies at b[k * b_k + n * b_n], one of the strides is 1.
struct NarrowUpdate {
  const float *u;
  int64_t u_row, k;
  const float *b;
  int64_t b_k, b_n;
  float scale;
  float *c;
  int64_t c_row;
};
void narrow_update(const NarrowUpdate &update, int64_t rows, int64_t columns);

// sum[j, n] += scale Σ_t u[t, j] v[t, n] for j < width, n < columns; sum's element lies at sum[j * sum_j + n * sum_n]. Uses scratch slots 0 and 1.
constexpr int64_t kOuterColumns = 96; // most columns of one call
struct OuterSum {
  const float *u;
  int64_t u_row, width;
  const float *v;
  int64_t v_row, rows;
  float scale;
  float *sum;
  int64_t sum_j, sum_n;
};
void outer_sum(const OuterSum &outer, int64_t columns);

} // namespace arbor
