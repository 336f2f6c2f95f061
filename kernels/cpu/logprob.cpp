// log-softmax of head · hidden / T at chosen tokens, its entropy, and the gradient. Logits live for one block of pairs x 512 tokens of the
// vocabulary at a time, unless the caller gives room to keep them all for the gradient. Pieces of the vocabulary are put together in order, so
// neither other pairs nor threads change a result.

#include <algorithm>
#include <cmath>
#include <vector>

#include "gemm.h"
#include "pool.h"
#include "simd.h"
#include "stream.h"

namespace arbor {
namespace {

constexpr int64_t kPairs = 96;       // pairs of a block
constexpr int64_t kChunk = 512;      // vocabulary of a block
constexpr int64_t kSpan = 8192;      // vocabulary one task of the backward sums over
constexpr int64_t kChunkLeast = 64;   // vocabulary of a block where there are more threads than blocks
constexpr float kAbsent = -1e30f;    // a logit past the vocabulary: its probability is exactly 0

struct Head {
  const void *weight;
  int32_t type;
  int64_t vocab, hidden;
  float inverse_temperature;
  float *kept = nullptr;  // [pairs, vocab], where logits stay from the forward pass for the backward one
  int64_t chunk = kChunk; // vocabulary of a block here

  int64_t chunk_width(int64_t first) const { return std::min(chunk, vocab - first); }
  MatrixB transposed(int64_t first) const { return MatrixB::weight(weight, type, hidden, first); }
  MatrixB plain(int64_t first) const { return MatrixB::weight_transposed(weight, type, hidden, first); }
};

// logits[i * kChunk + j] = head[first + j] · x[p0 + i] / T for i < count; columns up to the next multiple of 16 past the vocabulary are absent.
// From those kept, if `again`.
void chunk_logits(float *logits, const Head &head, const float *x, int64_t p0, int64_t count, int64_t first, bool again) {
  const int64_t width = head.chunk_width(first);
  float *kept = head.kept ? head.kept + p0 * head.vocab + first : nullptr;
  if (again && kept) {
    for (int64_t i = 0; i < count; i++) std::copy_n(kept + i * head.vocab, width, logits + i * kChunk);
  } else {
    gemm_block({count, width, head.hidden, {x + p0 * head.hidden, head.hidden, 1}, head.transposed(first), MatrixC::overwrite(logits, kChunk)}, 0,
               count, 0, width);
    // After the product, as the sampler does it: a head in bf16 rounds x itself.
    if (head.inverse_temperature != 1)
      for (int64_t i = 0; i < count; i++)
        for (int64_t j = 0; j < width; j++) logits[i * kChunk + j] *= head.inverse_temperature;
    if (kept)
      for (int64_t i = 0; i < count; i++) std::copy_n(logits + i * kChunk, width, kept + i * head.vocab);
  }
  for (int64_t i = 0; i < count; i++)
    for (int64_t j = width; j < (width + kPanel - 1) / kPanel * kPanel; j++) logits[i * kChunk + j] = kAbsent;
}

// Of one pair over one chunk: maximum, Σ e^(z − max), Σ (z − max) e^(z − max).
struct Piece {
  float peak, sum, moment;
};

Piece measure(const float *logits, int64_t width) {
  vf best = splat(kAbsent);
  for (int64_t j = 0; j < width; j += kLanes) best = max(best, load(logits + j));
  const float peak = max_lanes(best);
  vf sum{}, moment{};
  for (int64_t j = 0; j < width; j += kLanes) {
    const vf below = load(logits + j) - peak, weight = exp(below);
    sum += weight;
    moment = fma(below, weight, moment);
  }
  return {peak, sum_lanes(sum), sum_lanes(moment)};
}

// The hidden rows of the pairs side by side: [pairs, hidden].
std::vector<float> gather(const float *hidden, const int32_t *rows, int64_t pairs, int64_t size) {
  std::vector<float> x(size_t(pairs * size));
  for (int64_t i = 0; i < pairs; i++) std::copy_n(hidden + rows[i] * size, size, x.data() + i * size);
  return x;
}

void check(const int32_t *rows, const int32_t *targets, int64_t pairs, int64_t tokens, int64_t vocab) {
  for (int64_t i = 0; i < pairs; i++) {
    require_index(rows[i], tokens, "row");
    require_index(targets[i], vocab, "target");
  }
}

void logprob(const Head &head, const float *x, const int32_t *targets, int64_t pairs, float *logprobs, float *entropies, float *lse) {
  const int64_t blocks = (pairs + kPairs - 1) / kPairs, chunks = (head.vocab + kChunk - 1) / kChunk;
  std::vector<Piece> pieces(size_t(pairs * chunks));
  std::vector<float> chosen(size_t(pairs), 0.0f);
  parallel_for(blocks * chunks, [&](int64_t task) {
    const int64_t p0 = task / chunks * kPairs, count = std::min(kPairs, pairs - p0), c = task % chunks, first = c * kChunk;
    float *logits = scratch(2, kPairs * kChunk);
    chunk_logits(logits, head, x, p0, count, first, false);
    const int64_t width = (head.chunk_width(first) + kPanel - 1) / kPanel * kPanel;
    for (int64_t i = 0; i < count; i++) {
      pieces[size_t((p0 + i) * chunks + c)] = measure(logits + i * kChunk, width);
      const int64_t target = targets[p0 + i] - first;
      if (target >= 0 && target < kChunk) chosen[size_t(p0 + i)] = logits[i * kChunk + target];
    }
  });
  for (int64_t i = 0; i < pairs; i++) {
    const Piece *mine = pieces.data() + i * chunks;
    double peak = kAbsent, sum = 0, moment = 0;
    for (int64_t c = 0; c < chunks; c++) peak = std::max(peak, double(mine[c].peak));
    for (int64_t c = 0; c < chunks; c++) {
      const double below = double(mine[c].peak) - peak, weight = std::exp(below);
      sum += weight * double(mine[c].sum);
      moment += weight * (double(mine[c].moment) + below * double(mine[c].sum));
    }
    lse[i] = float(peak + std::log(sum));
    logprobs[i] = float(double(chosen[size_t(i)]) - peak - std::log(sum));
    entropies[i] = float(std::log(sum) - moment / sum);
  }
}

// What the gradient of a pair depends on.
struct Pull {
  const int32_t *targets;
  const float *d_logprobs, *d_entropies, *entropies, *lse;
};

// Logits become dz = (1/T) [g (1[v = t] − p) − h p (log p + H)].
void gradient_of_logits(float *logits, const Head &head, const Pull &pull, int64_t p0, int64_t count, int64_t first) {
  const int64_t width = (head.chunk_width(first) + kPanel - 1) / kPanel * kPanel;
  for (int64_t i = 0; i < count; i++) {
    const int64_t pair = p0 + i, target = pull.targets[pair] - first;
    const float g = pull.d_logprobs[pair], h = pull.d_entropies ? pull.d_entropies[pair] : 0;
    const float lse = pull.lse[pair], entropy = pull.entropies[pair];
    float *z = logits + i * kChunk;
    for (int64_t j = 0; j < width; j += kLanes) {
      const vf log_p = load(z + j) - lse, p = exp(log_p);
      store(z + j, -head.inverse_temperature * p * (g + h * (log_p + entropy)));
    }
    if (target >= 0 && target < head.chunk_width(first)) z[target] += head.inverse_temperature * g;
  }
}

// d_x[pairs, hidden] of some pairs, span by span of the vocabulary, then the spans in order.
void gradient_of_hidden(const Head &head, const float *x, const Pull &pull, int64_t p_first, int64_t pairs, std::vector<float> &partial) {
  const int64_t blocks = (pairs + kPairs - 1) / kPairs, spans = (head.vocab + kSpan - 1) / kSpan, size = pairs * head.hidden;
  partial.assign(size_t(spans * size), 0.0f);
  parallel_for(blocks * spans, [&](int64_t task) {
    const int64_t block = task % blocks, span = task / blocks;
    const int64_t p0 = p_first + block * kPairs, count = std::min(kPairs, p_first + pairs - p0);
    float *logits = scratch(2, kPairs * kChunk);
    float *to = partial.data() + span * size + (p0 - p_first) * head.hidden;
    for (int64_t first = span * kSpan; first < std::min((span + 1) * kSpan, head.vocab); first += kChunk) {
      chunk_logits(logits, head, x, p0, count, first, true);
      gradient_of_logits(logits, head, pull, p0, count, first);
      gemm_block({count, head.hidden, head.chunk_width(first), {logits, kChunk, 1}, head.plain(first), MatrixC::accumulate(to, head.hidden)},
                 0, count, 0, head.hidden);
    }
  });
  for (int64_t span = 1; span < spans; span++)
    parallel_ranges(size, 2, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) partial[size_t(i)] += partial[size_t(span * size + i)];
    });
}

