// How what the warps of the decoding attention have summed becomes rows: over the strips, then over the splits of long rows, each in order.
#pragma once

#include "attention_strips.cuh"

namespace arbor {

constexpr int kSplits = 8;
template <int D> constexpr int kPartial = D + 4; // of a head and split: weighted sum of values, peak, sum of weights, and two that make it whole pieces

// Splits of a row of this length: the chunks of keys that its warps have at a time, dealt out in turn.
template <int Warps> __device__ __forceinline__ int splits_of(int length) {
  return min(kSplits, (length + Warps * kStrip - 1) / (Warps * kStrip));
}

// A row and head's weighted sum so far, four numbers of it; rows join by weights of 2^(their peak - the highest).
struct FourSums {
  float total = 0;
  float4 sum = {0, 0, 0, 0};

  __device__ __forceinline__ void add(float by, float own_total, const float4 &own) {
    total = fmaf(by, own_total, total);
    sum.x = fmaf(by, own.x, sum.x), sum.y = fmaf(by, own.y, sum.y), sum.z = fmaf(by, own.z, sum.z), sum.w = fmaf(by, own.w, sum.w);
  }
  template <int D> __device__ __forceinline__ void store(int64_t at, int d, float peak, bf16 *out, float *lse) const {
    const float by = 1 / total;
    *reinterpret_cast<uint2 *>(out + at * D + d) = make_uint2(pack_pair(sum.x * by, sum.y * by), pack_pair(sum.z * by, sum.w * by));
    if (lse && d == 0) lse[at] = peak * kLn2 + logf(total);
  }
};

// Calls visit(row of the tile, its row in [tokens * heads], d, the length of its context) for each four numbers of the tile's rows, a thread for each.
template <int D, int Warps, class Visit> __device__ __forceinline__ void for_each_four(const Rows &rows, int heads, const Visit &visit) {
  const int count = rows.count * rows.heads * (D / 4);
  for (int first = 0; first < count; first += 32 * Warps) {
    const int i = first + int(threadIdx.x), m = min(i, count - 1) / (D / 4), r = m / rows.heads;
    const int length = rows.length(r), row = rows.row(r);
    if (i < count) visit(m, int64_t(row) * heads + rows.head + m - r * rows.heads, i % (D / 4) * 4, length);
  }
}

// Joins the sums of the strips: the result of rows that have one split, else the split's partial sums.
template <int D, int Warps, class Shared>
__device__ __forceinline__ void join_strips(const AttentionShape &shape, const Rows &rows, int split, bf16 *out, float *lse, float *partial,
                                            const Shared &shared) {
  for_each_four<D, Warps>(rows, shape.heads, [&](int m, int64_t at, int d, int length) {
    const int splits = splits_of<Warps>(length), strips = (length - split * Warps * kStrip + kStrip - 1) / kStrip;
    if (strips <= 0) return;
    float peaks[Warps], peak = -INFINITY;
#pragma unroll
    for (int w = 0; w < Warps; w++) peaks[w] = w < strips ? shared.peaks[w][m] : -INFINITY, peak = fmaxf(peak, peaks[w]);
    FourSums sums;
#pragma unroll
    for (int w = 0; w < Warps; w++)
      if (w < strips) sums.add(exp2_fast(peaks[w] - peak), shared.totals[w][m], *reinterpret_cast<const float4 *>(shared.sum_at(w, m, d)));
    if (splits == 1) return sums.store<D>(at, d, peak, out, lse);
    float *const to = partial + (at * kSplits + split) * kPartial<D>;
    *reinterpret_cast<float4 *>(to + d) = sums.sum;
    if (d == 0) *reinterpret_cast<float2 *>(to + D) = make_float2(peak, sums.total);
  });
}

// Joins the sums of all splits, which other blocks may have written.
template <int D, int Warps>
__device__ __forceinline__ void join_splits(const AttentionShape &shape, const Rows &rows, bf16 *out, float *lse, const float *partial) {
  for_each_four<D, Warps>(rows, shape.heads, [&](int, int64_t at, int d, int length) {
    const int splits = splits_of<Warps>(length);
    const float *const from = partial + at * kSplits * kPartial<D>;
    if (splits <= 1) return;
    float4 parts[kSplits]; // all on their way at once
    float2 states[kSplits];
    float peak = -INFINITY;
#pragma unroll
    for (int split = 0; split < kSplits; split++) {
      const bool valid = split < splits;
      states[split] = valid ? __ldcg(reinterpret_cast<const float2 *>(from + split * kPartial<D> + D)) : make_float2(-INFINITY, 0);
      parts[split] = valid ? __ldcg(reinterpret_cast<const float4 *>(from + split * kPartial<D> + d)) : make_float4(0, 0, 0, 0);
    }
#pragma unroll
    for (int split = 0; split < kSplits; split++) peak = fmaxf(peak, states[split].x);
    FourSums sums;
#pragma unroll
    for (int split = 0; split < kSplits; split++) sums.add(exp2_fast(states[split].x - peak), states[split].y, parts[split]);
    sums.store<D>(at, d, peak, out, lse);
  });
}

} // namespace arbor
