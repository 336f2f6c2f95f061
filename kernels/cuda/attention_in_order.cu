// Attention of single rows with the bits of attend_prefill, which goes through 64 keys after 64: what a block of keys adds depends on those before by
// their highest score alone. So a round of keys is scored by all warps at once, a strip for each; the peaks are passed on; and the weighted values are
// summed in order by warps that divide the head's width among them instead of the keys. A block has a row and the heads that share a key head
// (attention_in_order_crowd.cu: some rows).

#include "attention.cuh"
#include "attention_in_order.cuh"

namespace arbor {
namespace {

constexpr int kSomeWarps = 6; // where blocks take turns: two on a multiprocessor, one's copies under way while the other computes

template <int D, int Warps> struct alignas(256) Round {
  bf16 queries[kTileRows * D];
  bf16 strips[Warps][2][kStrip * D];     // keys and values
  uint4 weights[Warps][kStrip / 16][32]; // as left operands
  float peaks[Warps][kTileRows], totals[Warps][2][32];
};

// The scores of a warp's strip become weights under the peak of its block of 64, and the peak goes on to the round's last; `shrinks[b]`: what block b makes
// of the sums before it.
template <int D, int Warps>
__device__ __forceinline__ void weigh(float (&scores)[kStrip / 8][4], Running &sums, float (&shrinks)[Warps / kBlockStrips][2], float scale,
                                      Round<D, Warps> &shared) {
  const int lane = int(threadIdx.x) & 31, warp = int(threadIdx.x) >> 5;
#pragma unroll
  for (int row = 0; row < 2; row++) {
    float own = 0;
#pragma unroll
    for (int b = 0; b < Warps / kBlockStrips; b++) {
      const int m = (lane >> 2) + 8 * row;
      shrinks[b][row] = sums.pass(row, shared.peaks[2 * b][m], shared.peaks[2 * b + 1][m], scale);
      if (b == warp / kBlockStrips) own = sums.peak[row] * scale;
    }
    shared.totals[warp][row][lane] = weigh_strip(scores, 0, row, scale, own);
  }
  lay_weights(shared.weights[warp], scores, lane);
}

template <int D, int Warps>
__global__ void __launch_bounds__(32 * Warps, 1)
    in_order_kernel(AttentionShape shape, int head_tiles, const bf16 *q, const bf16 *k, const bf16 *v, bf16 *out, float *lse, float scale) {
  static_assert(Warps % kBlockStrips == 0, "a round has whole blocks of keys");
  constexpr int kBlocks = Warps / kBlockStrips, kPairs = D / 16, kOwn = (kPairs + Warps - 1) / Warps; // pairs of 8 columns, of all, of a warp
  extern __shared__ __align__(256) unsigned char memory[];
  Round<D, Warps> &shared = *reinterpret_cast<Round<D, Warps> *>(memory);
  const int lane = int(threadIdx.x) & 31, warp = int(threadIdx.x) >> 5, width = shape.kv_width();
  const int kv_head = int(blockIdx.y) / head_tiles, first_head = int(blockIdx.y) % head_tiles * kTileRows;
  Rows rows(shape, int(blockIdx.x), 1);
  rows.head = kv_head * shape.group() + first_head, rows.heads = min(kTileRows, shape.group() - first_head);
  bf16 *const keys = shared.strips[warp][0], *const values = shared.strips[warp][1];
  k += kv_head * D, v += kv_head * D;
  for (int query = 0; rows.pick(query); query++) { // one, where the engine decodes
    const int length = rows.longest, start = rows.entries(0);
    const auto read_slot = [&](int first) {
      const int key = first + warp * kStrip + lane;
      return key < length ? shape.context[start + key] : -1;
    };
    const auto checked = [&](int first, int slot) { return first + warp * kStrip + lane < length ? checked_slot(shape, slot) : -1; };
    int slot = checked(0, read_slot(0)), ahead = read_slot(Warps * kStrip);
    after_kernels_before(); // what rows see is the host's to say, and read; all else is not
    copy_queries<D, Warps>(shape, rows, 0, 1, q, shared.queries);
    copy_strip<D>(keys, k, slot, width);
    close_copies();
    copy_strip<D>(values, v, slot, width);
    close_copies();
    wait_copies<1>();
    __syncthreads(); // the queries are every warp's
    Running sums;
    float out_sums[kOwn][2][4] = {};
    for (int first = 0; first < length; first += Warps * kStrip) {
      const int next = first + Warps * kStrip;
      wait_copies<1>(); // the keys
      __syncwarp();
      float scores[kStrip / 8][4] = {};
      add_inner_products<D, kStrip>(scores, shared.queries, 0, keys, 0, lane);
      const int seen[2] = {length, length}, own = first + warp * kStrip;
      if (own + kStrip > length) mask<kStrip>(scores, seen, own, lane);
#pragma unroll
      for (int row = 0; row < 2; row++) {
        const float peak = highest(scores, row, -INFINITY);
        if ((lane & 3) == 0) shared.peaks[warp][(lane >> 2) + 8 * row] = peak;
      }
      __syncthreads();
      float shrinks[kBlocks][2];
      weigh<D, Warps>(scores, sums, shrinks, scale, shared);
      wait_copies<0>(); // the values
      __syncthreads();
      slot = checked(next, ahead), ahead = read_slot(next + Warps * kStrip);
      if (next < length) copy_strip<D>(keys, k, slot, width);
      close_copies();
#pragma unroll
      for (int b = 0; b < kBlocks; b++) {
        if (first + b * kBlockStrips * kStrip >= length) break;
#pragma unroll
        for (int row = 0; row < 2; row++) sums.count(row, shrinks[b][row], shared.totals[2 * b][row][lane], shared.totals[2 * b + 1][row][lane]);
#pragma unroll
        for (int p = 0; p < kOwn; p++) {
          const int pair = warp + p * Warps;
          if (pair >= kPairs) break;
          float(&c)[2][4] = out_sums[p];
#pragma unroll
          for (int i = 0; i < 4; i++) c[0][i] *= shrinks[b][i >> 1], c[1][i] *= shrinks[b][i >> 1];
#pragma unroll
          for (int s = kBlockStrips * b; s < kBlockStrips * (b + 1); s++)
#pragma unroll
            for (int step = 0; step < kStrip / 16; step++) {
              const uint4 one = shared.weights[s][step][lane];
              const uint32_t left[4] = {one.x, one.y, one.z, one.w};
              uint32_t right[4];
              load_transposed(right, (down_address<D>(shared.strips[s][1], 0, lane) ^ 32 * pair) + step * kDown<D>);
              mma(c[0], left, right[0], right[1]);
              mma(c[1], left, right[2], right[3]);
            }
        }
      }
      __syncthreads(); // values, weights and peaks are read
      if (next < length) copy_strip<D>(values, v, slot, width);
      close_copies();
    }
    wait_copies<0>();
    const int64_t row_at = int64_t(rows.row(0)) * shape.heads + rows.head;
#pragma unroll
    for (int row = 0; row < 2; row++) {
      const int m = (lane >> 2) + 8 * row;
      const float total = sum_of_four(sums.total[row]), by = 1 / total;
      if (m >= rows.heads) continue;
      const int64_t at = row_at + m;
      if (lse && warp == 0 && (lane & 3) == 0) lse[at] = sums.peak[row] * scale * kLn2 + logf(total);
#pragma unroll
      for (int p = 0; p < kOwn; p++)
        if (warp + p * Warps < kPairs) store_pair<D>(out, at, warp + p * Warps, out_sums[p], row, by, lane);
    }
  }
  after_kernels_before(); // no grid ends before those before it, though its blocks had nothing to do
}

template <int D, int Warps> bool launch(arbor_stream *stream, const AttentionShape &shape, const AttentionTensors &t) {
  constexpr size_t kShared = sizeof(Round<D, Warps>);
  if (!allow_shared(in_order_kernel<D, Warps>, kShared)) return false;
  const int64_t head_tiles = ceil_div(shape.group(), kTileRows);
  launch_after(in_order_kernel<D, Warps>, dim3(unsigned(shape.segment_count), unsigned(shape.kv_heads * head_tiles)), 32 * Warps, kShared,
               cuda_stream(stream), shape, int(head_tiles), static_cast<const bf16 *>(t.q), static_cast<const bf16 *>(t.k),
               static_cast<const bf16 *>(t.v), static_cast<bf16 *>(t.out), t.lse, 1 / sqrtf(float(shape.dim)) * kLog2e);
  return true;
}

} // namespace

int32_t attend_in_order(arbor_stream *stream, const AttentionShape &shape, const AttentionTensors &t) {
  if (attend_crowd_in_order(stream, shape, t)) return launched(stream, "arbor_attention");
  const bool in_turns = int64_t(shape.segment_count) * shape.kv_heads * ceil_div(shape.group(), kTileRows) > multiprocessors(stream);
  ARBOR_BY_WIDTH(shape.dim, {
    if (in_turns && launch<D, kSomeWarps>(stream, shape, t)) return launched(stream, "arbor_attention");
    if (!launch<D, kManyWarps>(stream, shape, t) && !launch<D, kFewWarps>(stream, shape, t))
      return unsupported("arbor_attention", "too little shared memory on this device");
  });
  return launched(stream, "arbor_attention");
}

} // namespace arbor