// d_head[v] += Σ_i dz[i, v] x[i]; a task owns its rows of the head and takes the pairs in order, so a row's sum doesn't depend on which rows
// share the task.
void gradient_of_head(Head head, const float *x, const Pull &pull, int64_t pairs, float *d_head) {
  head.chunk = std::clamp(head.vocab / (2 * thread_count()) / kPanel * kPanel, kChunkLeast, kChunk);
  parallel_for((head.vocab + head.chunk - 1) / head.chunk, [&](int64_t c) {
    const int64_t first = c * head.chunk, width = head.chunk_width(first);
    float *logits = scratch(2, kPairs * kChunk);
    for (int64_t p0 = 0; p0 < pairs; p0 += kPairs) {
      const int64_t count = std::min(kPairs, pairs - p0);
      chunk_logits(logits, head, x, p0, count, first, true);
      gradient_of_logits(logits, head, pull, p0, count, first);
      gemm_block({width, head.hidden, count, {logits, 1, kChunk}, MatrixB::strided(x + p0 * head.hidden, head.hidden, 1),
                  MatrixC::accumulate(d_head + first * head.hidden, head.hidden)},
                 0, width, 0, head.hidden);
    }
  });
}

bool sizes_valid(int64_t pairs, int64_t tokens, int64_t vocab, int64_t hidden, double temperature) {
  return pairs >= 0 && tokens >= 0 && vocab > 0 && hidden > 0 && temperature > 0;
}

} // namespace
} // namespace arbor

