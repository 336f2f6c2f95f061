// Log-probabilities and entropies of chosen tokens, and their gradient, both in one go where the gradient is known before. Logits exist for a few hundred
// pairs at a time: by cuBLASLt into scratch memory, one block a pair to read them (logprob_rows.cuh).

#include <algorithm>
#include <cmath>

#include "convert.cuh"
#include "logprob_rows.cuh"
#include "products.cuh"

namespace arbor {
namespace {

#ifndef ARBOR_LOGIT_BYTES // tests have little, so that few pairs are several chunks
#define ARBOR_LOGIT_BYTES (256 << 20)
#endif
constexpr int64_t kLogitBytes = ARBOR_LOGIT_BYTES; // in scratch memory at a time
constexpr int64_t kTileRows = 128;                  // of a large product

template <class T> __global__ void gather_hidden(T *out, const T *hidden, Pairs pairs, int64_t first, Fault *fault) {
  const int64_t pair = first + blockIdx.x, row = pairs.rows[pair];
  const bool found = uint64_t(row) < uint64_t(pairs.tokens), target = uint64_t(pairs.targets[pair]) < uint64_t(pairs.vocab);
  if ((!found || !target) && threadIdx.x == 0)
    report(fault, kFaultLogprob, found ? pairs.targets[pair] : row, found ? pairs.vocab : pairs.tokens);
  for (int64_t i = threadIdx.x; i < pairs.hidden; i += blockDim.x)
    out[blockIdx.x * pairs.hidden + i] = found ? hidden[row * pairs.hidden + i] : from_float<T>(0);
}

constexpr int kScatterThreads = 256;

// Each row of d_hidden is the sum over the pairs that read it, in order; zero where none does.
template <class T> __global__ void scatter(T *d_hidden, const float *d_pairs, const int32_t *rows, int64_t pairs, int64_t hidden) {
  __shared__ int32_t found[kScatterThreads];
  __shared__ int32_t counts[kScatterThreads / 32];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  constexpr int kMine = 4; // columns that a thread keeps in registers
  for (int64_t base = 0; base < hidden; base += kMine * kScatterThreads) {
    float sums[kMine] = {};
    for (int64_t start = 0; start < pairs; start += kScatterThreads) {
      const int64_t pair = start + threadIdx.x;
      const bool hit = pair < pairs && rows[pair] == int32_t(blockIdx.x);
      const uint32_t hits = __ballot_sync(0xffffffffu, hit);
      if (!__syncthreads_or(hit)) continue;
      if (lane == 0) counts[warp] = __popc(hits);
      __syncthreads();
      int before = 0, total = 0;
      for (int w = 0; w < kScatterThreads / 32; w++) {
        before += w < warp ? counts[w] : 0;
        total += counts[w];
      }
      if (hit) found[before + __popc(hits & ((1u << lane) - 1))] = int32_t(pair);
      __syncthreads();
      for (int n = 0; n < total; n++)
#pragma unroll
        for (int j = 0; j < kMine; j++) {
          const int64_t i = base + j * kScatterThreads + threadIdx.x;
          if (i < hidden) sums[j] += d_pairs[int64_t(found[n]) * hidden + i];
        }
      __syncthreads();
    }
#pragma unroll
    for (int j = 0; j < kMine; j++) {
      const int64_t i = base + j * kScatterThreads + threadIdx.x;
      if (i < hidden) d_hidden[int64_t(blockIdx.x) * hidden + i] = from_float<T>(sums[j]);
    }
  }
}

// What both directions work with.
struct Head {
  arbor_stream *stream;
  int32_t type;
  const void *hidden, *weight; // of one type
  Pairs pairs;
  int64_t size() const { return type == ARBOR_BF16 ? 2 : 4; }

  // Hidden states of `count` pairs into `gathered`, their logits into `logits`.
  int32_t logits(const char *op, void *gathered, float *out, int64_t first, int64_t count) const {
    gather(gathered, first, count);
    Product product_of{count, pairs.vocab, pairs.hidden};
    product_of.a = {gathered, type, pairs.hidden}, product_of.b = {weight, type, pairs.hidden, true};
    product_of.out = out, product_of.out_type = ARBOR_F32, product_of.out_ld = pairs.vocab, product_of.by_row = true;
    return product(stream, op, product_of);
  }

  void gather(void *gathered, int64_t first, int64_t count) const {
    const cudaStream_t s = cuda_stream(stream);
    if (type == ARBOR_BF16)
      gather_hidden<<<unsigned(count), 128, 0, s>>>(static_cast<bf16 *>(gathered), static_cast<const bf16 *>(hidden), pairs, first, fault_of(stream));
    else
      gather_hidden<<<unsigned(count), 128, 0, s>>>(static_cast<float *>(gathered), static_cast<const float *>(hidden), pairs, first,
                                                    fault_of(stream));
  }
};

// Pairs that are computed at a time, and how many there is to be room for. Chunks are whole tiles of about one size: what is left over would read the head
// for a few rows. Room is the same for all numbers of pairs that are several chunks: it is asked for once.
struct Chunks {
  int64_t pairs, room;
};

Chunks chunks_of(int64_t pairs, int64_t vocab) {
  const int64_t fit = std::max(int64_t(1), kLogitBytes / (4 * vocab)), tile = std::min(fit, kTileRows), most = fit / tile * tile;
  const auto whole = [&](int64_t count) { return std::min(most, ceil_div(std::max(count, int64_t(1)), tile) * tile); };
  return {whole(ceil_div(pairs, ceil_div(std::max(pairs, int64_t(1)), most))), whole(pairs)};
}

bool sizes_valid(int64_t pairs, int64_t tokens, int64_t vocab, int64_t hidden, double temperature) {
  return pairs >= 0 && tokens >= 0 && vocab > 0 && hidden > 0 && temperature > 0;
}

} // namespace
} // namespace arbor

