// Attention in f32 arithmetic for any width: a warp computes four rows against 32 others, each of which has a lane. Rows lie in shared memory
// as f32, padded with zeros to a multiple of four numbers; the 32 others one number further apart, so that lanes read different banks.
#pragma once

#include "attention.cuh"

namespace arbor {

constexpr int kSimpleWarps = 8, kSimpleThreads = 32 * kSimpleWarps, kOwn = 4, kOthers = 32;
static_assert(kSimpleRows == kSimpleWarps * kOwn && kSimpleKeys == kSimpleWarps * kOwn, "tiles are planned so");

__host__ __device__ inline int padded(int dim) { return (dim + 3) / 4 * 4; }

// What the four rows of a warp have at one of the others.
struct alignas(16) Four {
  float at[kOwn];
};

// Σ row · other for each of four rows, the others' numbers in this lane's row of the table. d in order.
__device__ __forceinline__ void inner_products(float (&sum)[kOwn], const float *rows, const float *other, int width) {
#pragma unroll
  for (int r = 0; r < kOwn; r++) sum[r] = 0;
  for (int d = 0; d < width; d += 4) {
    const float x[4] = {other[d], other[d + 1], other[d + 2], other[d + 3]};
#pragma unroll
    for (int r = 0; r < kOwn; r++) {
      const float4 y = *reinterpret_cast<const float4 *>(rows + r * width + d);
      sum[r] = fmaf(y.x, x[0], sum[r]);
      sum[r] = fmaf(y.y, x[1], sum[r]);
      sum[r] = fmaf(y.z, x[2], sum[r]);
      sum[r] = fmaf(y.w, x[3], sum[r]);
    }
  }
}

// sum[r][i] += Σ_j weights[j].at[r] · other j's number lane + 32 i, j in order.
template <int Columns>
__device__ __forceinline__ void add_weighted(float (&sum)[kOwn][Columns], const Four *weights, const float *others, int width, int lane) {
  for (int j = 0; j < kOthers; j++) {
    const Four weight = weights[j];
#pragma unroll
    for (int i = 0; i < Columns; i++) {
      const float x = others[j * (width + 1) + min(lane + 32 * i, width)];
#pragma unroll
      for (int r = 0; r < kOwn; r++) sum[r][i] = fmaf(weight.at[r], x, sum[r][i]);
    }
  }
}

// Row r of a table becomes from[at(r)], zeros where at(r) is negative; warps take turns.
template <class T, class At>
__device__ __forceinline__ void load_rows(float *table, int stride, const T *from, int64_t from_stride, int dim, int width, const At &at) {
  for (int r = int(threadIdx.x) >> 5; r < kOthers; r += kSimpleWarps) {
    const int64_t row = at(r);
    for (int d = int(threadIdx.x) & 31; d < width; d += 32)
      table[r * stride + d] = row >= 0 && d < dim ? to_float(from[row * from_stride + d]) : 0.0f;
  }
}

// Which row of [tokens * heads] a tile's row is; -1 past the end.
struct RowOfTile {
  const PackedRows &rows;
  __device__ int64_t operator()(int r) const { return r < rows.count ? rows.at(r) : -1; }
};
// Which slot an entry of a context is; -1 past the end.
struct SlotOfEntry {
  const AttentionShape &shape;
  const int32_t *entries;
  int count;
  __device__ int64_t operator()(int j) const { return j < count ? checked_slot(shape, entries[j]) : -1; }
};

// Calls `code` with Columns bound to the numbers of a row that a lane sums.
#define ARBOR_BY_COLUMNS(dim, ...) \
  do {                             \
    if ((dim) <= 32) {             \
      constexpr int Columns = 1;   \
      __VA_ARGS__;                 \
    } else if ((dim) <= 64) {      \
      constexpr int Columns = 2;   \
      __VA_ARGS__;                 \
    } else if ((dim) <= 128) {     \
      constexpr int Columns = 4;   \
      __VA_ARGS__;                 \
    } else {                       \
      constexpr int Columns = 8;   \
      __VA_ARGS__;                 \
    }                              \
  } while (0)

} // namespace arbor
