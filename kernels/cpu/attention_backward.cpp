// Gradient of softmax attention in one pass over the scores: p and ds of a block are computed once and go into dq, dk and dv. Queries are cut
// into portions by the plan alone; each sums dk and dv over the slots it sees in memory of its own, and the portions are then added in
// order. So nothing depends on the number of threads, and a segment's own keys not on the segments beside it.

#include "attention_shape.h"
#include "pool.h"

namespace arbor {
namespace {

constexpr int64_t kPortionQueries = 256;
constexpr int64_t kPartialFloats = 16 << 20; // partial sums kept at a time; further portions wait for the next wave

struct Tensors {
  const float *q, *k, *v, *out, *d_out, *lse;
  float *dq, *dk, *dv;
};

// At most kPortionQueries queries of a segment. Entry j of its context is number local[j] of its portion's slots.
struct Piece {
  const Segment *segment;
  int64_t first, queries, local_at;
};

// Consecutive pieces [first, last) whose dk and dv are summed together, over slots[slots_at ...].
struct Portion {
  int64_t first, last, slots_at, slot_count;
  float *partial; // [kv_heads][slot_count][dk, dv][dim]
};

struct Plan {
  std::vector<Piece> pieces;
  std::vector<Portion> portions;
  std::vector<int32_t> slots, local, number_of_slot;

