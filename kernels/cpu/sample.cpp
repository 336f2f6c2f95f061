// One token for each row of logits. src/engine/sampling.ts is the definition of every step; here exponentials are f32, sums double, and the
// vocabulary is never sorted as a whole: truncation looks at the likeliest tokens only.

#include <algorithm>
#include <cmath>
#include <vector>

#include "pool.h"
#include "simd.h"
#include "stream.h"

namespace arbor {
namespace {

constexpr int64_t kBlock = 256; // weights summed at a time

struct Wish {
  float temperature, top_p, min_p, penalty, uniform;
  int32_t top_k, history_start, history_count, allowed; // 1 + its row of bits, 0: every token may come
};

int64_t argmax(const float *x, int64_t count) {
  vf lanes = splat(-INFINITY);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) lanes = max(load(x + i), lanes);
  float best = max_lanes(lanes);
  for (; i < count; i++) best = std::max(best, x[i]);
  const float *found = std::find(x, x + count, best);
  return found == x + count ? 0 : found - x;
}

// A sum in double, lane by lane.
struct DoubleSum {
  typedef double Half __attribute__((vector_size(kLanes * 4)));
  typedef float HalfFloats __attribute__((vector_size(kLanes * 2)));
  Half low{}, high{};

  ARBOR_INLINE void add(vf v) {
    HalfFloats halves[2];
    std::memcpy(halves, &v, sizeof v);
    low += __builtin_convertvector(halves[0], Half);
    high += __builtin_convertvector(halves[1], Half);
  }
  double total() const {
    double sum = 0;
    for (int l = 0; l < kLanes / 2; l++) sum += low[l] + high[l];
    return sum;
  }
};

int64_t blocks_of(int64_t count) { return (count + kBlock - 1) / kBlock; }

// weights[i] = e^((x[i] − best) / T), sums[b] their sum in block b; returns that of all.
double weigh(float *weights, double *sums, const float *x, int64_t count, float best, float temperature) {
  double total = 0;
  for (int64_t b = 0; b < blocks_of(count); b++) {
    const int64_t end = std::min(count, (b + 1) * kBlock);
    DoubleSum sum;
    int64_t i = b * kBlock;
    for (; i + kLanes <= end; i += kLanes) {
      const vf w = exp((load(x + i) - best) / temperature);
      store(weights + i, w);
      sum.add(w);
    }
    sums[b] = sum.total();
    for (; i < end; i++) sums[b] += double(weights[i] = exp((x[i] - best) / temperature));
    total += sums[b];
  }
  return total;
}

double sum_block(const float *weights, int64_t count) {
  DoubleSum sum;
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) sum.add(load(weights + i));
  double total = sum.total();
  for (; i < count; i++) total += double(weights[i]);
  return total;
}

// Inverse CDF in order of token id: the first token at which the running sum passes u · total.
int64_t draw(const float *weights, const double *sums, int64_t count, float uniform) {
  const int64_t blocks = blocks_of(count);
  const auto width = [=](int64_t b) { return std::min(kBlock, count - b * kBlock); };
  double total = 0;
  for (int64_t b = 0; b < blocks; b++) total += sums[b];
  const double goal = double(uniform) * total;
  double before = 0;
  int64_t last = 0;
  for (int64_t b = 0; b < blocks; b++) {
    const double after = before + sums[b];
    if (after > goal) {
      double sum = before;
      for (int64_t i = b * kBlock; i < b * kBlock + width(b); i++) {
        sum += double(weights[i]);
        if (weights[i] != 0) last = i;
        if (sum > goal) return i;
      }
      return last; // the goal lies within rounding of the block's end
    }
    before = after;
    for (int64_t i = b * kBlock + width(b) - 1; sums[b] > 0 && i >= b * kBlock; i--)
      if (weights[i] != 0) {
        last = i;
        break;
      }
  }
  return last;
}

bool is_allowed(const int32_t *allowed, int64_t token) { return uint32_t(allowed[token >> 5]) >> (token & 31) & 1; }

