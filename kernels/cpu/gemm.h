// Matrix products C = init + (scale · A) B with a fixed order of sums: every element of C is one chain of multiply-adds over k, started from
// its initial value, whatever the sizes, the blocking, the threads. So a row never depends on the other rows (bitwise). With a weight in bf16
// (gemm_bf16.cpp) A is rounded to bf16 on the way, and AMX adds up 32 k's before it adds them to the chain.
#pragma once

#include <cstdint>
#include <functional>

namespace arbor {

constexpr int64_t kPanel = 16; // columns a packed panel holds; the layouts ARBOR_F32_PANELS and ARBOR_BF16_PANELS

// Pairs of inputs in a panel of ARBOR_BF16_PANELS: padded, so that k runs in steps of 32.
constexpr int64_t bf16_pairs(int64_t in) { return (in + 31) / 32 * 16; }

// Element (m, k) lies at data[m * row + k * column]; one of the strides is 1.
struct MatrixA {
  const float *data;
  int64_t row, column;
  float scale = 1;
};

// Element (k, n).
struct MatrixB {
  enum Kind { Strided, Panels, PanelsTransposed, Bf16Panels, Bf16PanelsTransposed } kind;
  const float *data;
  int64_t k_stride, n_stride;       // Strided: one of them is 1
  int64_t inner;                    // Panels: rows k of the stored panels. PanelsTransposed: the stored `in`, here the number of columns
  const uint32_t *halves = nullptr; // instead of `data` where panels are in bf16: pairs of consecutive inputs, as ARBOR_BF16_PANELS says

  bool is_bf16() const { return kind >= Bf16Panels; }

  static MatrixB strided(const float *data, int64_t k_stride, int64_t n_stride) { return {Strided, data, k_stride, n_stride, 0}; }
  // A weight [out, in] stored in panels of 16 outputs: as its transpose (y = x Wᵀ), and as itself (dx = dy W).
  static MatrixB panels(const float *data, int64_t in) { return {Panels, data, 0, 0, in}; }
  static MatrixB panels_transposed(const float *data, int64_t in) { return {PanelsTransposed, data, 0, 0, in}; }
  // A weight of any layout from its row `first` on, a multiple of 16.
  static MatrixB weight(const void *data, int32_t type, int64_t in, int64_t first = 0);
  static MatrixB weight_transposed(const void *data, int32_t type, int64_t in, int64_t first = 0);
};

struct MatrixC {
  float *data;
  int64_t row;
  const float *init = nullptr; // null: zero; a bias: init_row 0; data itself: accumulate
  int64_t init_row = 0;

  static MatrixC overwrite(float *data, int64_t row) { return {data, row, nullptr, 0}; }
  static MatrixC accumulate(float *data, int64_t row) { return {data, row, data, row}; }
};

struct Gemm {
  int64_t m, n, k;
  MatrixA a;
  MatrixB b;
  MatrixC c;
};

// What follows a finished block of C: while it is still in the cache.
using AfterBlock = std::function<void(int64_t m0, int64_t rows, int64_t n0, int64_t columns)>;

// Rows [m0, m0 + rows) and columns [n0, n0 + columns) on this thread; n0 is a multiple of 16. Uses scratch slots 0 and 1. `after` is called for
// each strip of columns, and must leave those slots alone.
void gemm_block(const Gemm &gemm, int64_t m0, int64_t rows, int64_t n0, int64_t columns, const AfterBlock &after = {});

// Small work that shares the tasks of a product: `before` a block of C it is called for the block's rows (once for each row), `after` for the
// finished block; the `last` tasks come when it has been called for all rows.
struct Beside {
  std::function<void(int64_t m0, int64_t rows)> before;
  AfterBlock after;
  int64_t last_count = 0;
  std::function<void(int64_t task)> last;
};

// All of it, over the pool's threads.
void gemm(const Gemm &gemm, const Beside &beside = {});

// The same for a long k and a small C that is added to (a weight's gradient, k = tokens): k is cut into pieces whose number depends on the
// sizes alone, each is a chain of its own, and they are added to C in order. So there is work for many threads, and still one result.
void gemm_long(const Gemm &gemm);

} // namespace arbor