int32_t arbor_logprob(arbor_stream *stream, int32_t type, float *logprobs, float *entropies, float *lse, float *logits, const void *hidden,
                      const int32_t *rows, const int32_t *targets, const void *head, int32_t head_type, int64_t pairs, int64_t tokens, int64_t vocab,
                      int64_t hidden_size, double temperature) {
  using namespace arbor;
  const char *op = "arbor_logprob";
  ARBOR_ENTER(stream, op, given(logprobs, entropies, lse, hidden, rows, targets, head) && sizes_valid(pairs, tokens, vocab, hidden_size, temperature));
  if (pairs == 0) return ARBOR_OK;
  const void *weight = weight_as(stream, type, head, head_type, vocab * hidden_size, 2);
  if (!weight) return ARBOR_UNSUPPORTED;
  const Head of{stream, type, hidden, weight, {rows, targets, tokens, vocab, hidden_size, float(1 / temperature)}};
  const auto [chunk, room] = chunks_of(pairs, vocab);
  void *gathered = scratch(stream, 1, room * hidden_size * of.size());
  float *own = logits ? nullptr : static_cast<float *>(scratch(stream, 3, room * vocab * 4));
  if (!gathered || (!logits && !own)) return ARBOR_OUT_OF_MEMORY;
  const PairResults results = {logprobs, entropies, lse};
  for (int64_t first = 0; first < pairs; first += chunk) {
    const int64_t count = std::min(chunk, pairs - first);
    float *z = logits ? logits + first * vocab : own;
    const int32_t code = of.logits(op, gathered, z, first, count);
    if (code != ARBOR_OK) return code;
    row_statistics<<<unsigned(count), kRowThreads, 0, cuda_stream(stream)>>>(z, of.pairs, results, first);
  }
  return launched(stream, op);
}

int32_t arbor_logprob_backward(arbor_stream *stream, int32_t type, void *d_hidden, float *d_head, const float *d_logprobs, const float *d_entropies,
                               float *logprobs, float *entropies, float *lse, float *logits, const void *hidden, const int32_t *rows,
                               const int32_t *targets, const void *head, int32_t head_type, int64_t pairs, int64_t tokens, int64_t vocab,
                               int64_t hidden_size, double temperature) {
  using namespace arbor;
  const char *op = "arbor_logprob_backward";
  ARBOR_ENTER(stream, op,
              given(d_hidden, d_logprobs, entropies, lse, hidden, rows, targets, head) && sizes_valid(pairs, tokens, vocab, hidden_size, temperature));
  if (tokens == 0) return ARBOR_OK;
  const void *weight = weight_as(stream, type, head, head_type, vocab * hidden_size, 2);
  if (!weight) return ARBOR_UNSUPPORTED;
  const Head of{stream, type, hidden, weight, {rows, targets, tokens, vocab, hidden_size, float(1 / temperature)}};
  const auto [chunk, room] = chunks_of(pairs, vocab);
  void *gathered = scratch(stream, 1, room * hidden_size * of.size());
  float *own = logits ? nullptr : static_cast<float *>(scratch(stream, 3, room * vocab * 4));
  void *dz = scratch(stream, 4, room * vocab * of.size());
  float *d_pairs = static_cast<float *>(scratch(stream, 5, std::max(pairs, int64_t(1)) * hidden_size * 4));
  if (!gathered || (!logits && !own) || !dz || !d_pairs) return ARBOR_OUT_OF_MEMORY;
  const cudaStream_t s = cuda_stream(stream);
  const PairResults results = {logprobs, entropies, lse};
  for (int64_t first = 0; first < pairs; first += chunk) {
    const int64_t count = std::min(chunk, pairs - first);
    float *z = logits ? logits + first * vocab : own;
    int32_t code = ARBOR_OK;
    if (!logits || logprobs)
      code = of.logits(op, gathered, z, first, count);
    else if (d_head)
      of.gather(gathered, first, count);
    if (code != ARBOR_OK) return code;
    ARBOR_BY_TYPE(type, op, { launch_row_gradient<T>(s, count, dz, z, of.pairs, results, d_logprobs, d_entropies, first); });
    Product down{count, hidden_size, vocab};
    down.a = {dz, type, vocab}, down.b = {weight, type, hidden_size};
    down.out = d_pairs + first * hidden_size, down.out_type = ARBOR_F32, down.out_ld = hidden_size;
    code = product(stream, op, down);
    if (code == ARBOR_OK && d_head) {
      Product heads{vocab, hidden_size, count};
      heads.a = {dz, type, vocab, true}, heads.b = {gathered, type, hidden_size};
      heads.out = d_head, heads.out_type = ARBOR_F32, heads.out_ld = hidden_size, heads.beta = 1;
      code = product(stream, op, heads);
    }
    if (code != ARBOR_OK) return code;
  }
  ARBOR_BY_TYPE(type, op, {
    scatter<<<unsigned(tokens), kScatterThreads, 0, s>>>(static_cast<T *>(d_hidden), d_pairs, rows, pairs, hidden_size);
  });
  return launched(stream, op);
}
