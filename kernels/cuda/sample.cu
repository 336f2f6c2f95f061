// One token for each row of logits, a block a row. src/engine/sampling.ts is the definition of every step; here exponentials are f32, their sums
// double, and truncation selects by digits of the logits instead of sorting them.

#include "stream.cuh"

namespace arbor {
namespace {

constexpr int kThreads = 1024, kWarps = kThreads / 32;
constexpr int kBlock = 1024;     // tokens summed at a time
constexpr int kMostBlocks = 512; // so at most 524,288 tokens
constexpr double kUnit = 1099511627776.0; // 2^40: weights as whole numbers, whose sums have no order

struct Wish {
  float temperature, top_p, min_p, penalty, uniform;
  int32_t top_k, history_start, history_count, allowed; // 1 + its row of bits, 0: every token may come
};

struct Shared {
  double sums[kMostBlocks];
  unsigned long long masses[256];
  int32_t counts[256], ties[kMostBlocks];
  float best[kWarps];
  int32_t at[kWarps];
  // Decided by one thread for all.
  float peak;
  int32_t token, digit, needed;
  unsigned long long mass;
  double total;
};

// Floats in the order of unsigned numbers.
__device__ __forceinline__ uint32_t key_of(float x) {
  const uint32_t bits = __float_as_uint(x);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// The largest value and the lowest id that has it: into shared.peak, shared.token.
__device__ void find_best(Shared &shared, const float *x, int64_t vocab) {
  float best = -INFINITY;
  int32_t at = 0x7fffffff;
  const auto take = [&](float value, int32_t id) {
    if (value > best || (value == best && id < at)) best = value, at = id;
  };
  int64_t done = 0;
  if (vocab % 4 == 0) { // rows begin at multiples of 16 bytes
    constexpr int kAhead = 4; // loads under way together
    for (; done + 4 * kAhead * kThreads <= vocab; done += 4 * kAhead * kThreads) {
      float4 values[kAhead];
#pragma unroll
      for (int j = 0; j < kAhead; j++) values[j] = reinterpret_cast<const float4 *>(x + done)[j * kThreads + threadIdx.x];
#pragma unroll
      for (int j = 0; j < kAhead; j++) {
        const int32_t id = int32_t(done) + 4 * (j * kThreads + int32_t(threadIdx.x));
        take(values[j].x, id), take(values[j].y, id + 1), take(values[j].z, id + 2), take(values[j].w, id + 3);
      }
    }
  }
  for (int64_t i = done + threadIdx.x; i < vocab; i += kThreads) take(x[i], int32_t(i));
  for (int offset = 16; offset > 0; offset >>= 1)
    take(__shfl_xor_sync(0xffffffffu, best, offset), __shfl_xor_sync(0xffffffffu, at, offset));
  if ((threadIdx.x & 31) == 0) shared.best[threadIdx.x >> 5] = best, shared.at[threadIdx.x >> 5] = at;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int w = 1; w < kWarps; w++) take(shared.best[w], shared.at[w]);
    shared.peak = best;
    shared.token = at == 0x7fffffff ? 0 : at;
  }
  __syncthreads();
}

__device__ __forceinline__ float weight_of(float x, float peak, float temperature) { return expf((x - peak) / temperature); }

// Weights' sums block by block, in shared.sums; their total in shared.total.
__device__ void sum_weights(Shared &shared, const float *x, int64_t vocab, float peak, float temperature) {
  const int lane = threadIdx.x & 31;
  const int32_t blocks = int32_t(ceil_div(vocab, kBlock));
  for (int32_t b = threadIdx.x >> 5; b < blocks; b += kWarps) {
    double sum = 0;
    const int64_t end = min(vocab, int64_t(b + 1) * kBlock);
    constexpr int kAhead = 8; // loads under way together; added in order
    for (int64_t first = int64_t(b) * kBlock + lane; first < end; first += 32 * kAhead) {
      float values[kAhead];
#pragma unroll
      for (int j = 0; j < kAhead; j++) values[j] = first + 32 * j < end ? x[first + 32 * j] : -INFINITY;
#pragma unroll
      for (int j = 0; j < kAhead; j++) sum += double(weight_of(values[j], peak, temperature));
    }
    for (int offset = 16; offset > 0; offset >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    if (lane == 0) shared.sums[b] = sum;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    double total = 0;
    for (int32_t b = 0; b < blocks; b++) total += shared.sums[b];
    shared.total = total;
  }
  __syncthreads();
}

// Inverse CDF in order of token id: the first token at which the running sum passes u · total, into shared.token.
__device__ void draw(Shared &shared, const float *x, int64_t vocab, float peak, float temperature, float uniform) {
  const int32_t blocks = int32_t(ceil_div(vocab, kBlock));
  const double goal = double(uniform) * shared.total;
  if (threadIdx.x >= 32) return;
  const int lane = threadIdx.x;
  int32_t b = 0, held = 0; // the block sought; the last one with any weight
  double before = 0;
  for (; b < blocks; b++) {
    if (before + shared.sums[b] > goal) break;
    if (shared.sums[b] > 0) held = b;
    before += shared.sums[b];
  }
  const bool past_end = b == blocks; // u so close to 1 that rounding decides: the last token of any weight
  if (past_end) b = held;
  const int64_t begin = int64_t(b) * kBlock, end = min(vocab, begin + kBlock);
  int32_t found = -1, last = int32_t(begin);
  double sum = past_end ? 0 : before;
  for (int64_t start = begin; start < end && found < 0; start += 32) {
    const int64_t i = start + lane;
    const double weight = i < end ? double(weight_of(x[i], peak, temperature)) : 0.0;
    double running = weight; // inclusive sums over the lanes
    for (int offset = 1; offset < 32; offset <<= 1) {
      const double other = __shfl_up_sync(0xffffffffu, running, offset);
      if (lane >= offset) running += other;
    }
    const uint32_t passed = __ballot_sync(0xffffffffu, !past_end && weight > 0 && sum + running > goal);
    const uint32_t there = __ballot_sync(0xffffffffu, weight > 0);
    if (passed) found = int32_t(start) + __ffs(int(passed)) - 1;
    if (there) last = int32_t(start) + 31 - __clz(int(there));
    sum += __shfl_sync(0xffffffffu, running, 31);
  }
  if (lane == 0) shared.token = found >= 0 ? found : last;
}

// Where a prefix of the tokens, best first, ends: tokens above `key` and the first `ties` (by id) of those equal to it.
struct Border {
  uint32_t key;
  int32_t ties;
  unsigned long long mass; // of the prefix
};

__device__ __forceinline__ unsigned long long mass_of(float x, float peak, float temperature) {
  return (unsigned long long)(double(weight_of(x, peak, temperature)) * kUnit);
}

// The shortest prefix of `count` tokens, or, with count 0, of at least `goal` mass.
__device__ Border find_border(Shared &shared, const float *x, int64_t vocab, float peak, float temperature, int32_t count, unsigned long long goal) {
  uint32_t prefix = 0;
  unsigned long long above = 0; // mass of the tokens above what is still open
  int32_t above_count = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    if (threadIdx.x < 256) shared.counts[threadIdx.x] = 0, shared.masses[threadIdx.x] = 0;
    __syncthreads();
    for (int64_t i = threadIdx.x; i < vocab; i += kThreads) {
      const uint32_t key = key_of(x[i]);
      if (shift < 24 && (key >> (shift + 8)) != prefix) continue;
      atomicAdd(&shared.counts[key >> shift & 255], 1);
      atomicAdd(&shared.masses[key >> shift & 255], mass_of(x[i], peak, temperature));
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      int digit = 255;
      unsigned long long mass = above;
      int32_t held = above_count;
      int last = 255; // the lowest digit that occurs, should the goal lie within rounding of all there is
      for (; digit >= 0; digit--) {
        if (shared.counts[digit] == 0) continue;
        last = digit;
        const bool enough = count > 0 ? held + shared.counts[digit] >= count : mass + shared.masses[digit] >= goal;
        if (enough) break;
        mass += shared.masses[digit], held += shared.counts[digit];
      }
      if (digit < 0) digit = last, mass -= shared.masses[last], held -= shared.counts[last];
      shared.digit = digit, shared.mass = mass, shared.needed = held;
    }
    __syncthreads();
    prefix = prefix << 8 | uint32_t(shared.digit);
    above = shared.mass, above_count = shared.needed;
    __syncthreads();
  }
  // All that is left has one value.
  const uint32_t bits = prefix & 0x80000000u ? prefix & 0x7fffffffu : ~prefix;
  const unsigned long long one = mass_of(__uint_as_float(bits), peak, temperature);
  const int32_t there = shared.counts[prefix & 255];
  __syncthreads(); // the next search clears them
  int32_t ties = count > 0 ? count - above_count : (one == 0 ? there : int32_t(min((unsigned long long)there, (goal - above + one - 1) / one)));
  if (ties < 1) ties = 1;
  return {prefix, ties, above + (unsigned long long)ties * one};
}

// Tokens beyond the border or too unlikely become impossible.
__device__ void cut(Shared &shared, float *x, int64_t vocab, Border border, float peak, float temperature, float min_p, int32_t best) {
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  const int32_t blocks = int32_t(ceil_div(vocab, kBlock));
  for (int32_t b = warp; b < blocks; b += kWarps) { // how many of the border's value lie in each block
    int32_t ties = 0;
    for (int32_t j = 0; j < kBlock; j += 32) {
      const int64_t i = int64_t(b) * kBlock + j + lane;
      ties += __popc(__ballot_sync(0xffffffffu, i < vocab && key_of(x[i]) == border.key));
    }
    if (lane == 0) shared.ties[b] = ties;
  }
  __syncthreads();
  if (threadIdx.x == 0)
    for (int32_t b = 0, before = 0; b < blocks; b++) {
      const int32_t own = shared.ties[b];
      shared.ties[b] = before;
      before += own;
    }
  __syncthreads();
  for (int32_t b = warp; b < blocks; b += kWarps) {
    int32_t before = shared.ties[b];
    for (int32_t j = 0; j < kBlock; j += 32) {
      const int64_t i = int64_t(b) * kBlock + j + lane;
      const float value = i < vocab ? x[i] : -INFINITY;
      const uint32_t key = key_of(value);
      const uint32_t ties = __ballot_sync(0xffffffffu, i < vocab && key == border.key);
      const bool kept = key > border.key || (key == border.key && before + __popc(ties & ((1u << lane) - 1)) < border.ties);
      if (i < vocab && i != best && (!kept || weight_of(value, peak, temperature) < min_p)) x[i] = -INFINITY;
      before += __popc(ties);
    }
  }
  __syncthreads();
}

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

__global__ __launch_bounds__(kThreads) void sample(float *logits, const float *floats, const int32_t *ints, const int32_t *history, const int32_t *allowed,
                                                   float *untouched, int32_t *tokens, float *logprobs, int64_t vocab, int64_t capacity,
                                                   int64_t allowed_rows, int64_t room, Fault *fault) {
  __shared__ Shared shared;
  const int64_t row = blockIdx.x;
  float *x = logits + row * vocab;
  const float *f = floats + row * 6;
  const int32_t *n = ints + row * 4;
  after_kernels_before();
  Wish wish{f[0], f[1], f[2], f[3], f[4], n[0], n[1], n[2], n[3]};
  const float temperature = wish.temperature > 0 ? wish.temperature : 1.0f;
  find_best(shared, x, vocab);
  const float first_peak = shared.peak;
  sum_weights(shared, x, vocab, first_peak, 1.0f);
  const double at_one = log(shared.total);
  __syncthreads();
  if (temperature != 1.0f) sum_weights(shared, x, vocab, first_peak, temperature);
  const double at_temperature = log(shared.total);
  __syncthreads();

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
    __syncthreads();
  }
  const int32_t chosen = shared.token;
  if (threadIdx.x == 0) shared.best[0] = x[chosen];
  __syncthreads();
  if (penalised)
    for (int32_t i = threadIdx.x; i < wish.history_count; i += kThreads)
      if (history[wish.history_start + i] == chosen) shared.best[0] = untouched[i];
  __syncthreads();
  if (threadIdx.x != 0) return;
  tokens[row] = chosen;
  const double above = double(shared.best[0]) - double(first_peak);
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
  if (vocab > int64_t(kMostBlocks) * kBlock) return unsupported("arbor_sample", "vocabularies of up to 524,288 tokens");
  if (rows == 0) return ARBOR_OK;
  const int64_t room = history_capacity + 1024 * rows; // histories may overlap
  float *untouched = static_cast<float *>(scratch(stream, 1, 4 * room));
  if (!untouched) return ARBOR_OUT_OF_MEMORY;
  launch_after(sample, dim3(unsigned(rows)), kThreads, 0, cuda_stream(stream), logits, floats, ints, history, allowed, untouched, tokens,
               logprobs, vocab, history_capacity, allowed_rows, room, fault_of(stream));
  return launched(stream, "arbor_sample");
}
