// What both ways of attention's gradient on tensor cores have in common (attention_backward_mma.cu, attention_backward_warpgroups.cu): what a block that
// sums dk and dv of a key tile knows of its share (attention_plan.cuh), how rows come to it, where sums go.
#pragma once

#include "attention.cuh"

namespace arbor {

// Where the pass over segments and their rows stands: the next rows, from `next` on, if any.
struct ShareRows {
  const AttentionShape &shape;
  Segment segment;
  int first_key, s, end_segment, next = 0, end = 0, before, left; // before, left: steps of others, of this block

  __device__ __forceinline__ ShareRows(const AttentionShape &of, const KeyTile &tile, const KeySpan &span, const KeyShare &share)
      : shape(of), segment{0, 0, 0, 0}, first_key(tile.first), s(tile.segment - 1), end_segment(tile.segment + span.segments), before(share.first),
        left(share.end - share.first) {}

  // Goes on to the next segment where this one has no rows left; false when there are none.
  __device__ __forceinline__ bool settle() {
    while (next >= end && ++s < end_segment) {
      read_segment(shape, s, segment);
      next = segment.seer(first_key) * shape.group(); // the first to see any of the keys
      end = segment.row_count * shape.group();
      const int passed = min(before, (end - next + kMmaStepRows - 1) / kMmaStepRows);
      before -= passed, next += passed * kMmaStepRows;
    }
    return left > 0 && next < end;
  }
  // Takes the rows that settle() has found.
  __device__ __forceinline__ PackedRows take(int kv_head) {
    const PackedRows rows(shape, segment, kv_head, next, kMmaStepRows);
    next += kMmaStepRows, left--;
    return rows;
  }
};

// Where a share's sums go: to its place among the partial sums, or where a slot is listed once in all, to dk and dv at once (not when these are null).
struct ShareSums {
  float *partial, *dk, *dv;
};

inline ShareSums share_sums(const AttentionGradients &t) { return {t.partial, t.direct ? t.dk : nullptr, t.direct ? t.dv : nullptr}; }

// Writes a warp's 16 rows of sums, from key 16 * warp of the tile on; `partial` is the share's.
template <int D>
__device__ __forceinline__ void write_share(const float (&dk)[D / 8][4], const float (&dv)[D / 8][4], const ShareSums &to, const AttentionShape &shape,
                                            const AttentionTiles &tiles, const KeyTile &tile, int kv_head, float scale) {
  const int lane = int(threadIdx.x) & 31, warp = int(threadIdx.x) >> 5, width = shape.kv_width();
#pragma unroll
  for (int row = 0; row < 2; row++) {
    const int j = 16 * warp + (lane >> 2) + 8 * row, slot = j < tile.count ? shape.context[tile.at + j] : -1;
    if (j >= tile.count) continue;
    const bool alone = to.dk && unsigned(slot) < unsigned(shape.slots) && tiles.listings[slot].count == 1;
    const int64_t place = int64_t(alone ? slot : 2 * j) * width + kv_head * D + 2 * (lane & 3);
    float *const to_dk = (alone ? to.dk : to.partial) + place, *const to_dv = alone ? to.dv + place : to_dk + width;
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
      *reinterpret_cast<float2 *>(to_dk + 8 * n) = make_float2(dk[n][2 * row] * scale, dk[n][2 * row + 1] * scale);
      *reinterpret_cast<float2 *>(to_dv + 8 * n) = make_float2(dv[n][2 * row], dv[n][2 * row + 1]);
    }
  }
}

constexpr int kShareThreads = 2 * kMmaStepRows; // half of them copy lse, half delta

// Keys and values of a tile, two stages of rows.
template <int D> struct alignas(256) KeyShared {
  bf16 keys[kMmaKeys * D], values[kMmaKeys * D];
  bf16 queries[2][kMmaStepRows * D], d_outs[2][kMmaStepRows * D];
  float lse[2][kMmaStepRows], delta[2][kMmaStepRows];
  int seen[2][kMmaStepRows]; // 0 past the end
};

// Copies the next rows into a stage.
template <int D, class Layout>
__device__ __forceinline__ void copy_stage(KeyShared<D> &shared, int stage, const PackedRows &rows, const bf16 *q, const bf16 *d_out,
                                           const float *lse, const float *delta) {
  const int thread = int(threadIdx.x), r = thread % kMmaStepRows;
  const RowCopies<D, kMmaStepRows, kShareThreads, Layout> row_copies(rows, thread);
  row_copies.copy(shared.queries[stage], q);
  row_copies.copy(shared.d_outs[stage], d_out);
  const bool valid = r < rows.count;
  const int at = valid ? rows.at(r) : 0;
  if (thread < kMmaStepRows)
    copy_number(&shared.lse[stage][r], lse + at, valid), shared.seen[stage][r] = valid ? rows.seen(r) : 0;
  else
    copy_number(&shared.delta[stage][r], delta + at, valid);
  close_copies();
}

// Writes a warp's 16 rows of dq, from `own_row` on, through these rows of the tile of queries, that the stores be whole pieces.
template <int D, class Layout>
__device__ __forceinline__ void store_rows(const float (&sums)[D / 8][4], const PackedRows &rows, int own_row, bf16 *tile, bf16 *dq, float scale) {
  const int lane = int(threadIdx.x) & 31;
#pragma unroll
  for (int row = 0; row < 2; row++)
#pragma unroll
    for (int n = 0; n < D / 8; n++)
      *reinterpret_cast<uint32_t *>(tile + Layout::at(own_row + 8 * row + (lane >> 2), n) + 2 * (lane & 3)) =
          pack_pair(sums[n][2 * row] * scale, sums[n][2 * row + 1] * scale);
  __syncwarp();
  for (int i = lane; i < 16 * D / 8; i += 32) {
    const int r = own_row + i / (D / 8), piece = i % (D / 8);
    if (r < rows.count) store_pack(dq + int64_t(rows.at(r)) * D + 8 * piece, load_pack(tile + Layout::at(r, piece)));
  }
}

} // namespace arbor
