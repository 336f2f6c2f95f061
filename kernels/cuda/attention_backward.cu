// Gradient of attention. In turn: delta = Σ dOut · out of each row and head; dq, over the keys of each tile of queries; beside it for each tile
// of keys what the queries that see it give to dk and dv, in shares of some of them; the sum of these shares for each slot, in the order of the
// segments. No two blocks add to the same number, so sums have one order.

#include <algorithm>

#include "attention_warpgroups.cuh"

namespace arbor {
namespace {

constexpr int64_t kPartialBytes = int64_t(1) << 30; // shares kept at a time; further ones wait for the next wave
// So many segments may share a key tile where there are many: fewer shares to write and read, and still blocks enough.
constexpr int kMostMerged = 8, kBlocksWanted = 128;
// On tensor cores more may, and what becomes of a tile is cut into shares of about one length: a few blocks for each multiprocessor, but none
// shorter than is worth writing.
constexpr int kMostMergedMma = 16, kLeastSteps = 6, kSharesWanted = 512;

// ---- delta ---------------------------------------------------------------------------------------------------------------------

constexpr int kDeltaThreads = 256;

// `lanes` threads, a power of two up to 32, for each row and head, each with pieces of kCount numbers. Clears dq where rows may belong to no segment.
template <class T, int kCount>
__global__ void __launch_bounds__(kDeltaThreads)
    delta_kernel(AttentionShape shape, const int *counts, const T *d_out, const T *out, float *delta, T *dq, int lanes) {
  struct alignas(kCount * sizeof(T)) Piece {
    T at[kCount];
  };
  after_kernels_before();
  const int64_t thread = int64_t(blockIdx.x) * kDeltaThreads + threadIdx.x, row = thread / lanes;
  const bool valid = row < int64_t(shape.tokens) * shape.heads, clear = counts[2] != shape.tokens;
  const int lane = int(thread % lanes), pieces = valid ? shape.dim / kCount : 0;
  float sum = 0;
  for (int i = lane; i < pieces; i += lanes) {
    const int64_t at = (row * shape.dim + i * kCount) / kCount;
    const Piece one = reinterpret_cast<const Piece *>(d_out)[at], other = reinterpret_cast<const Piece *>(out)[at];
#pragma unroll
    for (int j = 0; j < kCount; j++) sum = fmaf(to_float(one.at[j]), to_float(other.at[j]), sum);
    if (clear) reinterpret_cast<Piece *>(dq)[at] = {};
  }
  for (int offset = lanes >> 1; offset > 0; offset >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  if (valid && lane == 0) delta[row] = sum;
}

template <class T, int kCount>
void launch_deltas(arbor_stream *stream, const AttentionShape &shape, const AttentionTiles &tiles, const AttentionGradients &t, const void *out) {
  int lanes = 1;
  while (lanes < 32 && lanes * kCount < shape.dim) lanes *= 2;
  const unsigned blocks = unsigned(ceil_div(int64_t(shape.tokens) * shape.heads * lanes, kDeltaThreads));
  launch_after(delta_kernel<T, kCount>, blocks, kDeltaThreads, 0, cuda_stream(stream), shape, tiles.counts, static_cast<const T *>(t.d_out),
               static_cast<const T *>(out), t.delta, static_cast<T *>(t.dq), lanes);
}

// ---- sums over the shares ------------------------------------------------------------------------------------------------------

constexpr int kSumWarps = 8, kSumBlocks = 3, kAhead = 8; // blocks of a multiprocessor

__device__ __forceinline__ void add(float &a, float b) { a += b; }
__device__ __forceinline__ void add(float4 &a, const float4 &b) { a.x += b.x, a.y += b.y, a.z += b.z, a.w += b.w; }

// A warp takes slots and, of each, 32 packs of numbers of dk | dv, of which there are `packs`. The shares' rows are [first_row, last_row) here; earlier
// ones are summed already. `direct`: so are those of slots that are listed once.
template <class Pack>
__global__ void __launch_bounds__(32 * kSumWarps) sum_kernel(AttentionShape shape, AttentionTiles tiles, const Pack *partial, int first_row,
                                                             int last_row, Pack *dk, Pack *dv, int packs, bool direct) {
  after_kernels_before();
  const int lane = int(threadIdx.x) & 31, warp = int(blockIdx.x) * kSumWarps + (int(threadIdx.x) >> 5), columns = (packs + 31) / 32;
  const int count = (direct ? tiles.counts[5] : shape.slots) * columns;
  for (int task = warp; task < count; task += int(gridDim.x) * kSumWarps) {
    const int slot = direct ? tiles.several[task / columns] : task / columns, column = task % columns * 32 + lane;
    const Listing listing = tiles.listings[slot];
    const bool valid = column < packs;
    Pack *const to = (column < packs / 2 ? dk : dv - packs / 2) + int64_t(slot) * (packs / 2) + column;
    Pack sum = {};
    if (first_row > 0 && valid) sum = *to;
    for (int i = 0; i < listing.count; i += 32) {
      const int own = i + lane < listing.count ? tiles.entries[listing.first + i + lane] : -1;
      for (int j = 0; j < min(32, listing.count - i); j += kAhead) { // in order, kAhead of them on their way at a time
        Pack ahead[kAhead];
        bool here[kAhead];
#pragma unroll
        for (int a = 0; a < kAhead; a++) {
          const int row = __shfl_sync(0xffffffffu, own, j + a);
          here[a] = valid && row >= first_row && row < last_row;
          if (here[a]) ahead[a] = __ldcs(partial + int64_t(row - first_row) * packs + column);
        }
#pragma unroll
        for (int a = 0; a < kAhead; a++)
          if (here[a]) add(sum, ahead[a]);
      }
    }
    if (valid) *to = sum;
  }
}

template <class Pack>
void launch_sums(arbor_stream *stream, const AttentionShape &shape, const AttentionTiles &tiles, const AttentionGradients &t,
                 int last_share) {
  const int packs = 2 * shape.kv_width() / int(sizeof(Pack) / sizeof(float));
  const int64_t most = int64_t(multiprocessors(stream)) * kSumBlocks, all = ceil_div(int64_t(shape.slots) * ceil_div(packs, 32), kSumWarps);
  launch_after(sum_kernel<Pack>, unsigned(std::min(most, all)), 32 * kSumWarps, 0, cuda_stream(stream), shape, tiles,
               reinterpret_cast<const Pack *>(t.partial), t.first_share * tiles.sizes.keys, last_share * tiles.sizes.keys, reinterpret_cast<Pack *>(t.dk),
               reinterpret_cast<Pack *>(t.dv), packs, t.direct);
}

int32_t sum_shares(arbor_stream *stream, const AttentionShape &shape, const AttentionTiles &tiles, const AttentionGradients &t,
                   int last_share) {
  if (shape.kv_width() % 4 == 0 && aligned(t.dk, t.dv))
    launch_sums<float4>(stream, shape, tiles, t, last_share);
  else
    launch_sums<float>(stream, shape, tiles, t, last_share);
  return launched(stream, "arbor_attention_backward");
}

int32_t backward(arbor_stream *stream, int32_t type, const AttentionShape &shape, AttentionGradients &t, const void *out,
                 bool same_plan) {
  const bool tensor_cores = for_tensor_cores(type, shape.dim, t.q, t.k, t.v, t.d_out, t.dq);
  const int merged = int(std::min<int64_t>(kMostMerged, int64_t(shape.segment_count) * shape.kv_heads / kBlocksWanted));
  const bool together = tensor_cores && for_warpgroups(stream, shape.dim);
  const int shares = kSharesWanted / shape.kv_heads + 1;
  const TileSizes sizes = tensor_cores ? TileSizes{together ? kTogetherRows : kMmaRows, kMmaKeys, kMostMergedMma, kMmaStepRows, kLeastSteps, shares}
                                       : TileSizes{kSimpleRows, kSimpleKeys, merged, kSimpleRows};
  AttentionTiles tiles;
  const int32_t planned = plan_attention(stream, "arbor_attention_backward", shape, same_plan, sizes, tiles);
  if (planned != ARBOR_OK) return planned;

  t.direct = tensor_cores && aligned(t.dk, t.dv);
  const int64_t share_bytes = int64_t(sizes.keys) * 2 * shape.kv_width() * 4;
  const int wave = int(std::max<int64_t>(1, std::min<int64_t>(tiles.share_bound, kPartialBytes / share_bytes)));
  t.delta = static_cast<float *>(scratch(stream, kDeltaScratch, int64_t(shape.tokens) * shape.heads * 4));
  t.partial = static_cast<float *>(scratch(stream, kPartialScratch, wave * share_bytes));
  if (!t.delta || !t.partial) return ARBOR_OUT_OF_MEMORY;

  const bool wide = shape.dim % 8 == 0 && aligned(t.d_out, out, t.dq);
  ARBOR_BY_TYPE(type, "arbor_attention_backward", {
    constexpr int kCount = 16 / int(sizeof(T));
    wide ? launch_deltas<T, kCount>(stream, shape, tiles, t, out) : launch_deltas<T, 1>(stream, shape, tiles, t, out);
  });
  const auto in_waves = [&](const auto &gradients) {
    int32_t code = ARBOR_OK;
    for (t.first_share = 0; code == ARBOR_OK && t.first_share < tiles.share_bound; t.first_share += wave) {
      const int count = std::min(wave, tiles.share_bound - t.first_share);
      code = gradients(count);
      if (code == ARBOR_OK && shape.slots > 0) code = sum_shares(stream, shape, tiles, t, t.first_share + count);
    }
    return code;
  };
  if (together) return in_waves([&](int count) { return gradients_together(stream, shape, tiles, t, count); });
  // dq beside dk and dv, behind them: where one has too few blocks left, those of the other run, and dk and dv take longer.
  const cudaStream_t beside = fork(stream);
  int32_t code = in_waves([&](int count) {
    return tensor_cores ? key_gradients_mma(stream, shape, tiles, t, count) : key_gradients_simple(stream, type, shape, tiles, t, count);
  });
  if (code == ARBOR_OK)
    code = tensor_cores ? query_gradients_mma(stream, beside, shape, tiles, t) : query_gradients_simple(stream, beside, type, shape, tiles, t);
  join(stream);
  return code;
}

} // namespace
} // namespace arbor

int32_t arbor_attention_backward(arbor_stream *stream, int32_t type, void *dq, void *dk, void *dv, const void *d_out, const void *out,
                                 const void *q, const void *k, const void *v, const float *lse, const int32_t *segments,
                                 const int32_t *context, int64_t segment_count, int64_t context_capacity, int64_t tokens,
                                 int64_t slot_count, int64_t heads, int64_t kv_heads, int64_t head_dim, int32_t same_plan) {
  using namespace arbor;
  AttentionShape shape;
  ARBOR_ENTER(stream, "arbor_attention_backward",
              given(dq, dk, dv, d_out, out, q, k, v, lse, segments, context) &&
                  attention_shape(shape, stream, segments, context, segment_count, context_capacity, tokens, slot_count, heads, kv_heads,
                                  head_dim));
  if (type != ARBOR_F32 && type != ARBOR_BF16) return unsupported("arbor_attention_backward", "activations are f32 or bf16");
  if (head_dim > kMostSimple) return unsupported("arbor_attention_backward", "heads have up to 256 numbers");
  if (tokens == 0 || segment_count == 0) { // nothing sees anything
    const cudaStream_t on = cuda_stream(stream);
    cudaMemsetAsync(dq, 0, size_t(tokens * heads * head_dim) * (type == ARBOR_F32 ? 4 : 2), on);
    for (void *to : {dk, dv}) cudaMemsetAsync(to, 0, size_t(slot_count * kv_heads * head_dim) * 4, on);
    return launched(stream, "arbor_attention_backward");
  }
  AttentionGradients gradients = {q, k, v, d_out, lse, dq, static_cast<float *>(dk), static_cast<float *>(dv), nullptr, nullptr, 0, false};
  return backward(stream, type, shape, gradients, out, same_plan);
}