// Tokens that may not come get a logit of -∞; returns how many may.
int64_t forbid(float *x, const int32_t *allowed, int64_t count) {
  int64_t left = 0;
  for (int64_t i = 0; i < count; i++)
    if (is_allowed(allowed, i))
      left++;
    else
      x[i] = -INFINITY;
  return left;
}

// Weights of forbidden tokens become 0: exp() of simd.h ends at e^-88.
double forget(float *weights, double *sums, const float *x, int64_t count) {
  double total = 0;
  for (int64_t b = 0; b < blocks_of(count); b++) {
    const int64_t begin = b * kBlock, width = std::min(kBlock, count - begin);
    for (int64_t i = begin; i < begin + width; i++)
      if (x[i] == -INFINITY) weights[i] = 0;
    total += sums[b] = sum_block(weights + begin, width);
  }
  return total;
}

// Tokens that may be kept, in order of id: at least `top_k` of the likeliest, or enough of them to hold `mass`. `possible` have a finite logit.
std::vector<int32_t> &candidates(const float *x, const float *weights, int64_t count, int64_t possible, float best, const Wish &wish,
                                 double mass) {
  static thread_local std::vector<int32_t> found; // kept for the next row
  for (float reach = 4 * wish.temperature;; reach *= 2) {
    found.clear();
    double held = 0;
    for (int64_t i = 0; i < count; i++)
      if (x[i] >= best - reach) found.push_back(int32_t(i)), held += double(weights[i]);
    const bool enough = wish.top_k > 0 ? int64_t(found.size()) >= wish.top_k : held >= mass;
    if (enough || int64_t(found.size()) >= possible || !std::isfinite(reach)) return found;
  }
}

// Reorders `tokens` and returns how many come before the running sum of weights, best first, reaches `mass` (that one included).
template <class Better> size_t hold(std::vector<int32_t> &tokens, const float *weights, double mass, const Better &better) {
  size_t begin = 0, end = tokens.size();
  double sum = 0;
  // Quickselect by weight: the border lies in [begin, end), everything before it is kept.
  while (end - begin > 32) {
    const size_t middle = begin + (end - begin) / 2;
    const auto at = [&](size_t i) { return tokens.begin() + std::ptrdiff_t(i); };
    std::nth_element(at(begin), at(middle), at(end), better);
    double upper = 0;
    for (size_t i = begin; i < middle; i++) upper += double(weights[tokens[i]]);
    if (sum + upper >= mass)
      end = middle;
    else
      sum += upper, begin = middle;
  }
  std::sort(tokens.begin() + std::ptrdiff_t(begin), tokens.begin() + std::ptrdiff_t(end), better);
  size_t keep = begin;
  while (keep < end && (keep == 0 || sum < mass)) sum += double(weights[tokens[keep++]]);
  return keep;
}

// Zeroes the weights (and mends the sums of their blocks) that top-k, top-p over the kept, and min-p (relative to the best) leave out.
void truncate(float *weights, double *sums, const float *x, int64_t count, int64_t possible, int64_t best, double total, Wish wish) {
  if (wish.top_k >= count) wish.top_k = 0;
  if (wish.top_k > 0 || wish.top_p < 1) {
    const auto better = [x](int32_t a, int32_t b) { return x[a] > x[b] || (x[a] == x[b] && a < b); };
    std::vector<int32_t> &kept = candidates(x, weights, count, possible, x[best], wish, double(wish.top_p) * total);
    if (wish.top_k > 0 && int64_t(kept.size()) > wish.top_k) {
      std::nth_element(kept.begin(), kept.begin() + wish.top_k, kept.end(), better);
      kept.resize(size_t(wish.top_k));
    }
    if (wish.top_p < 1) {
      double mass = total;
      if (wish.top_k > 0) {
        mass = 0;
        for (const int32_t i : kept) mass += double(weights[i]);
      }
      kept.resize(hold(kept, weights, double(wish.top_p) * mass, better));
    }
    std::vector<float> values;
    for (const int32_t i : kept) values.push_back(weights[i]);
    std::fill_n(weights, count, 0.0f);
    for (size_t i = 0; i < kept.size(); i++) weights[kept[i]] = values[i];
  }
  if (wish.min_p > 0)
    for (int64_t i = 0; i < count; i++)
      if (weights[i] < wish.min_p && i != best) weights[i] = 0;
  for (int64_t b = 0; b < blocks_of(count); b++) sums[b] = sum_block(weights + b * kBlock, std::min(kBlock, count - b * kBlock));
}

