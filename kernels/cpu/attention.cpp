// Softmax attention over a plan of segments (ops.ts, AttentionPlan), grouped heads, and its gradient. Keys pass in blocks of 64 counted from
// the first entry of a row's context, with the running maximum of flash attention (Dao et al., 2022), so a row's sums have one order
// whether it is computed as prefill, decode or part of a packed tree. Rows of a task: queries x the heads that share a key head.

#include <algorithm>
#include <cmath>
#include <vector>

#include "attention_tiles.h"
#include "pool.h"
#include "stream.h"

namespace arbor {
namespace {

constexpr int64_t kBlock = 64;     // keys at a time
constexpr int64_t kTaskRows = 48;  // query rows of a task, at least one query
constexpr float kMasked = -1e30f;  // its exponential is exactly 0

struct Segment {
  int32_t row_start, row_count, context_start, context_length;
};

struct Shape {
  const Segment *segments;
  const int32_t *context;
  int64_t segment_count, context_capacity, tokens, slots, heads, kv_heads, dim;

  int64_t group() const { return heads / kv_heads; }
  int64_t q_width() const { return heads * dim; }
  int64_t kv_width() const { return kv_heads * dim; }
  float scale() const { return 1 / std::sqrt(float(dim)); }
  // Entries of the context that query i of a segment sees.
  int64_t visible(const Segment &s, int64_t query) const { return s.context_length - s.row_count + query + 1; }

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

// Some queries of a segment under one key head. Row r is query first + r / group, head kv_head * group + r % group.
struct Task {
  const Segment *segment;
  int64_t kv_head, first, queries;
};

std::vector<Task> make_tasks(const Shape &shape) {
  const int64_t step = std::max<int64_t>(1, kTaskRows / shape.group());
  std::vector<Task> tasks;
  for (int64_t s = 0; s < shape.segment_count; s++)
    for (int64_t first = 0; first < shape.segments[s].row_count; first += step)
      for (int64_t h = 0; h < shape.kv_heads; h++)
        tasks.push_back({&shape.segments[s], h, first, std::min(step, shape.segments[s].row_count - first)});
  return tasks;
}

// What a task's rows need, gathered as pointers; a thread keeps its vectors from task to task.
struct Rows {
  std::vector<const float *> q, d_out;
  std::vector<float *> out;
  std::vector<int64_t> limit, at; // visible context entries; index into [tokens, heads]
  std::vector<float> scores, other, peak, total;
  const float *keys[kBlock], *values[kBlock];

  void gather(const Shape &shape, const Task &task, const float *queries, const float *d_outs, float *outs) {
    const int64_t group = shape.group(), count = task.queries * group;
    q.resize(size_t(count)), d_out.resize(size_t(count)), out.resize(size_t(count));
    limit.resize(size_t(count)), at.resize(size_t(count));
    scores.resize(size_t(count * kBlock)), other.resize(size_t(count * kBlock));
    for (int64_t r = 0; r < count; r++) {
      const int64_t query = task.first + r / group, head = task.kv_head * group + r % group;
      const int64_t index = (task.segment->row_start + query) * shape.heads + head;
      const size_t i = size_t(r);
      at[i] = index;
      limit[i] = shape.visible(*task.segment, query);
      q[i] = queries + index * shape.dim;
      d_out[i] = d_outs ? d_outs + index * shape.dim : nullptr;
      out[i] = outs ? outs + index * shape.dim : nullptr;
    }
  }

