// What a block that sums dk and dv of a key tile knows of its share (attention_plan.cuh): which rows come next, and where its sums go.
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

} // namespace arbor
