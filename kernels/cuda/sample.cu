// One token for each row of logits, a block a row behind a first reading by many (sample_shares.cuh). src/engine/sampling.ts is the definition of every step; here exponentials are f32, their sums
// double, and truncation selects by digits of the logits instead of sorting them.

#include "sample_border.cuh"
#include "sample_shares.cuh"

namespace arbor {
namespace {

using namespace sampling;

struct Wish {
  float temperature, top_p, min_p, penalty, uniform;
  int32_t top_k, history_start, history_count, allowed; // 1 + its row of bits, 0: every token may come
};

// Where this row keeps logits as they were: behind those of the rows before it. Null when there is no room.
__device__ float *untouched_place(float *untouched, int64_t room, const int32_t *ints, int32_t count) {
  __shared__ int32_t before;
  if (threadIdx.x == 0) before = 0;
  __syncthreads();
  for (int row = threadIdx.x; row < int(blockIdx.x); row += kThreads) atomicAdd(&before, max(ints[row * 4 + 2], 0));
  __syncthreads();
  return int64_t(before) + count <= room ? untouched + before : nullptr;
}

// False when the history points nowhere.
__device__ bool penalise(float *x, int64_t vocab, const Wish &wish, const int32_t *history, float *untouched, int64_t capacity, Fault *fault) {
  if (wish.history_start < 0 || int64_t(wish.history_start) + wish.history_count > capacity || !untouched) {
    if (threadIdx.x == 0) report(fault, kFaultSample, int64_t(wish.history_start) + wish.history_count, capacity + 1);
    return false;
  }
  for (int32_t i = threadIdx.x; i < wish.history_count; i += kThreads) {
    const int32_t token = history[wish.history_start + i];
    if (uint64_t(int64_t(token)) >= uint64_t(vocab)) {
      report(fault, kFaultSample, token, vocab);
      continue;
    }
    const float value = x[token];
    untouched[i] = value;
    x[token] = float(value > 0 ? double(value) / double(wish.penalty) : double(value) * double(wish.penalty));
  }
  __syncthreads();
  return true;
}

// Tokens that may not come become impossible. False when there is no such row of bits.
__device__ bool forbid(float *x, int64_t vocab, int32_t row, const int32_t *allowed, int64_t allowed_rows, Fault *fault) {
  if (row < 0 || !allowed || row >= allowed_rows) {
    if (threadIdx.x == 0) report(fault, kFaultSample, row, allowed ? allowed_rows : 0);
    return false;
  }
  const int32_t *bits = allowed + row * ceil_div(vocab, 32);
  for (int64_t i = threadIdx.x; i < vocab; i += kThreads)
    if (!(uint32_t(bits[i >> 5]) >> (i & 31) & 1)) x[i] = -INFINITY;
  __syncthreads();
  return true;
}

__global__ __launch_bounds__(kThreads) void sample(float *logits, const Share *shares, const float *floats, const int32_t *ints, const int32_t *history, const int32_t *allowed,
                                                   float *untouched, int32_t *tokens, float *logprobs, int64_t vocab, int64_t capacity,
                                                   int64_t allowed_rows, int64_t room, Fault *fault) {
  __shared__ Shared shared;
  const int64_t row = blockIdx.x;
  float *x = logits + row * vocab;
  const float *f = floats + row * 6;
  const int32_t *n = ints + row * 4;
  after_kernels_before();
  Wish wish{f[0], f[1], f[2], f[3], f[4], n[0], n[1], n[2], n[3]};
  const float temperature = temperature_of(f);
  const double at_one = log(join_shares(shared, shares + row * ceil_div(vocab, kBlock), x, vocab, temperature));
  const float first_peak = shared.peak;
  const double at_temperature = log(shared.total);

  bool changed = wish.allowed != 0 && forbid(x, vocab, wish.allowed - 1, allowed, allowed_rows, fault);
  if (wish.penalty != 1.0f && wish.history_count > 0) untouched = untouched_place(untouched, room, ints, wish.history_count);
  const bool penalised = wish.penalty != 1.0f && wish.history_count > 0 && penalise(x, vocab, wish, history, untouched, capacity, fault);
  changed = changed || penalised;
  if (changed) find_best(shared, x, vocab);
  const float peak = shared.peak;
  if (wish.temperature > 0) {
    if (changed) sum_weights(shared, x, vocab, peak, temperature);
    const bool by_count = wish.top_k > 0 && wish.top_k < vocab, by_mass = wish.top_p < 1.0f;
    if (by_count || by_mass || wish.min_p > 0) {
      Border border{0, 0x7fffffff, 0};
      if (by_count) border = find_border(shared, x, vocab, peak, temperature, wish.top_k, 0);
      if (by_mass) {
        const double mass = by_count ? double(border.mass) : shared.total * kUnit;
        const Border tighter = find_border(shared, x, vocab, peak, temperature, 0, (unsigned long long)(double(wish.top_p) * mass));
        if (tighter.key > border.key || (tighter.key == border.key && tighter.ties < border.ties)) border = tighter;
      }
      cut(shared, x, vocab, border, peak, temperature, wish.min_p, shared.token);
      sum_weights(shared, x, vocab, peak, temperature);
    }
    draw(shared, x, vocab, peak, temperature, wish.uniform);
  }
  const int32_t chosen = shared.token;
  if (threadIdx.x == 0) shared.chosen = x[chosen];
  __syncthreads();
  if (penalised)
    for (int32_t i = threadIdx.x; i < wish.history_count; i += kThreads)
      if (history[wish.history_start + i] == chosen) shared.chosen = untouched[i];
  __syncthreads();
  if (threadIdx.x != 0) return;
  tokens[row] = chosen;
  const double above = double(shared.chosen) - double(first_peak);
  logprobs[2 * row] = float(above / double(temperature) - at_temperature);
  logprobs[2 * row + 1] = float(above - at_one);
}

} // namespace
} // namespace arbor