  void point_at_keys(const Shape &shape, const Task &task, const float *k, const float *v, int64_t first, int64_t count) {
    for (int64_t j = 0; j < count; j++) {
      const int64_t at = shape.context[task.segment->context_start + first + j] * shape.kv_width() + task.kv_head * shape.dim;
      keys[j] = k + at, values[j] = v + at;
    }
  }
};

thread_local Rows rows_of_thread;

// Columns past `count` of a row of scores are masked up to a whole vector; returns that width.
ARBOR_INLINE int64_t mask_tail(float *scores, int64_t count) {
  const int64_t width = (count + kLanes - 1) / kLanes * kLanes;
  for (int64_t j = count; j < width; j++) scores[j] = kMasked;
  return width;
}

// One block's scores become weights; the row's output and total so far shrink to the new maximum.
void soften(float *scores, int64_t count, float scale, float *out, int64_t dim, float &peak, float &total) {
  const int64_t width = mask_tail(scores, count);
  vf best = splat(kMasked);
  for (int64_t j = 0; j < width; j += kLanes) best = max(best, load(scores + j));
  const float new_peak = std::max(peak, max_lanes(best) * scale);
  const float shrink = exp(peak - new_peak);
  vf sum{};
  for (int64_t j = 0; j < width; j += kLanes) {
    const vf weight = exp(load(scores + j) * scale - new_peak);
    store(scores + j, weight);
    sum += weight;
  }
  for (int64_t j = width; j < kBlock; j++) scores[j] = 0;
  total = total * shrink + sum_lanes(sum);
  for (int64_t d = 0; d < dim; d++) out[d] *= shrink;
  peak = new_peak;
}

void attend(const Shape &shape, const Task &task, const float *q, const float *k, const float *v, float *out, float *lse) {
  Rows &rows = rows_of_thread;
  rows.gather(shape, task, q, nullptr, out);
  const int64_t count = task.queries * shape.group(), last = rows.limit[size_t(count - 1)];
  rows.peak.assign(size_t(count), kMasked), rows.total.assign(size_t(count), 0);
  for (float *row : rows.out) std::fill_n(row, shape.dim, 0.0f);
  for (int64_t first = 0; first < last; first += kBlock) {
    const int64_t keys = std::min(kBlock, last - first);
    rows.point_at_keys(shape, task, k, v, first, keys);
    int64_t from = 0; // rows before it see nothing of this block
    while (rows.limit[size_t(from)] <= first) from++;
    scores_tiles(rows.scores.data() + from * kBlock, kBlock, rows.q.data() + from, count - from, rows.keys, keys, shape.dim);
    for (int64_t r = from; r < count; r++) {
      const size_t i = size_t(r);
      soften(rows.scores.data() + r * kBlock, std::min(keys, rows.limit[i] - first), shape.scale(), rows.out[i], shape.dim,
             rows.peak[i], rows.total[i]);
    }
    add_weighted(rows.out.data() + from, count - from, rows.scores.data() + from * kBlock, kBlock, 1, rows.values, keys, shape.dim);
  }
  for (int64_t r = 0; r < count; r++) {
    const size_t i = size_t(r);
    const float whole = 1 / rows.total[i];
    for (int64_t d = 0; d < shape.dim; d++) rows.out[i][d] *= whole;
    if (lse) lse[rows.at[i]] = rows.peak[i] + std::log(rows.total[i]);
  }
}

// p = exp(s − lse) in `scores`; ds = p (dp − delta) · scale in `other`, where it held dp.
ARBOR_INLINE void score_gradients(float *scores, float *other, int64_t count, float scale, float lse, float delta) {
  const int64_t width = mask_tail(scores, count);
  for (int64_t j = count; j < width; j++) other[j] = 0;
  for (int64_t j = 0; j < width; j += kLanes) {
    const vf weight = exp(load(scores + j) * scale - lse);
    store(scores + j, weight);
    store(other + j, weight * (load(other + j) - delta) * scale);
  }
  for (int64_t j = width; j < kBlock; j++) scores[j] = other[j] = 0;
}

void attend_backward_q(const Shape &shape, const Task &task, const float *q, const float *k, const float *v, const float *d_out,
                       const float *lse, const float *delta, float *dq) {
  Rows &rows = rows_of_thread;
  rows.gather(shape, task, q, d_out, dq);
  const int64_t count = task.queries * shape.group(), last = rows.limit[size_t(count - 1)];
  for (int64_t first = 0; first < last; first += kBlock) {
    const int64_t keys = std::min(kBlock, last - first);
    rows.point_at_keys(shape, task, k, v, first, keys);
    int64_t from = 0;
    while (rows.limit[size_t(from)] <= first) from++;
    float *scores = rows.scores.data() + from * kBlock, *other = rows.other.data() + from * kBlock;
    scores_tiles(scores, kBlock, rows.q.data() + from, count - from, rows.keys, keys, shape.dim);
    scores_tiles(other, kBlock, rows.d_out.data() + from, count - from, rows.values, keys, shape.dim);
    for (int64_t r = from; r < count; r++) {
      const size_t i = size_t(r);
      score_gradients(rows.scores.data() + r * kBlock, rows.other.data() + r * kBlock, std::min(keys, rows.limit[i] - first),
                      shape.scale(), lse[rows.at[i]], delta[rows.at[i]]);
    }
    add_weighted(rows.out.data() + from, count - from, other, kBlock, 1, rows.keys, keys, shape.dim);
  }
}

// A run of at most 64 context entries of one segment whose slots lie in the same block of slots.
struct Run {
  const Segment *segment;
  int64_t first, count;
};

// For each block of 64 slots, the runs that read it, in segment order: what dk and dv of these slots are summed from.
std::vector<std::vector<Run>> runs_by_slot_block(const Shape &shape) {
  std::vector<std::vector<Run>> blocks(size_t((shape.slots + kBlock - 1) / kBlock));
  for (int64_t s = 0; s < shape.segment_count; s++) {
    const Segment &segment = shape.segments[s];
    const int32_t *slots = shape.context + segment.context_start;
    for (int64_t j = 0; segment.row_count > 0 && j < segment.context_length;) {
      const int32_t block = slots[j] / int32_t(kBlock);
      const int64_t first = j++;
      while (j < segment.context_length && j - first < kBlock && slots[j] / int32_t(kBlock) == block) j++;
      blocks[size_t(block)].push_back({&segment, first, j - first});
    }
  }
  return blocks;
}

struct KeyGradient {
  const float *q, *k, *v, *d_out, *lse, *delta;
  float *dk, *dv;
};

// Adds to dk and dv, where the slot `first_slot` lies at the front.
void attend_backward_run(const Shape &shape, const Run &run, int64_t kv_head, const KeyGradient &g, int64_t first_slot) {
  Rows &rows = rows_of_thread;
  const Segment &segment = *run.segment;
  const int64_t before = segment.context_length - segment.row_count; // entries that every query sees
  const int64_t step = std::max<int64_t>(1, kTaskRows / shape.group());
  float *dk[kBlock], *dv[kBlock];
  for (int64_t j = 0; j < run.count; j++) {
    const int64_t slot = shape.context[segment.context_start + run.first + j] - first_slot;
    const int64_t at = slot * shape.kv_width() + kv_head * shape.dim;
    dk[j] = g.dk + at, dv[j] = g.dv + at;
  }
  for (int64_t first = std::max<int64_t>(0, run.first - before); first < segment.row_count; first += step) {
    const Task task = {&segment, kv_head, first, std::min(step, segment.row_count - first)};
    rows.gather(shape, task, g.q, g.d_out, nullptr);
    rows.point_at_keys(shape, task, g.k, g.v, run.first, run.count);
    const int64_t count = task.queries * shape.group();
    scores_tiles(rows.scores.data(), kBlock, rows.q.data(), count, rows.keys, run.count, shape.dim);
    scores_tiles(rows.other.data(), kBlock, rows.d_out.data(), count, rows.values, run.count, shape.dim);
    for (int64_t r = 0; r < count; r++) {
      const size_t i = size_t(r);
      score_gradients(rows.scores.data() + r * kBlock, rows.other.data() + r * kBlock,
                      std::min(run.count, rows.limit[i] - run.first), shape.scale(), g.lse[rows.at[i]], g.delta[rows.at[i]]);
    }
    add_weighted(dv, run.count, rows.scores.data(), 1, kBlock, rows.d_out.data(), count, shape.dim);
    add_weighted(dk, run.count, rows.other.data(), 1, kBlock, rows.q.data(), count, shape.dim);
  }
}

// Consecutive runs of one block of slots. A block that very many queries read (a prompt all sequences share) has several portions.
struct Portion {
  int64_t block, first, last;
  float *dk, *dv; // null: dk and dv themselves
};

// A portion ends when it has this many queries, whatever the number of threads.
constexpr int64_t kPortionQueries = 1024;

std::vector<Portion> make_portions(const std::vector<std::vector<Run>> &blocks) {
  std::vector<Portion> portions;
  for (size_t b = 0; b < blocks.size(); b++) {
    const int64_t runs = int64_t(blocks[b].size());
    int64_t first = 0, queries = 0;
    for (int64_t i = 0; i < runs; i++) {
      queries += blocks[b][size_t(i)].segment->row_count;
      if (queries < kPortionQueries && i + 1 < runs) continue;
      portions.push_back({int64_t(b), first, i + 1, nullptr, nullptr});
      first = i + 1, queries = 0;
    }
  }
  return portions;
}

// dk and dv: portions side by side, the first of a block in place, the others in memory of their own and then added in order.
void key_gradients(const Shape &shape, const KeyGradient &gradient) {
  const std::vector<std::vector<Run>> blocks = runs_by_slot_block(shape);
  std::vector<Portion> portions = make_portions(blocks);
  const int64_t size = kBlock * shape.kv_width();
  const auto further = std::count_if(portions.begin(), portions.end(), [](const Portion &portion) { return portion.first > 0; });
  std::vector<float> extra(2 * size_t(size * further));
  float *next = extra.data();
  for (Portion &portion : portions)
    if (portion.first > 0) portion.dk = next, portion.dv = next + size, next += 2 * size;
  parallel_for(int64_t(portions.size()) * shape.kv_heads, [&](int64_t t) {
    const Portion &portion = portions[size_t(t / shape.kv_heads)];
    KeyGradient to = gradient;
    if (portion.dk) to.dk = portion.dk, to.dv = portion.dv;
    for (int64_t i = portion.first; i < portion.last; i++)
      attend_backward_run(shape, blocks[size_t(portion.block)][size_t(i)], t % shape.kv_heads, to, portion.dk ? portion.block * kBlock : 0);
  });
  for (const Portion &portion : portions) {
    if (!portion.dk) continue;
    const int64_t at = portion.block * size, count = std::min(size, shape.slots * shape.kv_width() - at);
    for (int64_t i = 0; i < count; i++) gradient.dk[at + i] += portion.dk[i], gradient.dv[at + i] += portion.dv[i];
  }
}

void zero(float *to, int64_t count) {
  parallel_ranges(count, 1, [=](int64_t begin, int64_t end) { std::fill(to + begin, to + end, 0.0f); });
}

void attention_backward(const Shape &shape, const KeyGradient &given, const float *out, float *dq) {
  zero(dq, shape.tokens * shape.q_width());
  zero(given.dk, shape.slots * shape.kv_width());
  zero(given.dv, shape.slots * shape.kv_width());
  std::vector<float> delta(size_t(shape.tokens * shape.heads)); // Σ dOut · out of each row and head
  parallel_ranges(shape.tokens * shape.heads, 2 * shape.dim, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      // Summed as the scores are, so that where a row sees one key only, dp − delta is exactly 0.
      const float *row = given.d_out + i * shape.dim, *own = out + i * shape.dim;
      float four[4];
      scores_tiles(four, 4, &row, 1, &own, 1, shape.dim);
      delta[size_t(i)] = four[0];
    }
  });
  const std::vector<Task> tasks = make_tasks(shape);
  parallel_for(int64_t(tasks.size()), [&](int64_t t) {
    attend_backward_q(shape, tasks[size_t(t)], given.q, given.k, given.v, given.d_out, given.lse, delta.data(), dq);
  });
  KeyGradient gradient = given;
  gradient.delta = delta.data();
  key_gradients(shape, gradient);
}

bool sizes_valid(const Shape &s) {
  return s.segment_count >= 0 && s.context_capacity >= 0 && s.tokens >= 0 && s.slots >= 0 && s.kv_heads > 0 && s.heads > 0 &&
         s.heads % s.kv_heads == 0 && s.dim > 0;
}

} // namespace
} // namespace arbor

