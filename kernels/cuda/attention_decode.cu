// Attention of single rows (Flash-Decoding, Dao et al., 2023). A block has all keys of a row that fit into shared memory at once, a strip of them for
// each of its warps, and serves the heads that share a key head, as rows of one tensor core tile. Where there are more rows than multiprocessors
// a block takes several of them, which then share the strips in which they list the same slots. Longer rows are split over blocks, the last of which
// to finish joins all. Which keys a warp sums for a row, and in what order the sums are joined, follows from the row's own length alone.

#include <algorithm>

#include "attention.cuh"
#include "attention_join.cuh"

namespace arbor {
namespace {

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
      join_strips<D, Warps>(shape, rows, split, out, lse, partial, shared);
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
  if (!allow_shared(decode_kernel<D, Warps>, kShared)) return false;
  const int64_t processors = multiprocessors(stream), head_tiles = ceil_div(shape.group(), kTileRows);
  const int64_t all = int64_t(shape.segment_count) * shape.kv_heads * head_tiles;
  const int64_t most = head_tiles > 1 ? 1 : std::min<int64_t>(kMostRows, kTileRows / shape.group());
  const int64_t rows = std::max<int64_t>(1, std::min(most, ceil_div(all, processors))), windows = ceil_div(shape.segment_count, rows);
  if constexpr (Warps == kManyWarps)
    if (windows * shape.kv_heads > processors && head_tiles == 1 && attend_crowd(stream, shape, t, partial, int(most))) return true;
  const int64_t splits = std::max<int64_t>(1, std::min<int64_t>(kSplits, processors / (windows * shape.kv_heads * head_tiles)));
  launch_after(decode_kernel<D, Warps>, dim3(unsigned(windows), unsigned(shape.kv_heads * head_tiles), unsigned(splits)), 32 * Warps, kShared,
               cuda_stream(stream), shape, int(rows), int(head_tiles), static_cast<const bf16 *>(t.q), static_cast<const bf16 *>(t.k),
               static_cast<const bf16 *>(t.v), static_cast<bf16 *>(t.out), t.lse, partial, counters, kLog2e / sqrtf(float(shape.dim)));
  return true;
}

} // namespace

int32_t attend_decode(arbor_stream *stream, const AttentionShape &shape, const AttentionTensors &t) {
  int32_t *counters = zeroed_counters(stream, int64_t(shape.tokens) * shape.kv_heads * ceil_div(shape.group(), kTileRows));
  float *partial = static_cast<float *>(scratch(stream, kPartialScratch, int64_t(shape.tokens) * shape.heads * kSplits * (shape.dim + 4) * 4));
  if (!counters || !partial) return ARBOR_OUT_OF_MEMORY;
  ARBOR_BY_WIDTH(shape.dim, {
    if (!launch<D, kManyWarps>(stream, shape, t, partial, counters) && !launch<D, kFewWarps>(stream, shape, t, partial, counters))
      return unsupported("arbor_attention", "too little shared memory on this device");
  });
  return launched(stream, "arbor_attention");
}

} // namespace arbor
