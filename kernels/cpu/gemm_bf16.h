// Products with a weight in bf16 (ARBOR_BF16_PANELS): the other operand is rounded to bf16, sums are f32. The multiply-adds of this build stand in
// gemm_bf16_tile.h: AMX, AVX512-BF16, or f32 after widening, so numbers agree between instruction sets up to the rounding of f32 sums.
#pragma once

#include <cstdint>
#include <cstring>

#include "gemm.h"

namespace arbor {

// To the nearest, ties to even.
inline uint16_t to_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline float from_bf16(uint16_t half) {
  const uint32_t bits = uint32_t(half) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Whether this CPU multiplies bf16 faster than f32.
bool bf16_is_fast();

// How gemm cuts C: blocks of rows start at multiples of `unit` and have at most `rows`.
struct Bf16Blocks {
  int64_t unit, rows;
};
Bf16Blocks bf16_blocks();

// gemm_block where B is in bf16. Rows of A are contiguous (column stride 1).
void gemm_bf16_block(const Gemm &gemm, int64_t m0, int64_t rows, int64_t n0, int64_t columns, const AfterBlock &after);

// The whole of B (Bf16PanelsTransposed) [k, n] as Bf16Panels in `to`, over the pool's threads: ceil(n / 16) * 16 * bf16_pairs(k) words.
MatrixB bf16_transposed(uint32_t *to, const MatrixB &b, int64_t k, int64_t n);

} // namespace arbor
