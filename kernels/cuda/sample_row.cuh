// What a block does with its row of logits: finds the best, sums weights exp((x - peak) / temperature), draws one.
#pragma once

#include "stream.cuh"

namespace arbor::sampling {

constexpr int kThreads = 1024, kWarps = kThreads / 32;
constexpr int kBlock = kThreads; // tokens summed at a time
constexpr int kMostBlocks = 512; // so at most 524,288 tokens

struct Shared {
  double sums[kMostBlocks];
  unsigned long long masses[256];
  int32_t counts[256], ties[kMostBlocks];
  float best[kWarps];
  int32_t at[kWarps];
  double parts[kWarps];
  // Decided by one thread for all.
  float peak, chosen;
  int32_t token, last, block, digit, needed;
  unsigned long long mass;
  double total, before;
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

// What the lanes below this one hold, summed.
__device__ __forceinline__ double sum_below(double own, double &upto) {
  const int lane = threadIdx.x & 31;
  upto = own;
  for (int offset = 1; offset < 32; offset <<= 1) {
    const double other = __shfl_up_sync(0xffffffffu, upto, offset);
    if (lane >= offset) upto += other;
  }
  const double below = __shfl_up_sync(0xffffffffu, upto, 1);
  return lane == 0 ? 0 : below;
}

// A lane's blocks of the row, for one warp to go through them all.
struct LaneBlocks {
  int32_t first, end;
  __device__ __forceinline__ explicit LaneBlocks(int64_t vocab) {
    const int32_t blocks = int32_t(ceil_div(vocab, kBlock)), each = (blocks + 31) / 32;
    first = min(blocks, int32_t(threadIdx.x & 31) * each), end = min(blocks, first + each);
  }
};

// The total of shared.sums, into shared.total.
inline __device__ void add_blocks(Shared &shared, int64_t vocab) {
  __syncthreads();
  if (threadIdx.x < 32) {
    const LaneBlocks mine(vocab);
    double own = 0, upto;
    for (int32_t b = mine.first; b < mine.end; b++) own += shared.sums[b];
    sum_below(own, upto);
    if (threadIdx.x == 31) shared.total = upto;
  }
  __syncthreads();
}

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
    sum = warp_sum(sum);
    if (lane == 0) shared.sums[b] = sum;
  }
  add_blocks(shared, vocab);
}

// The block in which the running sum passes `goal`, and the sum before it; the last of any weight, and minus infinity, where u is so close to 1 that rounding
// decides. Into shared.block, shared.before; shared.last is the block's first token.
inline __device__ void find_block(Shared &shared, int64_t vocab, double goal) {
  const LaneBlocks mine(vocab);
  double own = 0, upto;
  int32_t held = -1, found = -1;
  for (int32_t b = mine.first; b < mine.end; b++) {
    own += shared.sums[b];
    if (shared.sums[b] > 0) held = b;
  }
  double before = sum_below(own, upto);
  for (int32_t b = mine.first; b < mine.end; b++) {
    if (shared.sums[b] > 0 && before + shared.sums[b] > goal) {
      found = b;
      break;
    }
    before += shared.sums[b];
  }
  const uint32_t passed = __ballot_sync(0xffffffffu, found >= 0);
  const int32_t last = __reduce_max_sync(0xffffffffu, held);
  if (int(threadIdx.x) != (passed ? __ffs(int(passed)) - 1 : 0)) return;
  shared.block = passed ? found : max(last, 0), shared.before = passed ? before : -INFINITY;
  shared.last = shared.block * kBlock;
}

// Inverse CDF in order of token id: the first token at which the running sum passes u · total, into shared.token; the last of any weight in its block where
// none does.
inline __device__ void draw(Shared &shared, const float *x, int64_t vocab, float peak, float temperature, float uniform) {
  const double goal = double(uniform) * shared.total;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  if (warp == 0) find_block(shared, vocab, goal);
  if (threadIdx.x == 0) shared.token = 0x7fffffff;
  __syncthreads();
  const int64_t i = int64_t(shared.block) * kBlock + threadIdx.x;
  const double weight = i < vocab ? double(weight_of(x[i], peak, temperature)) : 0.0;
  double upto;
  sum_below(weight, upto);
  if (lane == 31) shared.parts[warp] = upto;
  __syncthreads();
  double before = shared.before;
  for (int w = 0; w < warp; w++) before += shared.parts[w];
  const uint32_t passed = __ballot_sync(0xffffffffu, weight > 0 && before + upto > goal), there = __ballot_sync(0xffffffffu, weight > 0);
  if (lane == 0 && passed) atomicMin(&shared.token, int32_t(i) + __ffs(int(passed)) - 1);
  if (lane == 0 && there) atomicMax(&shared.last, int32_t(i) + 31 - __clz(int(there)));
  __syncthreads();
  if (threadIdx.x == 0 && shared.token == 0x7fffffff) shared.token = shared.last;
  __syncthreads();
}

} // namespace arbor::sampling
