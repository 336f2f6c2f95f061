// What both kernels of attention in order do with a block of keys: its peak is passed on, its weights are counted, its rows are stored.
#pragma once

#include "attention_strips.cuh"

namespace arbor {

constexpr int kBlockStrips = 2; // attend_prefill's 64 keys

// A lane's two rows of the tile: highest score so far, and this lane's part of the sum of weights.
struct Running {
  float peak[2] = {-kMostFloat, -kMostFloat}, total[2] = {0, 0};

  // Goes on to the next block, whose strips have these peaks; what it makes of the sums before it.
  __device__ __forceinline__ float pass(int row, float one, float two, float scale) {
    const float before = peak[row];
    peak[row] = fmaxf(before, fmaxf(one, two));
    return exp2_fast((before - peak[row]) * scale);
  }
  // Adds what the block's strips have of it.
  __device__ __forceinline__ void count(int row, float shrink, float one, float two) { total[row] = fmaf(total[row], shrink, one) + two; }
};

// The weights of a strip, for those who sum its values.
__device__ __forceinline__ void lay_weights(uint4 (&to)[kStrip / 16][32], const float (&scores)[kStrip / 8][4], int lane) {
  uint32_t weights[kStrip / 16][4];
  as_left_operand<kStrip>(weights, scores);
#pragma unroll
  for (int k = 0; k < kStrip / 16; k++) to[k][lane] = make_uint4(weights[k][0], weights[k][1], weights[k][2], weights[k][3]);
}

// Sixteen columns of a head's output, of this lane's row `row`.
template <int D>
__device__ __forceinline__ void store_pair(bf16 *out, int64_t at, int pair, const float (&sums)[2][4], int row, float by, int lane) {
#pragma unroll
  for (int n = 0; n < 2; n++)
    *reinterpret_cast<uint32_t *>(out + at * D + 16 * pair + 8 * n + 2 * (lane & 3)) = pack_pair(sums[n][2 * row] * by, sums[n][2 * row + 1] * by);
}

} // namespace arbor
