// What a block of the decoding attention does with its rows: each warp has a strip of keys and one of values, and passes over those that are its own.
#pragma once

#include "attention_shape.cuh"
#include "attention_softmax.cuh"

namespace arbor {

constexpr int kManyWarps = 12, kFewWarps = 4; // of a block, where shared memory has room, and where it has not
constexpr int kStrip = 32, kTileRows = 16, kMostRows = 4;

template <int D, int Warps> struct alignas(256) Strips {
  bf16 queries[kTileRows * D];
  bf16 strips[Warps][2][kStrip * D]; // keys and values; then, in f32, the warp's weighted sums
  float peaks[Warps][kTileRows], totals[Warps][kTileRows];
  bool last;

  // Number d of a tile row's weighted sum, spread over the banks.
  __device__ __forceinline__ float *sum_at(int warp, int m, int d) {
    return reinterpret_cast<float *>(strips[warp]) + m * D + (d ^ ((m & 3) << 3));
  }
  __device__ __forceinline__ const float *sum_at(int warp, int m, int d) const { return const_cast<Strips *>(this)->sum_at(warp, m, d); }
};

// The rows of a block: lane r of every warp knows row r. Row m of the tile is head m % heads of row m / heads.
struct Rows {
  int count, longest, first, head, heads; // the lowest of them that is there; heads [head, head + heads), under one key head
  Segment own;
  int own_row, own_length;

  __device__ __forceinline__ Rows(const AttentionShape &shape, int from, int most) : count(0), longest(0), first(0), head(0), heads(0), own{0, 0, 0, 0} {
    const int lane = int(threadIdx.x) & 31;
    if (lane < most && from + lane < shape.segment_count) read_segment(shape, from + lane, own);
  }

  // Goes to the segments' rows number `query`; false when there are none.
  __device__ __forceinline__ bool pick(int query) {
    const bool here = query < own.row_count;
    const unsigned all = __ballot_sync(0xffffffffu, here);
    own_row = here ? own.row_start + query : 0, own_length = here ? own.seen(query) : 0;
    count = 32 - __clz(all), first = max(0, __ffs(all) - 1);
    longest = __reduce_max_sync(0xffffffffu, own_length);
    return all != 0;
  }

  __device__ __forceinline__ int row(int r) const { return __shfl_sync(0xffffffffu, own_row, r); }
  __device__ __forceinline__ int length(int r) const { return __shfl_sync(0xffffffffu, own_length, r); }
  __device__ __forceinline__ int entries(int r) const { return __shfl_sync(0xffffffffu, own.context_start, r); }
};

// A number for each row of a block. No array: those that a loop reads land in memory.
struct alignas(16) PerRow {
  int one, two, three, four;

  template <class Value> static __device__ __forceinline__ PerRow of(const Value &value) { return {value(0), value(1), value(2), value(3)}; }
  __device__ __forceinline__ int at(int r) const { return r == 0 ? one : r == 1 ? two : r == 2 ? three : four; }
};
static_assert(kMostRows == 4, "as many as PerRow has");

// A warp's way through its strips: in each, rows [begin, end) are served together, as they list the same slots there, or one alone.
struct Passes {
  const int32_t *context;
  int count, longest, first, step, begin = 0, end = 0;
  PerRow lengths, starts, slots, ahead; // slots: of key first + lane; ahead: of the next strip's

  // Of the rows [from, to), which are counted from the block's row `base` on.
  __device__ __forceinline__ Passes(const int32_t *entries, const Rows &rows, int base, int from, int to, int first_key, int stride)
      : context(entries), count(to), longest(0), first(first_key), step(stride) {
    lengths = PerRow::of([&](int r) { return r >= from && r < to ? rows.length(base + r) : 0; });
    starts = PerRow::of([&](int r) { return rows.entries(base + r); });
    longest = max(max(lengths.one, lengths.two), max(lengths.three, lengths.four));
    slots = read_slots(first), ahead = read_slots(first + step);
  }

  __device__ __forceinline__ PerRow read_slots(int key) const {
    key += int(threadIdx.x) & 31;
    return PerRow::of([&](int r) { return key < lengths.at(r) ? context[starts.at(r) + key] : -1; });
  }
  __device__ __forceinline__ int length() const { return lengths.at(begin); }
  // Of key first + lane.
  __device__ __forceinline__ int slot(const AttentionShape &shape) const {
    return first + (int(threadIdx.x) & 31) < length() ? checked_slot(shape, slots.at(begin)) : -1;
  }

  // Whether row r, the next, can be served with those from `begin` on.
  __device__ __forceinline__ bool joins(int r) const {
    return r == end && r < count && first + kStrip <= min(length(), lengths.at(r)) &&
           __all_sync(0xffffffffu, slots.at(r) == slots.at(begin));
  }

