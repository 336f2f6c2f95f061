// What the attention kernels share: the plan of segments (ops.ts, AttentionPlan), its rows as tiles see them, copies of rows into tiles.
//
// Tiles hold packed rows: the heads that share a key head lie beside one another, row r of a segment is query r / group, head r % group of
// the group. So a tile of many rows spans few queries, and most of the keys that it reads are seen by all of them.
#pragma once

#include "mma.cuh"

namespace arbor {

struct Segment {
  int32_t row_start, row_count, context_start, context_length;

  // Entries of the context that query i sees.
  __host__ __device__ int seen(int query) const { return context_length - row_count + query + 1; }
  // The first query that sees an entry.
  __host__ __device__ int seer(int entry) const {
    const int query = entry - context_length + row_count;
    return query > 0 ? query : 0;
  }
};

struct AttentionShape {
  const int32_t *segments, *context; // in device memory: their values may change between replays of a launch
  int segment_count, context_capacity, tokens, slots, heads, kv_heads, dim;
  uint32_t group_reciprocal; // 2^32 / group, rounded up; 0 for a group of one
  Fault *fault;

  __host__ __device__ int group() const { return heads / kv_heads; }
  __host__ __device__ int kv_width() const { return kv_heads * dim; }
};

// False, and reported, when the segment does not fit.
__device__ __forceinline__ bool read_segment(const AttentionShape &shape, int s, Segment &segment) {
  const int32_t *at = shape.segments + 4 * int64_t(s);
  segment = {at[0], at[1], at[2], at[3]};
  const int64_t row_end = int64_t(segment.row_start) + segment.row_count,
                context_end = int64_t(segment.context_start) + segment.context_length;
  if (segment.row_start < 0 || segment.row_count < 0 || row_end > shape.tokens)
    report(shape.fault, kFaultAttention, segment.row_start < 0 ? segment.row_start : row_end, shape.tokens);
  else if (segment.context_start < 0 || segment.context_length < segment.row_count || context_end > shape.context_capacity)
    report(shape.fault, kFaultAttention, segment.context_start < 0 ? segment.context_start : context_end, shape.context_capacity);
  else
    return true;
  segment = {0, 0, 0, 0};
  return false;
}

// -1, and reported, when there is no such slot.
__device__ __forceinline__ int checked_slot(const AttentionShape &shape, int slot) {
  if (unsigned(slot) < unsigned(shape.slots)) return slot;
  report(shape.fault, kFaultAttention, slot, shape.slots);
  return -1;
}

// Packed rows [first, first + count) of a segment under one key head.
struct PackedRows {
  int first, count, row_start, unseen, heads, group, head; // unseen: what query 0 sees, less 1; head: the group's first
  uint32_t reciprocal;

  __host__ __device__ PackedRows(const AttentionShape &shape, const Segment &segment, int kv_head, int first_row, int most)
      : first(first_row), row_start(segment.row_start), unseen(segment.context_length - segment.row_count), heads(shape.heads),
        group(shape.group()), head(kv_head * shape.group()), reciprocal(shape.group_reciprocal) {
    const int left = segment.row_count * group - first;
    count = left < most ? left : most;
  }