int32_t arbor_logprob(arbor_stream *stream, int32_t type, float *logprobs, float *entropies, float *lse, float *logits, const void *hidden,
                      const int32_t *rows, const int32_t *targets, const void *head, int32_t head_type, int64_t pairs, int64_t tokens,
                      int64_t vocab, int64_t hidden_size, double temperature) {
  using namespace arbor;
  const bool valid = given(logprobs, entropies, lse, hidden, rows, targets, head) &&
                     sizes_valid(pairs, tokens, vocab, hidden_size, temperature);
  return enqueue(stream, "arbor_logprob", type, valid, [=] {
    check(rows, targets, pairs, tokens, vocab);
    const Head all = {head, head_type, vocab, hidden_size, float(1 / temperature), logits};
    const std::vector<float> x = gather(static_cast<const float *>(hidden), rows, pairs, hidden_size);
    logprob(all, x.data(), targets, pairs, logprobs, entropies, lse);
  });
}

int32_t arbor_logprob_backward(arbor_stream *stream, int32_t type, void *d_hidden, float *d_head, const float *d_logprobs,
                               const float *d_entropies, float *logprobs, float *entropies, float *lse, float *logits, const void *hidden,
                               const int32_t *rows, const int32_t *targets, const void *head, int32_t head_type, int64_t pairs,
                               int64_t tokens, int64_t vocab, int64_t hidden_size, double temperature) {
  using namespace arbor;
  const bool valid = given(d_hidden, d_logprobs, entropies, lse, hidden, rows, targets, head) &&
                     sizes_valid(pairs, tokens, vocab, hidden_size, temperature);
  return enqueue(stream, "arbor_logprob_backward", type, valid, [=] {
    check(rows, targets, pairs, tokens, vocab);
    const Head all = {head, head_type, vocab, hidden_size, float(1 / temperature), logits};
    const Pull pull = {targets, d_logprobs, d_entropies, entropies, lse};
    const std::vector<float> x = gather(static_cast<const float *>(hidden), rows, pairs, hidden_size);
    if (logprobs) logprob(all, x.data(), targets, pairs, logprobs, entropies, lse);
    float *to = static_cast<float *>(d_hidden);
    std::fill_n(to, tokens * hidden_size, 0.0f);
    std::vector<float> partial;
    // Pairs whose partial sums are in memory together: enough blocks for all threads, unless the spans are.
    const int64_t at_once = kPairs * std::max(8, vocab > kSpan ? 0 : 2 * thread_count());
    for (int64_t p = 0; p < pairs; p += at_once) {
      const int64_t count = std::min(at_once, pairs - p);
      gradient_of_hidden(all, x.data(), pull, p, count, partial);
      // A row may stand in several pairs: they are added in order.
      for (int64_t i = 0; i < count; i++)
        for (int64_t d = 0; d < hidden_size; d++) to[rows[p + i] * hidden_size + d] += partial[size_t(i * hidden_size + d)];
    }
    if (d_head) gradient_of_head(all, x.data(), pull, pairs, d_head);
  });
}