void sample_row(float *x, int64_t count, const Wish &wish, const int32_t *history, const int32_t *allowed, int32_t *token, float *logprobs) {
  float *weights = scratch(2, count);
  double *sums = reinterpret_cast<double *>(scratch(1, 2 * blocks_of(count)));
  const float temperature = wish.temperature > 0 ? wish.temperature : 1;
  int64_t best = argmax(x, count);
  const double peak = double(x[best]);
  double total = weigh(weights, sums, x, count, x[best], 1);
  const double at_one = std::log(total);
  if (temperature != 1) total = weigh(weights, sums, x, count, x[best], temperature);
  const double at_temperature = std::log(total);

  const int64_t possible = allowed ? forbid(x, allowed, count) : count;
  std::vector<float> untouched; // of the tokens under penalty
  if (wish.penalty != 1) {
    for (int64_t i = 0; i < wish.history_count; i++) untouched.push_back(x[history[i]]);
    for (int64_t i = 0; i < wish.history_count; i++) {
      const double value = double(untouched[size_t(i)]);
      x[history[i]] = float(value > 0 ? value / double(wish.penalty) : value * double(wish.penalty));
    }
  }
  const bool changed = allowed || wish.penalty != 1;
  if (changed) best = argmax(x, count);
  int64_t chosen = best;
  if (wish.temperature > 0) {
    if (changed) total = weigh(weights, sums, x, count, x[best], temperature);
    if (allowed) total = forget(weights, sums, x, count);
    if (wish.top_k > 0 || wish.top_p < 1 || wish.min_p > 0) truncate(weights, sums, x, count, possible, best, total, wish);
    chosen = draw(weights, sums, count, wish.uniform);
  }
  double logit = double(x[chosen]);
  for (size_t i = 0; i < untouched.size(); i++)
    if (history[i] == chosen) logit = double(untouched[i]);
  *token = int32_t(chosen);
  logprobs[0] = float((logit - peak) / double(temperature) - at_temperature);
  logprobs[1] = float(logit - peak - at_one);
}

} // namespace
} // namespace arbor

int32_t arbor_sample(arbor_stream *stream, float *logits, const float *floats, const int32_t *ints, const int32_t *history,
                     const int32_t *allowed, int32_t *tokens, float *logprobs, int64_t rows, int64_t vocab, int64_t history_capacity,
                     int64_t allowed_rows) {
  using namespace arbor;
  const bool valid = given(logits, floats, ints, history, tokens, logprobs) && rows >= 0 && vocab > 0 && history_capacity >= 0;
  return enqueue(stream, "arbor_sample", ARBOR_F32, valid, [=] {
    const auto wish_of = [=](int64_t r) {
      const float *f = floats + r * 6;
      const int32_t *i = ints + r * 4;
      return Wish{f[0], f[1], f[2], f[3], f[4], i[0], i[1], i[2], i[3]};
    };
    for (int64_t r = 0; r < rows; r++) {
      const Wish wish = wish_of(r);
      if (wish.allowed != 0) require_index(wish.allowed - 1, allowed ? allowed_rows : 0, "row of allowed tokens");
      if (wish.penalty == 1 || wish.history_count == 0) continue;
      require_index(wish.history_start, history_capacity, "historyStart");
      require_index(wish.history_start + int64_t(wish.history_count) - 1, history_capacity, "the end of the history");
      for (int64_t i = 0; i < wish.history_count; i++) require_index(history[wish.history_start + i], vocab, "token of the history");
    }
    parallel_for(rows, [&](int64_t r) {
      const Wish wish = wish_of(r);
      const int32_t *own = wish.allowed == 0 ? nullptr : allowed + (wish.allowed - 1) * ((vocab + 31) / 32);
      sample_row(logits + r * vocab, vocab, wish, history + wish.history_start, own, tokens + r, logprobs + r * 2);
    });
  });
}