  // Exact, as attention_shape() lets no more rows in.
  __host__ __device__ int query(int r) const { return reciprocal == 0 ? first + r : int(uint64_t(uint32_t(first + r)) * reciprocal >> 32); }
  // Its row in [tokens * heads].
  __host__ __device__ int at(int r) const {
    return row_start * heads + head + first + r + query(r) * (heads - group);
  }
  // Entries of the context that it sees; past the end, those of the last row.
  __host__ __device__ int seen(int r) const { return unseen + query(r < count ? r : count - 1) + 1; }
};

// Where tiles of Rows rows keep the piece `piece` of row `row`: for warps by themselves as they read it best (mma.cuh), for four warps together in
// panels of 64 columns, one behind the other.
template <int D, int Rows> struct Whole {
  static constexpr int kPitch = D; // from a row to the next
  static __host__ __device__ constexpr int at(int row, int piece) { return tile_at<D>(row, piece); }
};
template <int D, int Rows> struct Panels {
  static constexpr int kPitch = 64;
  static __host__ __device__ constexpr int at(int row, int piece) { return piece / 8 * Rows * 64 + tile_at<64>(row, piece % 8); }
};

// Layout::at(row + i * Step, piece), said so that where steps are whole eights of rows all addresses are one and a constant.
template <class Layout, int D, int Step> __device__ __forceinline__ int stepped(int row, int i, int piece) {
  if (Step % 8 != 0) return Layout::at(row + i * Step, piece);
  return Layout::at(row, piece) + i * Step * Layout::kPitch;
}

// Copies packed rows into tiles of `Rows`; those past the end are zeros. Queries and what belongs to their outputs lie alike, so places are found once.
template <int D, int Rows, int Threads, class Layout = Whole<D, Rows>> struct RowCopies {
  static constexpr int kPieces = D / 8, kRows = Threads / kPieces, kSteps = (Rows + kRows - 1) / kRows;

  int row, piece, at[kSteps]; // -1: past the end

  __device__ __forceinline__ RowCopies(const PackedRows &rows, int thread) : row(int(unsigned(thread) / kPieces)), piece(int(unsigned(thread) % kPieces)) {
#pragma unroll
    for (int i = 0; i < kSteps; i++) at[i] = row + i * kRows < rows.count ? rows.at(row + i * kRows) : -1;
  }
  __device__ __forceinline__ void copy(bf16 *tile, const bf16 *from) const {
    from += piece * 8;
#pragma unroll
    for (int i = 0; i < kSteps; i++) {
      if (Rows % kRows != 0 && row + i * kRows >= Rows) break;
      copy_piece(tile + stepped<Layout, D, kRows>(row, i, piece), from + int64_t(max(at[i], 0)) * D, at[i] >= 0);
    }
  }
};

// Copies the rows of keys or values that a context lists into tiles of `Keys`; entries from `length` on are zeros. The slots are read a
// block ahead and looked at only when it is their turn, as the copies' addresses wait for them.
template <int D, int Keys, int Threads, class Layout = Whole<D, Keys>> struct KeyCopies {
  static constexpr int kPieces = D / 8, kRows = Threads / kPieces, kSteps = (Keys + kRows - 1) / kRows, kNone = -0x7fffffff - 1;

  const AttentionShape &shape;
  const int32_t *entries;
  int length, row, piece, slots[kSteps];

  __device__ __forceinline__ KeyCopies(const AttentionShape &of, const int32_t *context, int count, int thread)
      : shape(of), entries(context), length(count), row(int(unsigned(thread) / kPieces)), piece(int(unsigned(thread) % kPieces)) {}

  __device__ __forceinline__ void read_slots(int first) {
#pragma unroll
    for (int i = 0; i < kSteps; i++) {
      const int key = first + row + i * kRows;
      slots[i] = key < length && row + i * kRows < Keys ? entries[key] : kNone;
    }
  }
  // Reports slots that there are not, and takes them for none.
  __device__ __forceinline__ void check_slots() {
    int wrong = kNone;
#pragma unroll
    for (int i = 0; i < kSteps; i++)
      if (unsigned(slots[i]) >= unsigned(shape.slots)) wrong = max(wrong, slots[i]), slots[i] = kNone;
    if (wrong != kNone) report(shape.fault, kFaultAttention, wrong, shape.slots);
  }
  // `k` and `v`: from the head's first number on.
  __device__ __forceinline__ void copy(bf16 *keys, const bf16 *k, bf16 *values, const bf16 *v) const {
#pragma unroll
    for (int i = 0; i < kSteps; i++) {
      if (Keys % kRows != 0 && row + i * kRows >= Keys) break;
      const bool valid = slots[i] >= 0;
      const int64_t from = int64_t(max(slots[i], 0)) * shape.kv_width() + piece * 8;
      const int to = stepped<Layout, D, kRows>(row, i, piece);
      copy_piece(keys + to, k + from, valid), copy_piece(values + to, v + from, valid);
    }
  }
};

} // namespace arbor
