// Softmax attention over a plan of segments, grouped heads (its gradient: attention_backward.cpp). Keys pass in blocks of 64 counted from the
// first entry of a row's context, with the running maximum of flash attention (Dao et al., 2022), so a row's sums have one order whether
// it is computed as prefill, decode or part of a packed tree, alone or beside others. Rows that read the same block share its packing.

#include <atomic>
#include <cstring>

#include "attention_shape.h"
#include "pool.h"

namespace arbor {
namespace {

constexpr float kMasked = -1e30f; // its exponential is exactly 0
constexpr int64_t kLeastRows = 24, kMostRows = 192;

std::atomic<int64_t> shared_blocks{0};

// Some queries of one segment, or several segments of one query each, under one key head.
struct Task {
  const Segment *segments;
  int64_t segment_count, kv_head, first, queries;
};

// Few large tasks pack less, many small ones keep all threads busy. Which rows share a task never changes what they get.
void make_tasks(const AttentionShape &shape, std::vector<Task> &tasks) {
  const int64_t wanted = shape.rows() * shape.heads / (4 * int64_t(thread_count()));
  const int64_t step = std::max<int64_t>(1, std::min(kMostRows, std::max(kLeastRows, wanted)) / shape.group());
  const auto for_all_heads = [&](Task task) {
    for (task.kv_head = 0; task.kv_head < shape.kv_heads; task.kv_head++) tasks.push_back(task);
  };
  tasks.clear();
  for (int64_t s = 0; s < shape.segment_count;) {
    const Segment *segment = shape.segments + s;
    int64_t single = 0; // segments of one query from here on
    while (single < step && s + single < shape.segment_count && segment[single].row_count == 1) single++;
    if (single > 0) for_all_heads({segment, single, 0, 0, 1});
    for (int64_t first = 0; single == 0 && first < segment->row_count; first += step)
      for_all_heads({segment, 1, 0, first, std::min(step, segment->row_count - first)});
    s += std::max<int64_t>(1, single);
  }
}

// Rows [begin, end) of a task read the same `keys` slots.
struct Part {
  int64_t begin, end, keys;
  const int32_t *slots;
};

// The next part from row `begin` on, in the block that starts at entry `first` of the rows' contexts; its `end` is 0 when there is none.
Part next_part(const AttentionShape &shape, const Task &task, const std::vector<int64_t> &limit, int64_t first, int64_t begin) {
  const int64_t rows = int64_t(limit.size()), each = task.queries * shape.group();
  while (begin < rows && limit[size_t(begin)] <= first) begin++;
  if (begin == rows) return {};
  const auto keys_of = [&](int64_t segment) { return std::min(kBlock, limit[size_t((segment + 1) * each - 1)] - first); };
  const auto slots_of = [&](int64_t segment) { return shape.context + task.segments[segment].context_start + first; };
  const int64_t own = begin / each, keys = keys_of(own);
  int64_t next = own + 1;
  while (next < task.segment_count && keys_of(next) == keys && !std::memcmp(slots_of(next), slots_of(own), size_t(keys) * sizeof(int32_t)))
    next++;
  if (next > own + 1) shared_blocks.fetch_add(next - own - 1, std::memory_order_relaxed);
  return {begin, next * each, keys, slots_of(own)};
}

ARBOR_INLINE void multiply_row(float *row, int64_t dim, float by) {
  int64_t d = 0;
  for (; d + kLanes <= dim; d += kLanes) store(row + d, load(row + d) * by);
  for (; d < dim; d++) row[d] *= by;
}

// Masks a row's scores past the `count` that it sees, up to `width`, and raises its peak to the largest.
ARBOR_INLINE float masked_peak(float *scores, int64_t count, int64_t width, float scale, float peak) {
  for (int64_t j = count; j < width; j++) scores[j] = kMasked;
  vf best = splat(kMasked);
  for (int64_t j = 0; j < width; j += kLanes) best = max(best, load(scores + j));
  return std::max(peak, max_lanes(best) * scale);
}

// Scores of the block become weights, for rows [begin, end) whose scores start at `scores`; outputs and totals so far shrink to the new peaks.
void soften(const AttentionShape &shape, AttentionRows &rows, int64_t begin, int64_t end, int64_t first, int64_t width) {
  alignas(64) float peak[AttentionRows::kChunk], shrink[AttentionRows::kChunk];
  const float scale = shape.scale();
  for (int64_t r = begin; r < end; r++) {
    float *scores = rows.scores + (r - begin) * kBlock;
    peak[r - begin] = masked_peak(scores, std::min(width, rows.limit[size_t(r)] - first), width, scale, rows.peak[size_t(r)]);
  }
  for (int64_t r = 0; r < end - begin; r += kLanes) store(shrink + r, exp(load(rows.peak.data() + begin + r) - load(peak + r)));
  for (int64_t r = begin; r < end; r++) {
    float *scores = rows.scores + (r - begin) * kBlock;
    vf sum{};
    for (int64_t j = 0; j < width; j += kLanes) {
      const vf weight = exp(load(scores + j) * scale - peak[r - begin]);
      store(scores + j, weight);
      sum += weight;
    }
    const float by = shrink[r - begin];
    rows.peak[size_t(r)] = peak[r - begin];
    rows.total[size_t(r)] = rows.total[size_t(r)] * by + sum_lanes(sum);
    if (by != 1) multiply_row(rows.out[size_t(r)], shape.dim, by);
  }
}

void attend_part(const AttentionShape &shape, AttentionRows &rows, const Part &part, int64_t first, const float *packed) {
  for (int64_t begin = part.begin; begin < part.end; begin += AttentionRows::kChunk) {
    const int64_t end = std::min(part.end, begin + AttentionRows::kChunk);
    for (int64_t r = begin; r < end; r += kTileRows) {
      const int64_t count = std::min(kTileRows, end - r), seen = rows.seen(r + count, first, part.keys);
      scores_of_tile(rows.scores + (r - begin) * kBlock, rows.q.data() + r, count, packed, seen, shape.dim);
    }
    soften(shape, rows, begin, end, first, whole_keys(rows.seen(end, first, part.keys)));
    for (int64_t r = begin; r < end; r += kTileRows) {
      const int64_t count = std::min(kTileRows, end - r), seen = rows.seen(r + count, first, part.keys);
      add_weighted_to_tile(rows.out.data() + r, count, rows.scores + (r - begin) * kBlock, kBlock, 1, rows.values, seen, shape.dim);
    }
  }
}

struct Tensors {
  const float *q, *k, *v;
  float *out, *lse;
};

void attend(const AttentionShape &shape, const Task &task, const Tensors &t) {
  static thread_local AttentionRows rows;
  rows.clear();
  for (int64_t s = 0; s < task.segment_count; s++) rows.add(shape, task.segments[s], task.kv_head, task.first, task.queries);
  rows.point(rows.q, t.q, shape.dim), rows.point(rows.out, t.out, shape.dim);
  const size_t count = rows.at.size();
  rows.peak.assign(count + kLanes, kMasked), rows.total.assign(count, 0); // read in whole vectors
  for (float *row : rows.out) std::fill_n(row, shape.dim, 0.0f);
  float *packed = scratch(0, shape.dim * kBlock);
  const int64_t last = *std::max_element(rows.limit.begin(), rows.limit.end());
  for (int64_t first = 0; first < last; first += kBlock)
    for (Part part = next_part(shape, task, rows.limit, first, 0); part.end > 0;
         part = next_part(shape, task, rows.limit, first, part.end)) {
      rows.point_at_keys(shape, part.slots, part.keys, task.kv_head, t.k, t.v);
      pack_block(packed, rows.keys, part.keys, shape.dim);
      attend_part(shape, rows, part, first, packed);
    }
  for (size_t i = 0; i < count; i++) {
    multiply_row(rows.out[i], shape.dim, 1 / rows.total[i]);
    if (t.lse) t.lse[rows.at[i]] = rows.peak[i] + std::log(rows.total[i]);
  }
}

} // namespace
} // namespace arbor

int32_t arbor_attention(arbor_stream *stream, int32_t type, void *out, float *lse, const void *q, const void *k, const void *v,
                        const int32_t *segments, const int32_t *context, int64_t segment_count, int64_t context_capacity,
                        int64_t tokens, int64_t slot_count, int64_t heads, int64_t kv_heads, int64_t head_dim, int32_t /* decode */,
                        int32_t /* same_plan */) {
  using namespace arbor;
  const AttentionShape shape = {reinterpret_cast<const Segment *>(segments), context, segment_count, context_capacity, tokens,
                                slot_count, heads, kv_heads, head_dim};
  const Tensors tensors = {static_cast<const float *>(q), static_cast<const float *>(k), static_cast<const float *>(v),
                           static_cast<float *>(out), lse};
  return enqueue(stream, "arbor_attention", type, given(out, q, k, v, segments, context) && shape.sizes_valid(), [=] {
    static thread_local std::vector<Task> kept;
    shape.check();
    make_tasks(shape, kept);
    const Task *tasks = kept.data();
    parallel_for(int64_t(kept.size()), [=](int64_t t) { attend(shape, tasks[t], tensors); });
  });
}

int64_t arbor_attention_shared_blocks(void) { return arbor::shared_blocks.load(); }
