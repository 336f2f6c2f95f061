// What attention and its gradient share: the plan of segments (ops.ts, AttentionPlan) and the rows of a task as pointers.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "attention_tiles.h"
#include "stream.h"

namespace arbor {

struct Segment {
  int32_t row_start, row_count, context_start, context_length;
};

struct AttentionShape {
  const Segment *segments;
  const int32_t *context;
  int64_t segment_count, context_capacity, tokens, slots, heads, kv_heads, dim;

  int64_t group() const { return heads / kv_heads; }
  int64_t q_width() const { return heads * dim; }
  int64_t kv_width() const { return kv_heads * dim; }
  float scale() const { return 1 / std::sqrt(float(dim)); }
  // Entries of the context that query i of a segment sees.
  int64_t visible(const Segment &s, int64_t query) const { return s.context_length - s.row_count + query + 1; }
  int64_t rows() const {
    int64_t sum = 0;
    for (int64_t s = 0; s < segment_count; s++) sum += segments[s].row_count;
    return sum;
  }

  bool sizes_valid() const {
    return segment_count >= 0 && context_capacity >= 0 && tokens >= 0 && slots >= 0 && kv_heads > 0 && heads > 0 &&
           heads % kv_heads == 0 && dim > 0;
  }

  // On the stream's thread: the segments lie in device memory.
  void check() const {
    for (int64_t s = 0; s < segment_count; s++) {
      const Segment &g = segments[s];
      if (g.row_start < 0 || g.row_count < 0 || g.row_start + int64_t(g.row_count) > tokens || g.context_start < 0 ||
          g.context_length < g.row_count || g.context_start + int64_t(g.context_length) > context_capacity)
        throw std::out_of_range("segment " + std::to_string(s) + " (rowStart " + std::to_string(g.row_start) + ", rowCount " +
                                std::to_string(g.row_count) + ", contextStart " + std::to_string(g.context_start) +
                                ", contextLength " + std::to_string(g.context_length) + ") does not fit");
      for (int64_t j = 0; j < g.context_length; j++) require_index(context[g.context_start + j], slots, "slot");
    }
  }
};

// Rows of a task: queries x the heads that share a key head. A thread keeps its vectors from task to task.
struct AttentionRows {
  static constexpr int64_t kChunk = 8 * kTileRows; // rows whose scores are kept at a time

  std::vector<const float *> q, d_out, saved_out;
  std::vector<float *> out;                        // out, or dq in the gradient
  std::vector<int64_t> limit, at;                  // visible context entries; index into [tokens, heads]
  std::vector<float> peak, total, lse, delta;
  alignas(64) float scores[kChunk * kBlock], other[kChunk * kBlock];
  const float *keys[kBlock], *values[kBlock];

  int64_t count() const { return int64_t(limit.size()); }

  void clear() { limit.clear(), at.clear(), q.clear(), out.clear(), d_out.clear(), saved_out.clear(); }

  // Queries [first, first + count) of a segment under one key head.
  void add(const AttentionShape &shape, const Segment &segment, int64_t kv_head, int64_t first, int64_t count) {
    const int64_t group = shape.group();
    for (int64_t query = first; query < first + count; query++)
      for (int64_t h = 0; h < group; h++) {
        at.push_back((segment.row_start + query) * shape.heads + kv_head * group + h);
        limit.push_back(shape.visible(segment, query));
      }
  }

  template <class Pointer> void point(std::vector<Pointer> &to, Pointer base, int64_t dim) {
    to.resize(at.size());
    for (size_t i = 0; i < at.size(); i++) to[i] = base + at[i] * dim;
  }

  // Keys and values of `count` slots.
  void point_at_keys(const AttentionShape &shape, const int32_t *slots, int64_t count, int64_t kv_head, const float *k, const float *v) {
    for (int64_t j = 0; j < count; j++) {
      const int64_t from = slots[j] * shape.kv_width() + kv_head * shape.dim;
      keys[j] = k + from, values[j] = v + from;
    }
  }

  // How many of a block's `keys` the rows up to `end` of a task see: later rows see more.
  int64_t seen(int64_t end, int64_t first, int64_t keys_here) const { return std::min(keys_here, limit[size_t(end - 1)] - first); }
};

} // namespace arbor