int32_t arbor_sample(arbor_stream *stream, float *logits, const float *floats, const int32_t *ints, const int32_t *history, const int32_t *allowed,
                     int32_t *tokens, float *logprobs, int64_t rows, int64_t vocab, int64_t history_capacity, int64_t allowed_rows) {
  using namespace arbor;
  const bool valid = given(logits, floats, ints, history, tokens, logprobs) && rows >= 0 && vocab > 0 && history_capacity >= 0;
  ARBOR_ENTER(stream, "arbor_sample", valid);
  if (vocab > int64_t(sampling::kMostBlocks) * sampling::kBlock) return unsupported("arbor_sample", "vocabularies of up to 524,288 tokens");
  if (rows == 0) return ARBOR_OK;
  const int64_t room = history_capacity + 1024 * rows; // histories may overlap
  const int64_t blocks = ceil_div(vocab, sampling::kBlock), share_bytes = rows * blocks * int64_t(sizeof(sampling::Share));
  char *const memory = static_cast<char *>(scratch(stream, 1, share_bytes + 4 * room));
  if (!memory) return ARBOR_OUT_OF_MEMORY;
  sampling::Share *const shares = reinterpret_cast<sampling::Share *>(memory);
  float *const untouched = reinterpret_cast<float *>(memory + share_bytes);
  launch_after(sampling::find_shares, dim3(unsigned(rows), unsigned(ceil_div(blocks, sampling::kShareWarps))), 32 * sampling::kShareWarps, 0, cuda_stream(stream),
               shares, logits, floats, vocab);
  launch_after(sample, dim3(unsigned(rows)), sampling::kThreads, 0, cuda_stream(stream), logits, shares, floats, ints, history, allowed, untouched, tokens,
               logprobs, vocab, history_capacity, allowed_rows, room, fault_of(stream));
  return launched(stream, "arbor_sample");
}
