// Softmax with a running maximum (flash attention, Dao et al., 2022) over the accumulators of a warp's 16 rows. Exponents are in base 2.
#pragma once

#include "attention_shape.cuh"

namespace arbor {

constexpr float kMostFloat = 3.402823466e38f;

// A lane's two of the 16 rows, lane / 4 and 8 more: maximum of the scores so far (a number also before there is one, so that differences are), this
// lane's part of the sum of weights, the weighted sums of values.
template <int D> struct Sums {
  float peak[2] = {-kMostFloat, -kMostFloat}, total[2] = {0, 0}, out[D / 8][4] = {};
};

// Minus infinity for the keys from seen[row] on; `first` is the block's first.
template <int Keys> __device__ __forceinline__ void mask(float (&scores)[Keys / 8][4], const int (&seen)[2], int first, int lane) {
#pragma unroll
  for (int n = 0; n < Keys / 8; n++)
#pragma unroll
    for (int i = 0; i < 4; i++)
      if (first + 8 * n + 2 * (lane & 3) + (i & 1) >= seen[i >> 1]) scores[n][i] = -INFINITY;
}

__device__ __forceinline__ float max_of_four(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
__device__ __forceinline__ float sum_of_four(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

// The highest of a row's scores, or `peak`; every lane of the row has it.
template <int N> __device__ __forceinline__ float highest(const float (&scores)[N][4], int row, float peak) {
#pragma unroll
  for (int n = 0; n < N; n++) peak = fmaxf(peak, fmaxf(scores[n][2 * row], scores[n][2 * row + 1]));
  return max_of_four(peak);
}

// A row's scores times `scale` become weights under the peak that `scaled` is, 32 keys from tile `first` on: what a warp has where warps divide the keys.
// Returns this lane's part of their sum.
constexpr int kStripTiles = 4;
template <int N> __device__ __forceinline__ float weigh_strip(float (&scores)[N][4], int first, int row, float scale, float scaled) {
  float total = 0;
#pragma unroll
  for (int n = first; n < first + kStripTiles; n++)
#pragma unroll
    for (int i = 2 * row; i < 2 * row + 2; i++) {
      scores[n][i] = exp2_fast(fmaf(scores[n][i], scale, -scaled));
      total += scores[n][i];
    }
  return total;
}

// Scores times `scale` become weights; the sums so far shrink to the new peaks. Where a row sees none of the keys nothing changes, to the bit.
template <int D, int Keys> __device__ __forceinline__ void soften(float (&scores)[Keys / 8][4], Sums<D> &sums, float scale) {
#pragma unroll
  for (int row = 0; row < 2; row++) {
    const float peak = highest(scores, row, sums.peak[row]);
    const float shrink = exp2_fast((sums.peak[row] - peak) * scale), scaled = peak * scale;
    sums.peak[row] = peak;
    sums.total[row] = fmaf(sums.total[row], shrink, weigh_strip(scores, 0, row, scale, scaled));
#pragma unroll
    for (int first = kStripTiles; first < Keys / 8; first += kStripTiles) sums.total[row] += weigh_strip(scores, first, row, scale, scaled);
#pragma unroll
    for (int n = 0; n < D / 8; n++) sums.out[n][2 * row] *= shrink, sums.out[n][2 * row + 1] *= shrink;
  }
}

} // namespace arbor
