// Rows of logits as they come from the head, read once: a warp for each kBlock of them, so that few rows keep all multiprocessors busy. What the warps find
// a row's block joins.
#pragma once

#include "sample_row.cuh"

namespace arbor::sampling {

// Of a row's kBlock logits: the largest, and the sums of weights relative to it, at the row's temperature and at 1.
struct Share {
  double at_temperature, at_one;
  float peak;
};

constexpr int kShareWarps = 8;

__device__ __forceinline__ float temperature_of(const float *floats) { return floats[0] > 0 ? floats[0] : 1.0f; }

static __global__ void __launch_bounds__(32 * kShareWarps) find_shares(Share *shares, const float *logits, const float *floats, int64_t vocab) {
  constexpr int kMine = kBlock / 32; // a lane's
  const int lane = threadIdx.x & 31, b = int(blockIdx.y) * kShareWarps + (int(threadIdx.x) >> 5), blocks = int(ceil_div(vocab, kBlock));
  after_kernels_before();
  if (b >= blocks) return;
  const float *const x = logits + blockIdx.x * vocab + int64_t(b) * kBlock;
  const int count = int(min(int64_t(kBlock), vocab - int64_t(b) * kBlock));
  alignas(16) float values[kMine];
  float peak = -INFINITY;
  if (vocab % 4 == 0 && count == kBlock) { // rows begin at multiples of 16 bytes
#pragma unroll
    for (int j = 0; j < kMine; j += 4) *reinterpret_cast<float4 *>(values + j) = *reinterpret_cast<const float4 *>(x + j * 32 + 4 * lane);
  } else {
#pragma unroll
    for (int j = 0; j < kMine; j++) values[j] = j * 32 + lane < count ? x[j * 32 + lane] : -INFINITY;
  }
#pragma unroll
  for (int j = 0; j < kMine; j++) peak = fmaxf(peak, values[j]);
  peak = warp_max(peak);
  const auto sum = [&](float temperature) {
    double total = 0;
#pragma unroll
    for (int j = 0; j < kMine; j++) total += double(weight_of(values[j], peak, temperature));
    return warp_sum(total);
  };
  Share share = {0, 0, peak};
  if (peak > -INFINITY) {
    const float temperature = temperature_of(floats + int64_t(blockIdx.x) * 6);
    share.at_temperature = share.at_one = sum(1);
    if (temperature != 1) share.at_temperature = sum(temperature);
  }
  if (lane == 0) shares[blockIdx.x * int64_t(blocks) + b] = share;
}

// The row's best logit and the lowest id that has it into shared.peak, shared.token; the blocks' sums at its temperature into shared.sums, their total
// into shared.total. Answers the total at 1.
inline __device__ double join_shares(Shared &shared, const Share *shares, const float *x, int64_t vocab, float temperature) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, blocks = int(ceil_div(vocab, kBlock));
  const Share own = int(threadIdx.x) < blocks ? shares[threadIdx.x] : Share{0, 0, -INFINITY};
  const float highest = warp_max(own.peak);
  if (lane == 0) shared.best[warp] = highest;
  if (threadIdx.x == 0) shared.block = shared.token = 0x7fffffff;
  __syncthreads();
  const float peak = warp_max(shared.best[lane]);
  if (threadIdx.x < kMostBlocks) shared.sums[threadIdx.x] = own.peak > -INFINITY ? own.at_temperature * double(weight_of(own.peak, peak, temperature)) : 0;
  const double ones_of_warp = warp_sum(own.peak > -INFINITY ? own.at_one * double(weight_of(own.peak, peak, 1)) : 0);
  if (lane == 0) shared.parts[warp] = ones_of_warp;
  if (int(threadIdx.x) < blocks && own.peak == peak) atomicMin(&shared.block, int32_t(threadIdx.x));
  __syncthreads();
  const int64_t i = int64_t(shared.block) * kBlock + threadIdx.x;
  if (shared.block < blocks && i < vocab && x[i] == peak) atomicMin(&shared.token, int32_t(i));
  const double ones = warp_sum(shared.parts[lane]);
  add_blocks(shared, vocab);
  if (threadIdx.x == 0) {
    shared.peak = peak;
    if (shared.token == 0x7fffffff) shared.token = 0; // no logit is a number
  }
  __syncthreads();
  return ones;
}

} // namespace arbor::sampling
