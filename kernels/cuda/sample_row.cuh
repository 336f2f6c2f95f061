// What a block does with its row of logits: finds the best, sums weights exp((x - peak) / temperature), draws one.
#pragma once

#include "stream.cuh"

namespace arbor::sampling {

constexpr int kThreads = 1024, kWarps = kThreads / 32;
constexpr int kBlock = 1024;     // tokens summed at a time
constexpr int kMostBlocks = 512; // so at most 524,288 tokens

struct Shared {
  double sums[kMostBlocks];
  unsigned long long masses[256];
  int32_t counts[256], ties[kMostBlocks];
  float best[kWarps];
  int32_t at[kWarps];
  // Decided by one thread for all.
  float peak;
  int32_t token, digit, needed;
  unsigned long long mass;
  double total;
};

// Floats in the order of unsigned numbers.
__device__ __forceinline__ uint32_t key_of(float x) {
  const uint32_t bits = __float_as_uint(x);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// The largest value and the lowest id that has it: into shared.peak, shared.token.
inline __device__ void find_best(Shared &shared, const float *x, int64_t vocab) {
  float best = -INFINITY;
  int32_t at = 0x7fffffff;
  const auto take = [&](float value, int32_t id) {
    if (value > best || (value == best && id < at)) best = value, at = id;
  };
  int64_t done = 0;
  if (vocab % 4 == 0) { // rows begin at multiples of 16 bytes
    constexpr int kAhead = 4; // loads under way together
    for (; done + 4 * kAhead * kThreads <= vocab; done += 4 * kAhead * kThreads) {
      float4 values[kAhead];
#pragma unroll
      for (int j = 0; j < kAhead; j++) values[j] = reinterpret_cast<const float4 *>(x + done)[j * kThreads + threadIdx.x];
#pragma unroll
      for (int j = 0; j < kAhead; j++) {
        const int32_t id = int32_t(done) + 4 * (j * kThreads + int32_t(threadIdx.x));
        take(values[j].x, id), take(values[j].y, id + 1), take(values[j].z, id + 2), take(values[j].w, id + 3);
      }
    }
  }
  for (int64_t i = done + threadIdx.x; i < vocab; i += kThreads) take(x[i], int32_t(i));
  for (int offset = 16; offset > 0; offset >>= 1)
    take(__shfl_xor_sync(0xffffffffu, best, offset), __shfl_xor_sync(0xffffffffu, at, offset));
  if ((threadIdx.x & 31) == 0) shared.best[threadIdx.x >> 5] = best, shared.at[threadIdx.x >> 5] = at;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int w = 1; w < kWarps; w++) take(shared.best[w], shared.at[w]);
    shared.peak = best;
    shared.token = at == 0x7fffffff ? 0 : at;
  }
  __syncthreads();
}

__device__ __forceinline__ float weight_of(float x, float peak, float temperature) { return expf((x - peak) / temperature); }

// Weights' sums block by block, in shared.sums; their total in shared.total.
inline __device__ void sum_weights(Shared &shared, const float *x, int64_t vocab, float peak, float temperature) {
  const int lane = threadIdx.x & 31;
  const int32_t blocks = int32_t(ceil_div(vocab, kBlock));
  for (int32_t b = threadIdx.x >> 5; b < blocks; b += kWarps) {
    double sum = 0;
    const int64_t end = min(vocab, int64_t(b + 1) * kBlock);
    constexpr int kAhead = 8; // loads under way together; added in order
    for (int64_t first = int64_t(b) * kBlock + lane; first < end; first += 32 * kAhead) {
      float values[kAhead];
#pragma unroll
      for (int j = 0; j < kAhead; j++) values[j] = first + 32 * j < end ? x[first + 32 * j] : -INFINITY;
#pragma unroll
      for (int j = 0; j < kAhead; j++) sum += double(weight_of(values[j], peak, temperature));
    }
    for (int offset = 16; offset > 0; offset >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    if (lane == 0) shared.sums[b] = sum;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    double total = 0;
    for (int32_t b = 0; b < blocks; b++) total += shared.sums[b];
    shared.total = total;
  }
  __syncthreads();
}

// Inverse CDF in order of token id: the first token at which the running sum passes u · total, into shared.token.
inline __device__ void draw(Shared &shared, const float *x, int64_t vocab, float peak, float temperature, float uniform) {
  const int32_t blocks = int32_t(ceil_div(vocab, kBlock));
  const double goal = double(uniform) * shared.total;
  if (threadIdx.x >= 32) return;
  const int lane = threadIdx.x;
  int32_t b = 0, held = 0; // the block sought; the last one with any weight
  double before = 0;
  for (; b < blocks; b++) {
    if (before + shared.sums[b] > goal) break;
    if (shared.sums[b] > 0) held = b;
    before += shared.sums[b];
  }
  const bool past_end = b == blocks; // u so close to 1 that rounding decides: the last token of any weight
  if (past_end) b = held;
  const int64_t begin = int64_t(b) * kBlock, end = min(vocab, begin + kBlock);
  int32_t found = -1, last = int32_t(begin);
  double sum = past_end ? 0 : before;
  for (int64_t start = begin; start < end && found < 0; start += 32) {
    const int64_t i = start + lane;
    const double weight = i < end ? double(weight_of(x[i], peak, temperature)) : 0.0;
    double running = weight; // inclusive sums over the lanes
    for (int offset = 1; offset < 32; offset <<= 1) {
      const double other = __shfl_up_sync(0xffffffffu, running, offset);
      if (lane >= offset) running += other;
    }
    const uint32_t passed = __ballot_sync(0xffffffffu, !past_end && weight > 0 && sum + running > goal);
    const uint32_t there = __ballot_sync(0xffffffffu, weight > 0);
    if (passed) found = int32_t(start) + __ffs(int(passed)) - 1;
    if (there) last = int32_t(start) + 31 - __clz(int(there));
    sum += __shfl_sync(0xffffffffu, running, 31);
  }
  if (lane == 0) shared.token = found >= 0 ? found : last;
}

} // namespace arbor::sampling
