// What a block does with a pair's row of logits: log-probability and entropy, and the row's gradient. Where both are asked for the row is read once: the
// block keeps in shared memory what fits, and reads the rest again from its end, where it is likeliest to be in the cache still.
#pragma once

#include <algorithm>

#include "mma.cuh"

namespace arbor {

constexpr int kRowThreads = 1024;

struct Pairs {
  const int32_t *rows, *targets;
  int64_t tokens, vocab, hidden;
  float inverse_temperature;
};

// Of every pair: the chosen token's log-probability (null where it is known already), the entropy, the logarithm of the sum of e^z.
struct PairResults {
  float *logprobs, *entropies, *lse;
};

// Running sums of w = e^(z − peak) and of w (z − peak): relative to the peak, so that an entropy is no difference of large numbers.
struct Running {
  float peak, total, weighted;
  __device__ __forceinline__ void merge(float other_peak, float other_total, float other_weighted) {
    if (other_peak == -INFINITY) return;
    const float top = fmaxf(peak, other_peak), mine = peak - top, theirs = other_peak - top;
    const float shrink_mine = total > 0 ? expf(mine) : 0.0f, shrink_theirs = expf(theirs);
    weighted = (total > 0 ? shrink_mine * (weighted + mine * total) : 0.0f) + shrink_theirs * (other_weighted + theirs * other_total);
    total = total * shrink_mine + other_total * shrink_theirs;
    peak = top;
  }
};

// A row, of which each thread has the same fours whenever it comes by. The first `kept` numbers, whole fours, have a place in shared memory.
struct LogitRow {
  const float *z;
  int vocab;
  float *place;
  int kept;
  bool aligned; // rows begin at multiples of four numbers

