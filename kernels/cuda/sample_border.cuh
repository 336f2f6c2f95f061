// Truncation (top-k, top-p, min-p): where the tokens that may come end, found digit by digit of their logits instead of by sorting, and the others made
// impossible.
#pragma once

#include "sample_row.cuh"

namespace arbor::sampling {

constexpr double kUnit = 1099511627776.0; // 2^40: weights as whole numbers, whose sums have no order

// Where a prefix of the tokens, best first, ends: tokens above `key` and the first `ties` (by id) of those equal to it.
struct Border {
  uint32_t key;
  int32_t ties;
  unsigned long long mass; // of the prefix
};

__device__ __forceinline__ unsigned long long mass_of(float x, float peak, float temperature) {
  return (unsigned long long)(double(weight_of(x, peak, temperature)) * kUnit);
}

// The shortest prefix of `count` tokens, or, with count 0, of at least `goal` mass.
inline __device__ Border find_border(Shared &shared, const float *x, int64_t vocab, float peak, float temperature, int32_t count, unsigned long long goal) {
  uint32_t prefix = 0;
  unsigned long long above = 0; // mass of the tokens above what is still open
  int32_t above_count = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    if (threadIdx.x < 256) shared.counts[threadIdx.x] = 0, shared.masses[threadIdx.x] = 0;
    __syncthreads();
    for (int64_t i = threadIdx.x; i < vocab; i += kThreads) {
      const uint32_t key = key_of(x[i]);
      if (shift < 24 && (key >> (shift + 8)) != prefix) continue;
      atomicAdd(&shared.counts[key >> shift & 255], 1);
      atomicAdd(&shared.masses[key >> shift & 255], mass_of(x[i], peak, temperature));
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      int digit = 255;
      unsigned long long mass = above;
      int32_t held = above_count;
      int last = 255; // the lowest digit that occurs, should the goal lie within rounding of all there is
      for (; digit >= 0; digit--) {
        if (shared.counts[digit] == 0) continue;
        last = digit;
        const bool enough = count > 0 ? held + shared.counts[digit] >= count : mass + shared.masses[digit] >= goal;
        if (enough) break;
        mass += shared.masses[digit], held += shared.counts[digit];
      }
      if (digit < 0) digit = last, mass -= shared.masses[last], held -= shared.counts[last];
      shared.digit = digit, shared.mass = mass, shared.needed = held;
    }
    __syncthreads();
    prefix = prefix << 8 | uint32_t(shared.digit);
    above = shared.mass, above_count = shared.needed;
    __syncthreads();
  }
  // All that is left has one value.
  const uint32_t bits = prefix & 0x80000000u ? prefix & 0x7fffffffu : ~prefix;
  const unsigned long long one = mass_of(__uint_as_float(bits), peak, temperature);
  const int32_t there = shared.counts[prefix & 255];
  __syncthreads(); // the next search clears them
  int32_t ties = count > 0 ? count - above_count : (one == 0 ? there : int32_t(min((unsigned long long)there, (goal - above + one - 1) / one)));
  if (ties < 1) ties = 1;
  return {prefix, ties, above + (unsigned long long)ties * one};
}

// Tokens beyond the border or too unlikely become impossible.
inline __device__ void cut(Shared &shared, float *x, int64_t vocab, Border border, float peak, float temperature, float min_p, int32_t best) {
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  const int32_t blocks = int32_t(ceil_div(vocab, kBlock));
  for (int32_t b = warp; b < blocks; b += kWarps) { // how many of the border's value lie in each block
    int32_t ties = 0;
    for (int32_t j = 0; j < kBlock; j += 32) {
      const int64_t i = int64_t(b) * kBlock + j + lane;
      ties += __popc(__ballot_sync(0xffffffffu, i < vocab && key_of(x[i]) == border.key));
    }
    if (lane == 0) shared.ties[b] = ties;
  }
  __syncthreads();
  if (threadIdx.x == 0)
    for (int32_t b = 0, before = 0; b < blocks; b++) {
      const int32_t own = shared.ties[b];
      shared.ties[b] = before;
      before += own;
    }
  __syncthreads();
  for (int32_t b = warp; b < blocks; b += kWarps) {
    int32_t before = shared.ties[b];
    for (int32_t j = 0; j < kBlock; j += 32) {
      const int64_t i = int64_t(b) * kBlock + j + lane;
      const float value = i < vocab ? x[i] : -INFINITY;
      const uint32_t key = key_of(value);
      const uint32_t ties = __ballot_sync(0xffffffffu, i < vocab && key == border.key);
      const bool kept = key > border.key || (key == border.key && before + __popc(ties & ((1u << lane) - 1)) < border.ties);
      if (i < vocab && i != best && (!kept || weight_of(value, peak, temperature) < min_p)) x[i] = -INFINITY;
      before += __popc(ties);
    }
  }
  __syncthreads();
}

} // namespace arbor::sampling