  // Goes to the next pass; false when there is none.
  __device__ __forceinline__ bool next() {
    for (begin = end; first < longest; begin = 0) {
      while (begin < count && length() <= first) begin++;
      if (begin < count) {
        end = begin + 1;
        if (joins(1)) end = 2;
        if (joins(2)) end = 3;
        if (joins(3)) end = 4;
        return true;
      }
      first += step;
      slots = ahead, ahead = read_slots(first + step);
    }
    return false;
  }
};

// Copies the rows of keys or values in these slots (lane's: of row lane) into a strip.
template <int D> __device__ __forceinline__ void copy_strip(bf16 *strip, const bf16 *from, int slot, int width) {
  constexpr int kPieces = D / 8, kAtOnce = 32 / kPieces;
  const int lane = int(threadIdx.x) & 31, piece = lane % kPieces;
  from += piece * 8;
#pragma unroll
  for (int i = 0; i < kStrip / kAtOnce; i++) {
    const int one = __shfl_sync(0xffffffffu, slot, i * kAtOnce + lane / kPieces), above = i * kAtOnce / 8 * 8; // tiles look alike every 8 rows
    copy_piece(strip + tile_at<D>(i * kAtOnce - above + lane / kPieces, piece) + above * D, from + int64_t(max(one, 0)) * width, one >= 0);
  }
}

// Copies the queries of the block's rows [base, end) into a tile.
template <int D, int Warps>
__device__ __forceinline__ void copy_queries(const AttentionShape &shape, const Rows &rows, int base, int end, const bf16 *q, bf16 *queries) {
  constexpr int kPieces = kTileRows * D / 8;
#pragma unroll
  for (int first = 0; first < kPieces; first += 32 * Warps) {
    const int i = first + int(threadIdx.x), m = i / (D / 8), piece = i % (D / 8), r = base + m / rows.heads;
    const bool valid = r < end;
    const int64_t at = int64_t(rows.row(valid ? r : 0)) * shape.heads + rows.head + (valid ? m % rows.heads : 0);
    if (i < kPieces) copy_piece(queries + tile_at<D>(m, piece), q + at * D + 8 * piece, valid);
  }
}

// Leaves a warp's sums of the tile's rows [first, end) as those of slot `slot` and the rows from `base` + first on.
template <int D, class Shared>
__device__ __forceinline__ void lay_down(const Sums<D> &sums, int first, int end, float scale, Shared &shared, int slot, int base) {
  const int lane = int(threadIdx.x) & 31;
#pragma unroll
  for (int row = 0; row < 2; row++) {
    const int m = (lane >> 2) + 8 * row;
    const float total = sum_of_four(sums.total[row]);
    if (m < first || m >= end) continue;
    if ((lane & 3) == 0) shared.peaks[slot][base + m] = sums.peak[row] * scale, shared.totals[slot][base + m] = total;
#pragma unroll
    for (int n = 0; n < D / 8; n++)
      *reinterpret_cast<float2 *>(shared.sum_at(slot, base + m, 8 * n + 2 * (lane & 3))) = make_float2(sums.out[n][2 * row], sums.out[n][2 * row + 1]);
  }
}

// Adds what a strip's values give by its scores, once they are here; then the strip is free.
template <int D>
__device__ __forceinline__ void add_values(Sums<D> &sums, float (&scores)[kStrip / 8][4], const bf16 *values, int lane, float scale) {
  soften<D, kStrip>(scores, sums, scale);
  uint32_t weights[kStrip / 16][4];
  as_left_operand<kStrip>(weights, scores);
  wait_copies<1>();
  __syncwarp();
  add_weighted_rows<D, kStrip>(sums.out, weights, values, 0, lane);
  __syncwarp();
}

// A warp's sums over its strips, from key `first` on, one every `step` keys; they are left in shared memory. The next keys are on their way while
// the values are used, and the next values while the keys are.
template <int D, int Warps>
__device__ __forceinline__ void attend_strips(const AttentionShape &shape, const Rows &rows, int first, int step, const bf16 *q, const bf16 *k,
                                              const bf16 *v, float scale, Sums<D> &sums, Strips<D, Warps> &shared) {
  const int lane = int(threadIdx.x) & 31, warp = int(threadIdx.x) >> 5, width = shape.kv_width();
  bf16 *const keys = shared.strips[warp][0], *const values = shared.strips[warp][1];
  Passes pass(shape.context, rows, 0, 0, rows.count, first + warp * kStrip, step);
  bool more = pass.next();
  const bool any = more;
  int slot = more ? pass.slot(shape) : -1;
  after_kernels_before(); // what rows see is the host's to say, and read; all else is not
  copy_queries<D, Warps>(shape, rows, 0, rows.count, q, shared.queries);
  if (more) copy_strip<D>(keys, k, slot, width);
  close_copies();
  if (more) copy_strip<D>(values, v, slot, width);
  close_copies();
  wait_copies<1>();
  __syncthreads(); // the queries are every warp's
  const int one = (lane >> 2) / rows.heads, two = ((lane >> 2) + 8) / rows.heads; // this lane's rows
  while (more) {
    wait_copies<1>(); // the keys
    __syncwarp();
    float scores[kStrip / 8][4] = {};
    add_inner_products<D, kStrip>(scores, shared.queries, 0, keys, 0, lane);
    const int at = pass.first, begin = pass.begin, end = pass.end, length = pass.length();
    more = pass.next();
    slot = more ? pass.slot(shape) : -1;
    __syncwarp();
    if (more) copy_strip<D>(keys, k, slot, width);
    close_copies();
    if (at + kStrip > length || end - begin < rows.count) {
      const int seen[2] = {one >= begin && one < end ? length : 0, two >= begin && two < end ? length : 0};
      mask<kStrip>(scores, seen, at, lane);
    }
    add_values<D>(sums, scores, values, lane, scale);
    if (more) copy_strip<D>(values, v, slot, width);
    close_copies();
  }
  wait_copies<0>(); // the strips are written anew
  __syncwarp();
  if (any) lay_down<D>(sums, 0, rows.count * rows.heads, scale, shared, warp, 0);
}

} // namespace arbor
