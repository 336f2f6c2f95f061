// Attention of single rows (Flash-Decoding, Dao et al., 2023): a row's keys are split over up to kSplits blocks, in each over four warps,
// so that few rows fill the device. A block serves the heads that share a key head, as the 16 rows of one tensor core tile. Which keys a
// warp sums, and in what order the sums are joined, follows from the row's own length alone. The last block of a row to finish joins all.

#include <algorithm>

#include "attention.cuh"
#include "attention_softmax.cuh"

namespace arbor {
namespace {

constexpr int kSplits = 8, kWarps = 4, kThreads = 32 * kWarps, kHeads = 16;
constexpr int kBlocksWanted = 4096; // with more rows a block takes several splits of its row, one after the other

template <int D> constexpr int kKeys = 2048 / D;           // that a warp has at a time: 4 KiB of keys, 4 KiB of values
template <int D> constexpr int kChunk = kWarps * kKeys<D>; // and a block
template <int D> constexpr int kPartial = D + 2;           // of a head and split: weighted sum of values, peak, sum of weights

// Heads [head, head + count) of a row, under one key head, and the `split`th part of the `length` entries that it sees.
struct Part {
  int row, head, count, split, splits, length;
  const int32_t *entries;

  __device__ int64_t at(int h, int heads) const { return int64_t(row) * heads + head + h; } // in [tokens * heads]
};

template <int D> struct alignas(256) Shared {
  bf16 queries[kHeads * D];
  bf16 strips[kWarps][2][kKeys<D> * D]; // keys and values; then, in f32, the warp's weighted sums
  float peaks[kWarps][kHeads], totals[kWarps][kHeads];
  bool last;
};

// Number d of a head's weighted sum in its warp's strips, spread over the banks.
template <int D> __device__ __forceinline__ float *sum_at(Shared<D> &shared, int warp, int head, int d) {
  return reinterpret_cast<float *>(shared.strips[warp]) + head * D + (d ^ ((head & 3) << 3));
}

template <int D>
__device__ __forceinline__ void copy_queries(const AttentionShape &shape, const Part &part, const bf16 *q, Shared<D> &shared) {
  for (int i = int(threadIdx.x); i < kHeads * D / 8; i += kThreads) {
    const int head = i / (D / 8), piece = i % (D / 8);
    const bool valid = head < part.count;
    copy_piece(shared.queries + tile_at<D>(head, piece), q + part.at(valid ? head : 0, shape.heads) * D + 8 * piece, valid);
  }
}

// A warp's share of the part. The next keys are on their way while the values are used, and the next values while the keys are.
template <int D>
__device__ __forceinline__ void attend_strips(const AttentionShape &shape, const Part &part, const bf16 *q, const bf16 *k, const bf16 *v,
                                              float scale, Sums<D> &sums, Shared<D> &shared) {
  const int lane = int(threadIdx.x) & 31, warp = int(threadIdx.x) >> 5, step = part.splits * kChunk<D>;
  bf16 *const keys = shared.strips[warp][0], *const values = shared.strips[warp][1];
  int first = part.split * kChunk<D> + warp * kKeys<D>;
  KeyCopies<D, kKeys<D>, 32> copies(shape, part.entries, part.length, lane);
  copy_queries<D>(shape, part, q, shared);
  copies.read_slots(first);
  copies.check_slots();
  copies.copy(keys, k);
  close_copies();
  copies.copy(values, v);
  close_copies();
  wait_copies<1>();
  __syncthreads(); // the queries are every warp's
  const int seen[2] = {part.length, part.length};
  for (; first < part.length; first += step) {
    wait_copies<1>(); // the keys
    __syncwarp();
    copies.read_slots(first + step);
    float scores[kKeys<D> / 8][4] = {};
    add_inner_products<D, kKeys<D>>(scores, shared.queries, 0, keys, 0, lane);
    __syncwarp();
    copies.check_slots();
    copies.copy(keys, k);
    close_copies();
    if (first + kKeys<D> > part.length) mask<kKeys<D>>(scores, seen, first, lane);
    soften<D, kKeys<D>>(scores, sums, scale);
    uint32_t weights[kKeys<D> / 16][4];
    as_left_operand<kKeys<D>>(weights, scores);
    wait_copies<1>(); // the values
    __syncwarp();
    add_weighted_rows<D, kKeys<D>>(sums.out, weights, values, 0, lane);
    __syncwarp();
    copies.copy(values, v);
    close_copies();
  }
  wait_copies<0>(); // the strips are written anew
  __syncwarp();
}

template <int D> __device__ __forceinline__ void lay_down(const Sums<D> &sums, int count, float scale, Shared<D> &shared) {
  const int lane = int(threadIdx.x) & 31, warp = int(threadIdx.x) >> 5;
#pragma unroll
  for (int row = 0; row < 2; row++) {
    const int head = (lane >> 2) + 8 * row;
    const float total = sum_of_four(sums.total[row]);
    if ((lane & 3) == 0) shared.peaks[warp][head] = sums.peak[row] * scale, shared.totals[warp][head] = total;
    if (head >= count) continue;
#pragma unroll
    for (int n = 0; n < D / 8; n++)
      *reinterpret_cast<float2 *>(sum_at<D>(shared, warp, head, 8 * n + 2 * (lane & 3))) =
          make_float2(sums.out[n][2 * row], sums.out[n][2 * row + 1]);
  }
}

// Two numbers of a head's result.
template <int D>
__device__ __forceinline__ void store_pair(const AttentionShape &shape, const Part &part, int head, int d, float peak, float total, float x,
                                           float y, bf16 *out, float *lse) {
  const int64_t at = part.at(head, shape.heads);
  const float by = 1 / total;
  *reinterpret_cast<uint32_t *>(out + at * D + d) = pack_pair(x * by, y * by);
  if (lse && d == 0) lse[at] = peak * kLn2 + logf(total);
}

// Joins the sums of the warps: the row's result where there is one split, else the split's partial sums.
template <int D>
__device__ __forceinline__ void join_warps(const AttentionShape &shape, const Part &part, bf16 *out, float *lse, float *partial,
                                           Shared<D> &shared) {
  for (int i = int(threadIdx.x); i < part.count * D / 2; i += kThreads) {
    const int head = i / (D / 2), d = i % (D / 2) * 2;
    float peak = -INFINITY, total = 0, x = 0, y = 0;
#pragma unroll
    for (int w = 0; w < kWarps; w++) peak = fmaxf(peak, shared.peaks[w][head]);
#pragma unroll
    for (int w = 0; w < kWarps; w++) {
      const float by = exp2_fast(shared.peaks[w][head] - peak);
      const float2 sum = *reinterpret_cast<const float2 *>(sum_at<D>(shared, w, head, d));
      total = fmaf(by, shared.totals[w][head], total), x = fmaf(by, sum.x, x), y = fmaf(by, sum.y, y);
    }
    if (part.splits == 1) {
      store_pair<D>(shape, part, head, d, peak, total, x, y, out, lse);
    } else {
      float *const to = partial + (part.at(head, shape.heads) * kSplits + part.split) * kPartial<D>;
      *reinterpret_cast<float2 *>(to + d) = make_float2(x, y);
      if (d == 0) *reinterpret_cast<float2 *>(to + D) = make_float2(peak, total);
    }
  }
}

// Joins the sums of all splits, which other blocks have written.
template <int D>
__device__ __forceinline__ void join_splits(const AttentionShape &shape, const Part &part, bf16 *out, float *lse, const float *partial) {
  for (int i = int(threadIdx.x); i < part.count * D / 2; i += kThreads) {
    const int head = i / (D / 2), d = i % (D / 2) * 2;
    const int64_t at = part.at(head, shape.heads);
    const float *const from = partial + at * kSplits * kPartial<D>;
    float2 sums[kSplits], states[kSplits]; // all on their way at once
#pragma unroll
    for (int split = 0; split < kSplits; split++) {
      const bool valid = split < part.splits;
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
    store_pair<D>(shape, part, head, d, peak, total, x, y, out, lse);
  }
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

template <int D>
__global__ void __launch_bounds__(kThreads, 4)
    decode_kernel(AttentionShape shape, int head_tiles, const bf16 *q, const bf16 *k, const bf16 *v, bf16 *out, float *lse, float *partial,
                  int32_t *counters, float scale) {
  __shared__ Shared<D> shared;
  const int kv_head = int(blockIdx.y) / head_tiles, first_head = int(blockIdx.y) % head_tiles * kHeads;
  Segment segment;
  if (!read_segment(shape, int(blockIdx.x), segment)) return;
  Part part;
  part.head = kv_head * shape.group() + first_head;
  part.count = min(kHeads, shape.group() - first_head);
  part.entries = shape.context + segment.context_start;
  const int step = int(gridDim.z);
  for (int query = 0; query < segment.row_count; query++) { // one, where the engine decodes
    part.row = segment.row_start + query;
    part.length = segment.seen(query);
    part.splits = min(kSplits, (part.length + kChunk<D> - 1) / kChunk<D>);
    for (part.split = int(blockIdx.z); part.split < part.splits; part.split += step) {
      Sums<D> sums;
      attend_strips<D>(shape, part, q, k + kv_head * D, v + kv_head * D, scale, sums, shared);
      lay_down<D>(sums, part.count, scale, shared);
      __syncthreads();
      join_warps<D>(shape, part, out, lse, partial, shared);
      __syncthreads();
    }
    if (part.splits == 1 || int(blockIdx.z) >= part.splits) continue;
    if (last_of(min(step, part.splits), counters + part.row * int(gridDim.y) + int(blockIdx.y), &shared.last))
      join_splits<D>(shape, part, out, lse, partial);
    __syncthreads(); // shared.last is read
  }
}

} // namespace

int32_t attend_decode(arbor_stream *stream, const AttentionShape &shape, const AttentionTensors &t) {
  const int head_tiles = int(ceil_div(shape.group(), kHeads));
  int32_t *counters = zeroed_counters(stream, int64_t(shape.tokens) * shape.kv_heads * head_tiles);
  float *partial =
      static_cast<float *>(scratch(stream, kPartialScratch, int64_t(shape.tokens) * shape.heads * kSplits * (shape.dim + 2) * 4));
  if (!counters || !partial) return ARBOR_OUT_OF_MEMORY;
  const int64_t rows = int64_t(shape.tokens) * shape.kv_heads * head_tiles;
  const dim3 grid(shape.segment_count, shape.kv_heads * head_tiles, unsigned(std::min<int64_t>(kSplits, ceil_div(kBlocksWanted, rows))));
  ARBOR_BY_WIDTH(shape.dim, {
    decode_kernel<D><<<grid, kThreads, 0, cuda_stream(stream)>>>(
        shape, head_tiles, static_cast<const bf16 *>(t.q), static_cast<const bf16 *>(t.k), static_cast<const bf16 *>(t.v),
        static_cast<bf16 *>(t.out), t.lse, partial, counters, kLog2e / sqrtf(float(shape.dim)));
  });
  return launched(stream, "arbor_attention");
}

} // namespace arbor