  void make(const AttentionShape &shape) {
    pieces.clear(), portions.clear(), slots.clear(), local.clear();
    number_of_slot.assign(size_t(shape.slots), -1);
    int64_t queries = kPortionQueries + 1; // of the portion so far; full
    for (int64_t s = 0; s < shape.segment_count; s++) {
      const Segment &segment = shape.segments[s];
      for (int64_t first = 0; first < segment.row_count; first += kPortionQueries) {
        const int64_t count = std::min<int64_t>(kPortionQueries, segment.row_count - first);
        // A segment of several pieces shares no portion with another: its sums don't depend on what is beside it.
        if (first > 0 || queries + segment.row_count > kPortionQueries) open_portion(), queries = 0;
        add_piece(shape, {&segment, first, count, int64_t(local.size())});
        queries += count;
        if (segment.row_count > kPortionQueries) queries = kPortionQueries;
      }
    }
    if (!portions.empty()) close_portion();
  }

private:
  void close_portion() {
    Portion &portion = portions.back();
    portion.last = int64_t(pieces.size());
    portion.slot_count = int64_t(slots.size()) - portion.slots_at;
    for (size_t i = size_t(portion.slots_at); i < slots.size(); i++) number_of_slot[size_t(slots[i])] = -1;
  }
  void open_portion() {
    if (!portions.empty()) close_portion();
    portions.push_back({int64_t(pieces.size()), 0, int64_t(slots.size()), 0, nullptr});
  }
  void add_piece(const AttentionShape &shape, const Piece &piece) {
    const int32_t *context = shape.context + piece.segment->context_start;
    const int64_t seen = shape.visible(*piece.segment, piece.first + piece.queries - 1);
    for (int64_t j = 0; j < seen; j++) {
      int32_t &number = number_of_slot[size_t(context[j])];
      if (number < 0) number = int32_t(int64_t(slots.size()) - portions.back().slots_at), slots.push_back(context[j]);
      local.push_back(number);
    }
    pieces.push_back(piece);
  }
};

// to[r] = Σ a[r] b[r], summed as the scores are: where a row sees one key only, dp − delta is exactly 0.
void inner_products(float *to, const float *const *a, const float *const *b, int64_t count, int64_t dim) {
  for (int64_t r = 0; r < count; r += 8) { // side by side, as each sum is a chain
    const int64_t n = std::min<int64_t>(8, count - r);
    float sum[8] = {};
    for (int64_t d = 0; d < dim; d++)
      for (int64_t i = 0; i < n; i++) sum[i] = fma(a[r + i][d], b[r + i][d], sum[i]);
    std::copy_n(sum, n, to + r);
  }
}

// p = exp(s − lse) in `scores`; ds = p (dp − delta) · scale in `other`, where it held dp. Past `count` both are 0.
ARBOR_INLINE void score_gradients(float *scores, float *other, int64_t count, int64_t width, float scale, float lse, float delta) {
  for (int64_t j = 0; j < count; j += kLanes) {
    const vf weight = exp(load(scores + j) * scale - lse);
    store(scores + j, weight);
    store(other + j, weight * (load(other + j) - delta) * scale);
  }
  for (int64_t j = count; j < width; j++) scores[j] = other[j] = 0;
}

// One block of keys of one piece: where its sums go, and the packed keys and values.
struct Block {
  int64_t first, keys;
  const float *packed_keys, *packed_values;
  mutable float *dk[kBlock], *dv[kBlock];
};

// Rows [begin, end), whose scores fit.
void chunk_gradients(const AttentionShape &shape, AttentionRows &rows, const Block &block, int64_t begin, int64_t end) {
  const int64_t width = whole_keys(rows.seen(end, block.first, block.keys));
  for (int64_t r = begin; r < end; r += kTileRows) {
    const int64_t count = std::min(kTileRows, end - r), at = (r - begin) * kBlock, seen = rows.seen(r + count, block.first, block.keys);
    scores_of_tile(rows.scores + at, rows.q.data() + r, count, block.packed_keys, seen, shape.dim);
    scores_of_tile(rows.other + at, rows.d_out.data() + r, count, block.packed_values, seen, shape.dim);
    for (int64_t i = r; i < r + count; i++) {
      const int64_t own = rows.seen(i + 1, block.first, block.keys), to = (i - begin) * kBlock;
      score_gradients(rows.scores + to, rows.other + to, own, width, shape.scale(), rows.lse[size_t(i)], rows.delta[size_t(i)]);
    }
    add_weighted_to_tile(rows.out.data() + r, count, rows.other + at, kBlock, 1, rows.keys, seen, shape.dim);
  }
  int64_t from = begin; // rows before it don't see the tile's keys
  for (int64_t j = 0, seen = rows.seen(end, block.first, block.keys); j < seen; j += kTileRows) {
    const int64_t count = std::min(kTileRows, seen - j);
    while (rows.limit[size_t(from)] - block.first <= j) from++;
    add_weighted_to_tile(block.dv + j, count, rows.scores + (from - begin) * kBlock + j, 1, kBlock,
                         rows.d_out.data() + from, end - from, shape.dim);
    add_weighted_to_tile(block.dk + j, count, rows.other + (from - begin) * kBlock + j, 1, kBlock,
                         rows.q.data() + from, end - from, shape.dim);
  }
}

void gather(const AttentionShape &shape, AttentionRows &rows, const Piece &piece, int64_t kv_head, const Tensors &t) {
  rows.clear();
  rows.add(shape, *piece.segment, kv_head, piece.first, piece.queries);
  rows.point(rows.q, t.q, shape.dim), rows.point(rows.d_out, t.d_out, shape.dim);
  rows.point(rows.saved_out, t.out, shape.dim), rows.point(rows.out, t.dq, shape.dim);
  const size_t count = rows.at.size();
  rows.delta.resize(count), rows.lse.resize(count);
  inner_products(rows.delta.data(), rows.d_out.data(), rows.saved_out.data(), int64_t(count), shape.dim);
  for (size_t r = 0; r < count; r++) {
    rows.lse[r] = t.lse[rows.at[r]];
    std::fill_n(rows.out[r], shape.dim, 0.0f);
  }
}

// Gradients of one piece under one key head; `partial` is the portion's, of this head.
void piece_gradients(const AttentionShape &shape, const Piece &piece, const int32_t *local, int64_t kv_head, const Tensors &t, float *partial) {
  static thread_local AttentionRows rows;
  gather(shape, rows, piece, kv_head, t);
  float *packed = scratch(0, 2 * shape.dim * kBlock);
  const int64_t count = rows.count(), last = rows.limit.back();
  int64_t from = 0; // rows before it see nothing of the block
  for (Block block = {0, 0, packed, packed + shape.dim * kBlock, {}, {}}; block.first < last; block.first += kBlock) {
    block.keys = std::min(kBlock, last - block.first);
    rows.point_at_keys(shape, shape.context + piece.segment->context_start + block.first, block.keys, kv_head, t.k, t.v);
    pack_block(packed, rows.keys, block.keys, shape.dim);
    pack_block(packed + shape.dim * kBlock, rows.values, block.keys, shape.dim);
    for (int64_t j = 0; j < block.keys; j++) {
      block.dk[j] = partial + 2 * shape.dim * local[block.first + j];
      block.dv[j] = block.dk[j] + shape.dim;
    }
    while (rows.limit[size_t(from)] <= block.first) from++;
    for (int64_t begin = from; begin < count; begin += AttentionRows::kChunk)
      chunk_gradients(shape, rows, block, begin, std::min(count, begin + AttentionRows::kChunk));
  }
}

// dk and dv of slots [begin, end) += those of portions [first, last), in order.
void add_portions(const AttentionShape &shape, const Plan &plan, int64_t first, int64_t last, int64_t begin, int64_t end, const Tensors &t) {
  for (int64_t p = first; p < last; p++) {
    const Portion &portion = plan.portions[size_t(p)];
    for (int64_t i = 0; i < portion.slot_count; i++) {
      const int64_t slot = plan.slots[size_t(portion.slots_at + i)];
      if (slot < begin || slot >= end) continue;
      for (int64_t h = 0; h < shape.kv_heads; h++) {
        const float *from = portion.partial + (h * portion.slot_count + i) * 2 * shape.dim;
        const int64_t to = slot * shape.kv_width() + h * shape.dim;
        for (int64_t d = 0; d < shape.dim; d++) t.dk[to + d] += from[d];
        for (int64_t d = 0; d < shape.dim; d++) t.dv[to + d] += from[shape.dim + d];
      }
    }
  }
}

// The portions from `first` on whose sums fit into memory together, at least one; returns the end and gives each its part of `memory`.
int64_t next_wave(const AttentionShape &shape, Plan &plan, int64_t first) {
  const auto floats = [&](int64_t p) { return 2 * plan.portions[size_t(p)].slot_count * shape.kv_width(); };
  const int64_t count = int64_t(plan.portions.size());
  int64_t last = first, sum = 0;
  while (last < count && (last == first || sum + floats(last) <= kPartialFloats)) sum += floats(last++);
  float *next = scratch(3, sum);
  for (int64_t p = first; p < last; p++) plan.portions[size_t(p)].partial = next, next += floats(p);
  return last;
}

void zero(float *to, int64_t count) {
  parallel_ranges(count, 1, [=](int64_t begin, int64_t end) { std::fill(to + begin, to + end, 0.0f); });
}

void attention_backward(const AttentionShape &shape, const Tensors &t) {
  static thread_local Plan kept;
  Plan &plan = kept; // of this thread, for all
  plan.make(shape);
  if (shape.rows() < shape.tokens) zero(t.dq, shape.tokens * shape.q_width()); // rows of no segment
  zero(t.dk, shape.slots * shape.kv_width());
  zero(t.dv, shape.slots * shape.kv_width());
  for (int64_t first = 0, last; first < int64_t(plan.portions.size()); first = last) {
    last = next_wave(shape, plan, first);
    parallel_for((last - first) * shape.kv_heads, [&](int64_t i) {
      const Portion &portion = plan.portions[size_t(first + i / shape.kv_heads)];
      const int64_t head = i % shape.kv_heads, size = portion.slot_count * 2 * shape.dim;
      float *partial = portion.partial + head * size;
      std::fill_n(partial, size, 0.0f);
      for (int64_t p = portion.first; p < portion.last; p++) {
        const Piece &piece = plan.pieces[size_t(p)];
        piece_gradients(shape, piece, plan.local.data() + piece.local_at, head, t, partial);
      }
    });
    parallel_ranges(shape.slots, 4 * shape.kv_width(),
                    [&](int64_t begin, int64_t end) { add_portions(shape, plan, first, last, begin, end, t); });
  }
}

} // namespace
} // namespace arbor

int32_t arbor_attention_backward(arbor_stream *stream, int32_t type, void *dq, void *dk, void *dv, const void *d_out, const void *out,
                                 const void *q, const void *k, const void *v, const float *lse, const int32_t *segments,
                                 const int32_t *context, int64_t segment_count, int64_t context_capacity, int64_t tokens,
                                 int64_t slot_count, int64_t heads, int64_t kv_heads, int64_t head_dim, int32_t /* same_plan */) {
  using namespace arbor;
  const AttentionShape shape = {reinterpret_cast<const Segment *>(segments), context, segment_count, context_capacity, tokens,
                                slot_count, heads, kv_heads, head_dim};
  const bool valid = given(dq, dk, dv, d_out, out, q, k, v, lse, segments, context) && shape.sizes_valid();
  const auto floats = [](const void *p) { return static_cast<const float *>(p); };
  const Tensors tensors = {floats(q), floats(k), floats(v), floats(out), floats(d_out), lse,
                           static_cast<float *>(dq), static_cast<float *>(dk), static_cast<float *>(dv)};
  return enqueue(stream, "arbor_attention_backward", type, valid, [=] {
    shape.check();
    attention_backward(shape, tensors);
  });
}