  __device__ __forceinline__ float4 at(int first) const {
    if (aligned && first + 4 <= vocab) return *reinterpret_cast<const float4 *>(z + first);
    const auto one = [&](int v) { return v < vocab ? z[v] : -INFINITY; };
    return make_float4(one(first), one(first + 1), one(first + 2), one(first + 3));
  }
  __device__ __forceinline__ void keep(int first, const float4 &four) const {
    if (first + 4 <= kept) *reinterpret_cast<float4 *>(place + first) = four;
  }
  __device__ __forceinline__ float4 again(int first) const { return first + 4 <= kept ? *reinterpret_cast<const float4 *>(place + first) : at(first); }
};

constexpr int kFours = 4, kStride = 4 * kRowThreads; // fours of a thread under way together, and from one to its next

// Reads the row; thread 0 has its statistics.
__device__ __forceinline__ Running read_row(const LogitRow &row, float inverse_temperature) {
  __shared__ Running shared[kRowThreads / 32];
  Running sum{-INFINITY, 0, 0};
  for (int start = 4 * int(threadIdx.x); start < row.vocab; start += kFours * kStride) {
    float4 fours[kFours];
#pragma unroll
    for (int j = 0; j < kFours; j++) fours[j] = row.at(start + j * kStride);
    float top = -INFINITY, total = 0, weighted = 0; // values that share one change of the peak
#pragma unroll
    for (int j = 0; j < kFours; j++) {
      row.keep(start + j * kStride, fours[j]);
      float4 &four = fours[j];
      four.x *= inverse_temperature, four.y *= inverse_temperature, four.z *= inverse_temperature, four.w *= inverse_temperature;
      top = fmaxf(top, fmaxf(fmaxf(four.x, four.y), fmaxf(four.z, four.w)));
    }
    const auto add = [&](float value) {
      if (value == -INFINITY) return;
      const float w = expf(value - top);
      total += w, weighted += w * (value - top);
    };
#pragma unroll
    for (int j = 0; j < kFours; j++) add(fours[j].x), add(fours[j].y), add(fours[j].z), add(fours[j].w);
    sum.merge(top, total, weighted);
  }
  for (int offset = 16; offset > 0; offset >>= 1)
    sum.merge(__shfl_down_sync(0xffffffffu, sum.peak, offset), __shfl_down_sync(0xffffffffu, sum.total, offset),
              __shfl_down_sync(0xffffffffu, sum.weighted, offset));
  if ((threadIdx.x & 31) == 0) shared[threadIdx.x >> 5] = sum;
  __syncthreads();
  if (threadIdx.x == 0)
    for (int w = 1; w < kRowThreads / 32; w++) sum.merge(shared[w].peak, shared[w].total, shared[w].weighted);
  return sum;
}

// Thread 0 writes what follows from the statistics; answers the entropy and the logarithm of the sum of e^z.
__device__ __forceinline__ float2 write_results(const Running &sum, const LogitRow &row, const Pairs &pairs, const PairResults &results, int64_t pair) {
  const float norm = sum.peak + logf(sum.total), entropy = logf(sum.total) - sum.weighted / sum.total;
  const int64_t target = pairs.targets[pair];
  results.logprobs[pair] = uint64_t(target) < uint64_t(pairs.vocab) ? row.z[target] * pairs.inverse_temperature - norm : 0.0f;
  results.entropies[pair] = entropy, results.lse[pair] = norm;
  return make_float2(entropy, norm);
}

__device__ __forceinline__ LogitRow row_of(const float *logits, const Pairs &pairs, float *place, int kept) {
  return {logits + blockIdx.x * pairs.vocab, int(pairs.vocab), place, kept, pairs.vocab % 4 == 0};
}

static __global__ void __launch_bounds__(kRowThreads) row_statistics(const float *logits, Pairs pairs, PairResults results, int64_t first) {
  const LogitRow row = row_of(logits, pairs, nullptr, 0);
  const Running sum = read_row(row, pairs.inverse_temperature);
  if (threadIdx.x == 0) write_results(sum, row, pairs, results, first + blockIdx.x);
}

__device__ __forceinline__ void store_four(float *to, const float4 &four) { *reinterpret_cast<float4 *>(to) = four; }
__device__ __forceinline__ void store_four(bf16 *to, const float4 &four) {
  *reinterpret_cast<uint2 *>(to) = make_uint2(pack_pair(four.x, four.y), pack_pair(four.z, four.w));
}

// dz = (1/T) [g (1[v = target] − p) − h p (log p + H)]
template <class T>
__global__ void __launch_bounds__(kRowThreads, 1) row_gradient(T *dz, const float *logits, Pairs pairs, PairResults results, const float *d_logprobs,
                                                               const float *d_entropies, int64_t first, int kept) {
  extern __shared__ __align__(16) float place[];
  __shared__ float2 norms; // entropy, lse
  const int64_t pair = first + blockIdx.x;
  const LogitRow row = row_of(logits, pairs, place, kept);
  if (results.logprobs) {
    const Running sum = read_row(row, pairs.inverse_temperature);
    if (threadIdx.x == 0) norms = write_results(sum, row, pairs, results, pair);
  } else if (threadIdx.x == 0)
    norms = make_float2(results.entropies[pair], results.lse[pair]);
  __syncthreads();
  const float entropy = norms.x, lse = norms.y, by = pairs.inverse_temperature, g = d_logprobs[pair], h = d_entropies ? d_entropies[pair] : 0;
  const int target = pairs.targets[pair];
  const auto gradient = [&](float z, int v) {
    const float log_p = z * by - lse, p = expf(log_p);
    float d = g * ((v == target ? 1.0f : 0.0f) - p);
    if (d_entropies) d -= h * p * (log_p + entropy);
    return d * by;
  };
  T *const out = dz + blockIdx.x * pairs.vocab;
  const int rounds = (row.vocab + kStride - 1) / kStride;
#pragma unroll 4
  for (int round = rounds - 1; round >= 0; round--) {
    const int v = round * kStride + 4 * int(threadIdx.x);
    if (v >= row.vocab) continue;
    const float4 z = row.again(v), d = make_float4(gradient(z.x, v), gradient(z.y, v + 1), gradient(z.z, v + 2), gradient(z.w, v + 3));
    if (row.aligned)
      store_four(out + v, d);
    else {
      const float each[4] = {d.x, d.y, d.z, d.w};
#pragma unroll
      for (int i = 0; i < 4; i++)
        if (v + i < row.vocab) out[v + i] = from_float<T>(each[i]);
    }
  }
}

// Gradients of `count` rows from pair `first` on, with their results before where `results.logprobs` is given.
template <class T>
void launch_row_gradient(cudaStream_t stream, int64_t count, void *dz, const float *logits, const Pairs &pairs, const PairResults &results,
                         const float *d_logprobs, const float *d_entropies, int64_t first) {
  constexpr int64_t kMost = 216 << 10, kLess = 16 << 10;
  int64_t bytes = results.logprobs ? std::min(kMost, pairs.vocab / 4 * 16) : 0;
  while (!allow_shared(row_gradient<T>, size_t(bytes))) bytes -= kLess;
  row_gradient<T><<<unsigned(count), kRowThreads, size_t(bytes), stream>>>(static_cast<T *>(dz), logits, pairs, results, d_logprobs, d_entropies, first,
                                                                         int(bytes / 4));
}

} // namespace arbor
