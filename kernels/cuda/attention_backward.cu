// Gradient of attention. In turn: delta = Σ dOut · out of each row and head; dq, over the keys of each tile of queries; for each tile of keys of
// each segment the share of that segment's queries in dk and dv; the sum of these shares for each slot, in the order of the segments. No
// two blocks add to the same number, so sums have one order.

#include "attention.cuh"

namespace arbor {
namespace {

constexpr int64_t kPartialBytes = int64_t(1) << 30; // shares kept at a time; further key tiles wait for the next wave
// So many segments may share a key tile where there are many: fewer shares to write and read, and still blocks enough.
constexpr int kMostMerged = 16, kBlocksWanted = 256;

// ---- delta ---------------------------------------------------------------------------------------------------------------------

constexpr int kDeltaWarps = 8;

// A warp for each row and head. Clears dq where rows may belong to no segment.
template <class T>
__global__ void __launch_bounds__(32 * kDeltaWarps)
    delta_kernel(AttentionShape shape, const int *counts, const T *d_out, const T *out, float *delta, T *dq) {
  const int lane = int(threadIdx.x) & 31, row = int(blockIdx.x) * kDeltaWarps + (int(threadIdx.x) >> 5);
  if (row >= shape.tokens * shape.heads) return;
  const int64_t at = int64_t(row) * shape.dim;
  float sum = 0;
  for (int d = lane; d < shape.dim; d += 32) sum = fmaf(to_float(d_out[at + d]), to_float(out[at + d]), sum);
  sum = warp_sum(sum);
  if (lane == 0) delta[row] = sum;
  if (counts[2] == shape.tokens) return;
  for (int d = lane; d < shape.dim; d += 32) dq[at + d] = from_float<T>(0.0f);
}

// ---- sums over the shares ------------------------------------------------------------------------------------------------------

constexpr int kSumWarps = 16, kSumThreads = 32 * kSumWarps, kPacks = 4, kAhead = 4, kMostHits = 512;

__device__ __forceinline__ void add(float &a, float b) { a += b; }
__device__ __forceinline__ void add(float4 &a, const float4 &b) { a.x += b.x, a.y += b.y, a.z += b.z, a.w += b.w; }

// A tile that may list one of the block's slots.
struct Candidate {
  int tile, at, count;
};

struct SumShared {
  Candidate candidates[kSumThreads];
  int hits[kSumWarps][kMostHits]; // rows of the shares that hold the warp's slot
  int before[kSumWarps + 1];
};

// The tiles among the next kSumThreads from `first` on that may list slots from low to high, in order; returns how many there are.
__device__ int find_candidates(const AttentionTiles &tiles, int first, int end, int low, int high, SumShared &shared) {
  const int t = first + int(threadIdx.x), lane = int(threadIdx.x) & 31, warp = int(threadIdx.x) >> 5;
  bool found = false;
  if (t < end) {
    const KeySpan span = tiles.spans[t];
    found = span.segments > 0 && span.low <= high && span.high >= low;
  }
  const unsigned all = __ballot_sync(0xffffffffu, found);
  __syncthreads(); // nobody reads the candidates before any more
  if (lane == 0) shared.before[warp + 1] = __popc(all);
  __syncthreads();
  int before = 0, total = 0;
  for (int w = 0; w < kSumWarps; w++) {
    if (w == warp) before = total;
    total += shared.before[w + 1];
  }
  if (found) {
    const KeyTile tile = tiles.keys[t];
    shared.candidates[before + __popc(all & ((1u << lane) - 1))] = {t, tile.at, tile.count};
  }
  __syncthreads();
  return total;
}

// Adds the shares' rows, in order, kAhead of them on their way at a time.
template <class Pack>
__device__ __forceinline__ void add_hits(Pack (&sum)[kPacks], const int *hits, int count, const Pack *partial, int first, int packs) {
  for (int i = 0; i < count; i += kAhead) {
    Pack ahead[kAhead][kPacks];
#pragma unroll
    for (int a = 0; a < kAhead; a++)
#pragma unroll
      for (int p = 0; p < kPacks; p++)
        if (i + a < count && first + 32 * p < packs) ahead[a][p] = __ldcs(partial + int64_t(hits[i + a]) * packs + first + 32 * p);
#pragma unroll
    for (int a = 0; a < kAhead; a++)
#pragma unroll
      for (int p = 0; p < kPacks; p++)
        if (i + a < count && first + 32 * p < packs) add(sum[p], ahead[a][p]);
  }
}

// A warp for each slot and 32 * kPacks packs of numbers of dk | dv, of which there are `packs`.
template <class Pack>
__global__ void __launch_bounds__(kSumThreads)
    sum_kernel(AttentionShape shape, AttentionTiles tiles, const Pack *partial, int first_tile, int last_tile, Pack *dk, Pack *dv, int packs) {
  __shared__ SumShared shared;
  const int lane = int(threadIdx.x) & 31, warp = int(threadIdx.x) >> 5, low = int(blockIdx.x) * kSumWarps, slot = low + warp;
  const int first = int(blockIdx.y) * 32 * kPacks + lane, end = min(tiles.counts[1], last_tile);
  int *const hits = shared.hits[warp];
  Pack sum[kPacks] = {};
  for (int base = first_tile; base < end; base += kSumThreads) {
    const int count = find_candidates(tiles, base, end, low, low + kSumWarps - 1, shared);
    int held = 0;
    for (int c = 0; c < count; c += kAhead) {
      int entries[kAhead][2];
#pragma unroll
      for (int a = 0; a < kAhead; a++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
          const Candidate candidate = shared.candidates[min(c + a, count - 1)];
          const bool valid = c + a < count && lane + 32 * half < candidate.count;
          entries[a][half] = valid ? shape.context[candidate.at + lane + 32 * half] : -1;
        }
#pragma unroll
      for (int a = 0; a < kAhead; a++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
          const bool hit = entries[a][half] == slot;
          const unsigned all = __ballot_sync(0xffffffffu, hit);
          if (hit) hits[held + __popc(all & ((1u << lane) - 1))] = (shared.candidates[c + a].tile - first_tile) * tiles.tile_keys + lane + 32 * half;
          held += __popc(all);
        }
      if (c + kAhead < count && held <= kMostHits - 64 * kAhead) continue;
      __syncwarp();
      add_hits(sum, hits, held, partial, first, packs);
      __syncwarp();
      held = 0;
    }
  }
  if (slot >= shape.slots) return;
#pragma unroll
  for (int p = 0; p < kPacks; p++) {
    const int column = first + 32 * p;
    if (column >= packs) continue;
    Pack *const to = column < packs / 2 ? dk + int64_t(slot) * (packs / 2) + column : dv + int64_t(slot) * (packs / 2) + column - packs / 2;
    if (first_tile > 0) add(sum[p], *to); // an earlier wave's
    *to = sum[p];
  }
}

template <class Pack>
void launch_sums(arbor_stream *stream, const AttentionShape &shape, const AttentionTiles &tiles, const AttentionGradients &t, int last_tile) {
  const int packs = 2 * shape.kv_width() / int(sizeof(Pack) / sizeof(float));
  const dim3 grid(unsigned(ceil_div(shape.slots, kSumWarps)), unsigned(ceil_div(packs, 32 * kPacks)));
  sum_kernel<Pack><<<grid, kSumThreads, 0, cuda_stream(stream)>>>(shape, tiles, reinterpret_cast<const Pack *>(t.partial), t.first_tile, last_tile,
                                                                  reinterpret_cast<Pack *>(t.dk), reinterpret_cast<Pack *>(t.dv), packs);
}

int32_t sum_shares(arbor_stream *stream, const AttentionShape &shape, const AttentionTiles &tiles, const AttentionGradients &t, int last_tile) {
  const bool aligned = reinterpret_cast<uintptr_t>(t.dk) % 16 == 0 && reinterpret_cast<uintptr_t>(t.dv) % 16 == 0;
  if (shape.kv_width() % 4 == 0 && aligned)
    launch_sums<float4>(stream, shape, tiles, t, last_tile);
  else
    launch_sums<float>(stream, shape, tiles, t, last_tile);
  return launched(stream, "arbor_attention_backward");
}

int32_t backward(arbor_stream *stream, int32_t type, const AttentionShape &shape, AttentionGradients &t, const void *out) {
  const bool tensor_cores = for_tensor_cores(type, shape.dim, t.q, t.k, t.v, t.d_out, t.dq);
  const int tile_keys = tensor_cores ? kMmaKeys : kSimpleKeys;
  const int merged = int(std::min<int64_t>(kMostMerged, int64_t(shape.segment_count) * shape.kv_heads / kBlocksWanted));
  AttentionTiles tiles;
  const int32_t planned = plan_attention(stream, "arbor_attention_backward", shape, tensor_cores ? kMmaRows : kSimpleRows, tile_keys, merged, tiles);
  if (planned != ARBOR_OK) return planned;

  const int64_t tile_bytes = int64_t(tile_keys) * 2 * shape.kv_width() * 4;
  const int wave = int(std::max<int64_t>(1, std::min<int64_t>(tiles.key_bound, kPartialBytes / tile_bytes)));
  t.delta = static_cast<float *>(scratch(stream, kDeltaScratch, int64_t(shape.tokens) * shape.heads * 4));
  t.partial = static_cast<float *>(scratch(stream, kPartialScratch, wave * tile_bytes));
  if (!t.delta || !t.partial) return ARBOR_OUT_OF_MEMORY;

  const unsigned delta_blocks = unsigned(ceil_div(int64_t(shape.tokens) * shape.heads, kDeltaWarps));
  ARBOR_BY_TYPE(type, "arbor_attention_backward",
                delta_kernel<T><<<delta_blocks, 32 * kDeltaWarps, 0, cuda_stream(stream)>>>(
                    shape, tiles.counts, static_cast<const T *>(t.d_out), static_cast<const T *>(out), t.delta, static_cast<T *>(t.dq)));
  int32_t code = tensor_cores ? query_gradients_mma(stream, shape, tiles, t) : query_gradients_simple(stream, type, shape, tiles, t);
  for (t.first_tile = 0; code == ARBOR_OK && t.first_tile < tiles.key_bound; t.first_tile += wave) {
    const int count = std::min(wave, tiles.key_bound - t.first_tile);
    code = tensor_cores ? key_gradients_mma(stream, shape, tiles, t, count) : key_gradients_simple(stream, type, shape, tiles, t, count);
    if (code == ARBOR_OK && shape.slots > 0) code = sum_shares(stream, shape, tiles, t, t.first_tile + count);
  }
  return code;
}

} // namespace
} // namespace arbor

