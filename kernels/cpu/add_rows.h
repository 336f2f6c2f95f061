// Sums of columns over many rows: a bias's gradient, a norm weight's.
#pragma once

#include <algorithm>

#include "pool.h"

namespace arbor {

// out[columns] += Σ row: add(sum, t) adds row t to sum[columns]. Rows are summed in pieces of 256, the pieces in order, so that threads
// don't change the sum. Uses scratch slot 3 of the calling thread.
template <class Add> void add_rows(float *out, int64_t rows, int64_t columns, const Add &add) {
  constexpr int64_t kRows = 256;
  const int64_t pieces = (rows + kRows - 1) / kRows;
  float *sums = scratch(3, pieces * columns + 1);
  parallel_for(pieces, [&](int64_t piece) {
    float *sum = sums + piece * columns;
    std::fill_n(sum, columns, 0.0f);
    const int64_t last = std::min(rows, (piece + 1) * kRows);
    for (int64_t t = piece * kRows; t < last; t++) add(sum, t);
  });
  for (int64_t piece = 0; piece < pieces; piece++)
    for (int64_t i = 0; i < columns; i++) out[i] += sums[piece * columns + i];
}

} // namespace arbor
