// What a block of x aᵀ has: a warp's fragments of a, where x lies, the warps' shares, and which rows, tokens and piece of k it works on (lora_down.cu).
#pragma once

#include "lora.cuh"
#include "mma.cuh"

namespace arbor {
namespace down {

constexpr int kWarps = 8, kThreads = 32 * kWarps;
constexpr int kRows = 16; // of a, a block's
constexpr int kStep = 32; // of k, a warp's at a time
constexpr int kAhead = 2; // steps that are loaded before they are used
constexpr int kLeastPiece = kWarps * kStep * kAhead; // of k, a block's: each warp has kAhead steps of it, or a multiple
constexpr int kMostPieces = 6;                       // whoever adds them reads so many at once

__host__ __device__ inline int64_t piece_of(int64_t in) { return ceil_div(ceil_div(in, kMostPieces), kLeastPiece) * kLeastPiece; }

// Where a thread's values are: two rows of a, and column after column of x.
struct Places {
  const float *upper, *lower;
  const bf16 *column;
  bool upper_there, lower_there;
  int64_t token, tokens, in;

  // 16 rows of a from `row` on, `rows` of them there.
  __device__ __forceinline__ Places(const float *a, int64_t row, int64_t rows, const bf16 *x, int64_t first, int64_t count, int64_t width) {
    const int group = (threadIdx.x & 31) >> 2;
    upper_there = row + group < rows, lower_there = row + group + 8 < rows;
    upper = a + (row + group) * width, lower = upper + 8 * width;
    column = x + (first + group) * width;
    token = first + group, tokens = count, in = width;
  }
  // k of the thread's values in step s of a piece.
  __device__ __forceinline__ static int64_t k(int64_t piece, int s) {
    return piece + (s * kWarps + int(threadIdx.x >> 5)) * kStep + (threadIdx.x & 3) * 8;
  }
  __device__ __forceinline__ void load_a(EightFloats &up, EightFloats &low, int64_t k) const {
    up.clear(), low.clear();
    if (k < in && upper_there) up.load(upper + k);
    if (k < in && lower_there) low.load(lower + k);
  }
  __device__ __forceinline__ bool has(int tile, int64_t k) const { return k < in && token + tile * 8 < tokens; }
  __device__ __forceinline__ const bf16 *x(int tile, int64_t k) const { return column + int64_t(tile) * 8 * in + k; }
};

__device__ __forceinline__ void add_step(float (&sums)[4], const uint4 &u, const uint4 &l, const uint4 &v) {
  mma(sums, {u.x, l.x, u.y, l.y}, v.x, v.y);
  mma(sums, {u.z, l.z, u.w, l.w}, v.z, v.w);
}

// The warps' shares, added in order: partial[row][token] of all 8 warps. Returns the sum for (row, token).
template <int kTiles> struct Partials {
  static constexpr int kTokens = 8 * kTiles;
  float at[kWarps][kRows][kTokens + 1];

  __device__ __forceinline__ void store(const float (&sums)[kTiles][4]) {
    const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, group = lane >> 2, quad = lane & 3;
#pragma unroll
    for (int tile = 0; tile < kTiles; tile++) {
      at[warp][group][tile * 8 + quad * 2] = sums[tile][0];
      at[warp][group][tile * 8 + quad * 2 + 1] = sums[tile][1];
      at[warp][group + 8][tile * 8 + quad * 2] = sums[tile][2];
      at[warp][group + 8][tile * 8 + quad * 2 + 1] = sums[tile][3];
    }
  }
  __device__ __forceinline__ float sum(int row, int token) const {
    float total = 0;
#pragma unroll
    for (int warp = 0; warp < kWarps; warp++) total += at[warp][row][token];
    return total;
  }
};

// The adapter and its 16 rows that a block computes.
__device__ __forceinline__ const Adapter &adapter_of_block(const Adapters &adapters, int32_t block, int64_t &row, int32_t &number) {
  int32_t i = 0;
  for (;; i++) {
    const int32_t blocks = int32_t(ceil_div(adapters.at[i].width(), kRows));
    if (block < blocks || i + 1 == adapters.count) break;
    block -= blocks;
  }
  row = int64_t(block) * kRows;
  number = i;
  return adapters.at[i];
}

// A block's work: 16 rows of a, kTiles · 8 tokens, a piece of k.
template <int kTiles> struct Work {
  int64_t token = int64_t(blockIdx.y) * 8 * kTiles, row, begin, end;
  int32_t number;
  const Adapter &adapter;

  __device__ __forceinline__ Work(const Adapters &adapters) : adapter(adapter_of_block(adapters, int32_t(blockIdx.x), row, number)) {
    begin = adapter.row_start, end = begin + adapter.row_count;
  }
  __device__ __forceinline__ bool none() const { return token + 8 * kTiles <= begin || token >= end; }
  __device__ __forceinline__ Places places(const bf16 *x, int64_t tokens, int64_t in) const {
    return Places(adapter.a, row, adapter.width(), x, token, tokens, in);
  }
  __device__ __forceinline__ void store(const PieceSums &to, const Partials<kTiles> &partials) const {
    const int64_t width = adapter.width();
    float *out = to.at + to.start[number] + int64_t(blockIdx.z) * adapter.row_count * width;
    for (int i = threadIdx.x; i < kRows * 8 * kTiles; i += kThreads) {
      const int64_t r = row + i % kRows, t = token + i / kRows;
      if (r < width && t >= begin && t < end) out[(t - begin) * width + r] = partials.sum(i % kRows, i / kRows);
    }
  }
};

} // namespace down

void launch_down_in_order(cudaStream_t on, const void *x, int64_t tokens, int64_t in, const Adapters &adapters, const PieceSums &sums);

} // namespace arbor