int32_t arbor_attention_backward(arbor_stream *stream, int32_t type, void *dq, void *dk, void *dv, const void *d_out, const void *out,
                                 const void *q, const void *k, const void *v, const float *lse, const int32_t *segments,
                                 const int32_t *context, int64_t segment_count, int64_t context_capacity, int64_t tokens,
                                 int64_t slot_count, int64_t heads, int64_t kv_heads, int64_t head_dim) {
  using namespace arbor;
  AttentionShape shape;
  ARBOR_ENTER(stream, "arbor_attention_backward",
              given(dq, dk, dv, d_out, out, q, k, v, lse, segments, context) &&
                  attention_shape(shape, stream, segments, context, segment_count, context_capacity, tokens, slot_count, heads, kv_heads, head_dim));
  if (type != ARBOR_F32 && type != ARBOR_BF16) return unsupported("arbor_attention_backward", "activations are f32 or bf16");
  if (head_dim > kMostSimple) return unsupported("arbor_attention_backward", "heads have up to 256 numbers");
  if (tokens == 0 || segment_count == 0) { // nothing sees anything
    const cudaStream_t on = cuda_stream(stream);
    cudaMemsetAsync(dq, 0, size_t(tokens * heads * head_dim) * (type == ARBOR_F32 ? 4 : 2), on);
    for (void *to : {dk, dv}) cudaMemsetAsync(to, 0, size_t(slot_count * kv_heads * head_dim) * 4, on);
    return launched(stream, "arbor_attention_backward");
  }
  AttentionGradients gradients = {q, k, v, d_out, lse, dq, static_cast<float *>(dk), static_cast<float *>(dv), nullptr, nullptr, 0};
  return backward(stream, type, shape, gradients, out);
}
