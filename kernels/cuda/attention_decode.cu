// Attention of single rows (Flash-Decoding, Dao et al., 2023). A block has all keys of a row that fit into shared memory at once, a strip of them for
// each of its warps, and serves the heads that share a key head, as rows of one tensor core tile. Where there are more rows than multiprocessors
// a block takes several of them, which then share the strips in which they list the same slots. Longer rows are split over blocks, the last of which
// to finish joins all. Which keys a warp sums for a row, and in what order the sums are joined, follows from the row's own length alone.

#include <algorithm>

#include "attention.cuh"
#include "attention_softmax.cuh"
#include "attention_strips.cuh"

namespace arbor {
namespace {

constexpr int kSplits = 8;
template <int D> constexpr int kPartial = D + 2; // of a head and split: weighted sum of values, peak, sum of weights

// Splits of a row of this length: the chunks of keys that its warps have at a time, dealt out in turn.
template <int Warps> __device__ __forceinline__ int splits_of(int length) {
  return min(kSplits, (length + Warps * kStrip - 1) / (Warps * kStrip));
}

// Two numbers of a head's result.
template <int D>
__device__ __forceinline__ void store_pair(int64_t at, int d, float peak, float total, float x, float y, bf16 *out, float *lse) {
  const float by = 1 / total;
  *reinterpret_cast<uint32_t *>(out + at * D + d) = pack_pair(x * by, y * by);
  if (lse && d == 0) lse[at] = peak * kLn2 + logf(total);
}

// Calls visit(row of the tile, its row in [tokens * heads], d, the length of its context) for the pairs of numbers of the tile's rows, a thread for each.
template <int D, int Warps, class Visit> __device__ __forceinline__ void for_each_pair(const Rows &rows, int heads, const Visit &visit) {
  const int pairs = rows.count * rows.heads * (D / 2);
  for (int first = 0; first < pairs; first += 32 * Warps) {
    const int i = first + int(threadIdx.x), m = min(i, pairs - 1) / (D / 2), r = m / rows.heads;
    const int length = rows.length(r), row = rows.row(r);
    if (i < pairs) visit(m, int64_t(row) * heads + rows.head + m - r * rows.heads, i % (D / 2) * 2, length);
  }
}

// Joins the sums of the warps: the result of rows that have one split, else the split's partial sums.
template <int D, int Warps>
__device__ __forceinline__ void join_warps(const AttentionShape &shape, const Rows &rows, int split, bf16 *out, float *lse, float *partial,
                                           const Strips<D, Warps> &shared) {
  for_each_pair<D, Warps>(rows, shape.heads, [&](int m, int64_t at, int d, int length) {
    const int splits = splits_of<Warps>(length), strips = (length - split * Warps * kStrip + kStrip - 1) / kStrip;
    float peaks[Warps], peak = -INFINITY, total = 0, x = 0, y = 0;
#pragma unroll
    for (int w = 0; w < Warps; w++) peaks[w] = w < strips ? shared.peaks[w][m] : -INFINITY, peak = fmaxf(peak, peaks[w]);
#pragma unroll
    for (int w = 0; w < Warps; w++) {
      if (w >= strips) continue;
      const float by = exp2_fast(peaks[w] - peak);
      const float2 sum = *reinterpret_cast<const float2 *>(shared.sum_at(w, m, d));
      total = fmaf(by, shared.totals[w][m], total), x = fmaf(by, sum.x, x), y = fmaf(by, sum.y, y);
    }
    if (strips <= 0) return;
    if (splits == 1) return store_pair<D>(at, d, peak, total, x, y, out, lse);
    float *const to = partial + (at * kSplits + split) * kPartial<D>;
    *reinterpret_cast<float2 *>(to + d) = make_float2(x, y);
    if (d == 0) *reinterpret_cast<float2 *>(to + D) = make_float2(peak, total);
  });
}

// Joins the sums of all splits, which other blocks have written.
template <int D, int Warps>
__device__ __forceinline__ void join_splits(const AttentionShape &shape, const Rows &rows, bf16 *out, float *lse, const float *partial) {
  for_each_pair<D, Warps>(rows, shape.heads, [&](int, int64_t at, int d, int length) {
    const int splits = splits_of<Warps>(length);
    const float *const from = partial + at * kSplits * kPartial<D>;
    if (splits == 1) return;
    float2 sums[kSplits], states[kSplits]; // all on their way at once
#pragma unroll
    for (int split = 0; split < kSplits; split++) {
      const bool valid = split < splits;
      states[split] = valid ? __ldcg(reinterpret_cast<const float2 *>(from + split * kPartial<D> + D)) : make_float2(-INFINITY, 0);
      sums[split] = valid ? __ldcg(reinterpret_cast<const float2 *>(from + split * kPartial<D> + d)) : make_float2(0, 0);
    }
    float peak = -INFINITY, total = 0, x = 0, y = 0;
#pragma unroll
    for (int split = 0; split < kSplits; split++) peak = fmaxf(peak, states[split].x);
#pragma unroll
    for (int split = 0; split < kSplits; split++) {
      const float by = exp2_fast(states[split].x - peak);
      total = fmaf(by, states[split].y, total), x = fmaf(by, sums[split].x, x), y = fmaf(by, sums[split].y, y);
    }
    store_pair<D>(at, d, peak, total, x, y, out, lse);
  });
}

// Whether this block is the last of `blocks` to come here. What the others wrote before is then visible to all threads of this one.
__device__ __forceinline__ bool last_of(int blocks, int32_t *counter, bool *shared) {
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    *shared = atomicAdd(counter, 1) == blocks - 1;
    if (*shared) *counter = 0;
  }
  __syncthreads();
  __threadfence();
  return *shared;
}

// A block for `most` segments, a key head (and 16 of its heads) and some of the splits.
template <int D, int Warps>
__global__ void __launch_bounds__(32 * Warps, 1)
    decode_kernel(AttentionShape shape, int most, int head_tiles, const bf16 *q, const bf16 *k, const bf16 *v, bf16 *out, float *lse, float *partial,
                  int32_t *counters, float scale) {
  extern __shared__ __align__(256) unsigned char memory[];
  Strips<D, Warps> &shared = *reinterpret_cast<Strips<D, Warps> *>(memory);
  const int kv_head = int(blockIdx.y) / head_tiles, first_head = int(blockIdx.y) % head_tiles * kTileRows, step = int(gridDim.z);
  Rows rows(shape, int(blockIdx.x) * most, most);
  rows.head = kv_head * shape.group() + first_head, rows.heads = min(kTileRows, shape.group() - first_head);
  for (int query = 0; rows.pick(query); query++) { // one, where the engine decodes
    const int splits = splits_of<Warps>(rows.longest);
    for (int split = int(blockIdx.z); split < splits; split += step) {
      Sums<D> sums;
      attend_strips<D, Warps>(shape, rows, split * Warps * kStrip, kSplits * Warps * kStrip, q, k + kv_head * D, v + kv_head * D, scale, sums,
                              shared);
      __syncthreads();
      join_warps<D, Warps>(shape, rows, split, out, lse, partial, shared);
      __syncthreads();
    }
    if (splits == 1 || int(blockIdx.z) >= splits) continue;
    // A counter for each query: other blocks may be at another.
    if (last_of(min(step, splits), counters + int64_t(rows.row(rows.first)) * gridDim.y + blockIdx.y, &shared.last))
      join_splits<D, Warps>(shape, rows, out, lse, partial);
    __syncthreads(); // shared.last is read
  }
  if (blockIdx.z == 0) after_kernels_before(); // no grid ends before those before it, though its blocks had nothing to do
}

template <int D, int Warps>
bool launch(arbor_stream *stream, const AttentionShape &shape, const AttentionTensors &t, float *partial, int32_t *counters) {
  constexpr size_t kShared = sizeof(Strips<D, Warps>);
  if (!allow_shared(decode_kernel<D, Warps>, kShared)) {
    cudaGetLastError();
    return false;
  }
  const int64_t processors = multiprocessors(stream), head_tiles = ceil_div(shape.group(), kTileRows);
  const int64_t all = int64_t(shape.segment_count) * shape.kv_heads * head_tiles;
  const int64_t most = head_tiles > 1 ? 1 : std::min<int64_t>(kMostRows, kTileRows / shape.group());
  const int64_t rows = std::max<int64_t>(1, std::min(most, ceil_div(all, processors))), windows = ceil_div(shape.segment_count, rows);
  const int64_t splits = std::max<int64_t>(1, std::min<int64_t>(kSplits, processors / (windows * shape.kv_heads * head_tiles)));
  launch_after(decode_kernel<D, Warps>, dim3(unsigned(windows), unsigned(shape.kv_heads * head_tiles), unsigned(splits)), 32 * Warps, kShared,
               cuda_stream(stream), shape, int(rows), int(head_tiles), static_cast<const bf16 *>(t.q), static_cast<const bf16 *>(t.k),
               static_cast<const bf16 *>(t.v), static_cast<bf16 *>(t.out), t.lse, partial, counters, kLog2e / sqrtf(float(shape.dim)));
  return true;
}

} // namespace

int32_t attend_decode(arbor_stream *stream, const AttentionShape &shape, const AttentionTensors &t) {
  int32_t *counters = zeroed_counters(stream, int64_t(shape.tokens) * shape.kv_heads * ceil_div(shape.group(), kTileRows));
  float *partial = static_cast<float *>(scratch(stream, kPartialScratch, int64_t(shape.tokens) * shape.heads * kSplits * (shape.dim + 2) * 4));
  if (!counters || !partial) return ARBOR_OUT_OF_MEMORY;
  ARBOR_BY_WIDTH(shape.dim, {
    if (!launch<D, kManyWarps>(stream, shape, t, partial, counters) && !launch<D, kFewWarps>(stream, shape, t, partial, counters))
      return unsupported("arbor_attention", "too little shared memory on this device");
  });
  return launched(stream, "arbor_attention");
}

} // namespace arbor