int32_t arbor_attention(arbor_stream *stream, int32_t type, void *out, float *lse, const void *q, const void *k, const void *v,
                        const int32_t *segments, const int32_t *context, int64_t segment_count, int64_t context_capacity,
                        int64_t tokens, int64_t slot_count, int64_t heads, int64_t kv_heads, int64_t head_dim) {
  using namespace arbor;
  const Shape shape = {reinterpret_cast<const Segment *>(segments), context, segment_count, context_capacity, tokens, slot_count, heads,
                       kv_heads, head_dim};
  return enqueue(stream, "arbor_attention", type, given(out, q, k, v, segments, context) && sizes_valid(shape), [=] {
    shape.check();
    const std::vector<Task> tasks = make_tasks(shape);
    parallel_for(int64_t(tasks.size()), [&](int64_t t) {
      attend(shape, tasks[size_t(t)], static_cast<const float *>(q), static_cast<const float *>(k), static_cast<const float *>(v),
             static_cast<float *>(out), lse);
    });
  });
}

int32_t arbor_attention_backward(arbor_stream *stream, int32_t type, void *dq, void *dk, void *dv, const void *d_out, const void *out,
                                 const void *q, const void *k, const void *v, const float *lse, const int32_t *segments,
                                 const int32_t *context, int64_t segment_count, int64_t context_capacity, int64_t tokens,
                                 int64_t slot_count, int64_t heads, int64_t kv_heads, int64_t head_dim) {
  using namespace arbor;
  const Shape shape = {reinterpret_cast<const Segment *>(segments), context, segment_count, context_capacity, tokens, slot_count, heads,
                       kv_heads, head_dim};
  const bool valid = given(dq, dk, dv, d_out, out, q, k, v, lse, segments, context) && sizes_valid(shape);
  const auto floats = [](const void *p) { return static_cast<const float *>(p); };
  const KeyGradient gradient = {floats(q), floats(k), floats(v), floats(d_out), lse, nullptr, static_cast<float *>(dk),
                                static_cast<float *>(dv)};
  return enqueue(stream, "arbor_attention_backward", type, valid, [=] {
    shape.check();
    attention_backward(shape, gradient, floats(out), static_cast<float *>(dq));
  });
}
