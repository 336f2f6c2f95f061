// y += bias + scale xa bᵀ, a pass over y. A thread takes two neighbouring outputs and keeps their rows of b in registers while it goes through the
// block's tokens, four at a time: their loads are under way together.

#include "lora_add.cuh"

namespace arbor {
namespace {

constexpr int kThreads = 128;
constexpr int kAtOnce = 4; // tokens
constexpr int kMostRank = 32;

template <class Y> struct Two;
template <> struct Two<bf16> {
  typedef __nv_bfloat162 Word;
  __device__ static float2 floats(Word w) { return __bfloat1622float2(w); }
  __device__ static Word word(float2 v) { return __floats2bfloat162_rn(v.x, v.y); }
};
template <> struct Two<float> {
  typedef float2 Word;
  __device__ static float2 floats(Word w) { return w; }
  __device__ static Word word(float2 v) { return v; }
};

// Which rows a launch takes: those of one adapter, or of none.
struct Rows {
  int64_t first, count;
  int64_t out;
  int at_a_time; // a block's
};

// kRank 0: no adapter, the bias alone. `out` and the adapter's parts are even.
template <class Y, int kRank> __global__ void add_pairs(Y *y, const float *bias, Rows rows, const __grid_constant__ Adapter adapter) {
  using Word = typename Two<Y>::Word;
  extern __shared__ float xa[]; // [rows of the block][width]
  const int64_t o = 2 * (int64_t(blockIdx.x) * kThreads + threadIdx.x), first = int64_t(blockIdx.y) * rows.at_a_time;
  const int count = int(min(int64_t(rows.at_a_time), rows.count - first)), width = kRank > 0 ? adapter.width() : 0;
  if constexpr (kRank > 0) {
    for (int i = threadIdx.x; i < count * width; i += kThreads) xa[i] = adapter.xa[first * width + i];
    __syncthreads();
  }
  if (o >= rows.out) return;
  float b0[kRank > 0 ? kRank : 1], b1[kRank > 0 ? kRank : 1];
  int offset = 0;
  if constexpr (kRank > 0) {
    const int rank = adapter.rank;
    offset = adapter.part_of(o) * rank;
#pragma unroll
    for (int r = 0; r < kRank; r++) {
      b0[r] = r < rank ? adapter.b[o * rank + r] * adapter.scale : 0.0f;
      b1[r] = r < rank ? adapter.b[(o + 1) * rank + r] * adapter.scale : 0.0f;
    }
  }
  const float2 plain = bias ? make_float2(bias[o], bias[o + 1]) : make_float2(0, 0);
  Word *column = reinterpret_cast<Word *>(y + (rows.first + first) * rows.out + o);
  const int64_t step = rows.out / 2;
  for (int row = 0; row < count; row += kAtOnce) {
    Word words[kAtOnce];
#pragma unroll
    for (int j = 0; j < kAtOnce; j++)
      if (row + j < count) words[j] = column[(row + j) * step];
#pragma unroll
    for (int j = 0; j < kAtOnce; j++) {
      if (row + j >= count) break;
      float2 sum = Two<Y>::floats(words[j]);
      sum.x += plain.x, sum.y += plain.y;
      if constexpr (kRank > 0) {
        const float *low = xa + (row + j) * width + offset;
        float2 added = make_float2(0, 0);
#pragma unroll
        for (int r = 0; r < kRank; r++) {
          const float v = r < adapter.rank ? low[r] : 0.0f;
          added.x += v * b0[r], added.y += v * b1[r];
        }
        sum.x += added.x, sum.y += added.y;
      }
      column[(row + j) * step] = Two<Y>::word(sum);
    }
  }
}

// Any rank and any widths: a thread an output, b read again for each token.
template <class Y> __global__ void add_singly(Y *y, const float *bias, Rows rows, const __grid_constant__ Adapter adapter, bool adapted) {
  const int64_t o = int64_t(blockIdx.x) * kThreads + threadIdx.x, row = blockIdx.y;
  if (o >= rows.out) return;
  float low = 0;
  if (adapted) {
    const float *xa = adapter.xa + row * adapter.width() + adapter.part_of(o) * adapter.rank, *b = adapter.b + o * adapter.rank;
    for (int r = 0; r < adapter.rank; r++) low += xa[r] * (b[r] * adapter.scale);
  }
  Y *place = y + (rows.first + row) * rows.out + o;
  *place = from_float<Y>(to_float(*place) + (bias ? bias[o] : 0.0f) + low);
}

bool even(const Adapter *adapter, int64_t out) {
  bool all = out % 2 == 0;
  for (int p = 0; adapter && p < adapter->part_count; p++) all = all && adapter->parts[p] % 2 == 0;
  return all;
}

constexpr int64_t kMostBlocks = 65535; // of a grid's second dimension

template <class Y> void add(arbor_stream *stream, Y *y, const float *bias, Rows rows, const Adapter *adapter) {
  if (rows.count <= 0 || (!adapter && !bias)) return;
  const cudaStream_t s = cuda_stream(stream);
  const Adapter one = adapter ? *adapter : Adapter{};
  if (!even(adapter, rows.out) || (adapter && adapter->rank > kMostRank)) {
    const Rows all = rows;
    for (int64_t done = 0; done < all.count; done += kMostBlocks) {
      rows.count = min(kMostBlocks, all.count - done);
      rows.first = all.first + done;
      Adapter here = one;
      if (adapter) here.xa += done * one.width();
      add_singly<<<dim3(unsigned(ceil_div(rows.out, kThreads)), unsigned(rows.count)), kThreads, 0, s>>>(y, bias, rows, here, adapter != nullptr);
    }
    return;
  }
  const dim3 grid(unsigned(ceil_div(rows.out, 2 * kThreads)), unsigned(ceil_div(rows.count, rows.at_a_time)));
  const size_t shared = adapter ? size_t(rows.at_a_time) * size_t(one.width()) * 4 : 0;
  const auto run = [&](auto kernel) { kernel<<<grid, kThreads, shared, s>>>(y, bias, rows, one); };
  const int rank = adapter ? one.rank : 0;
  rank == 0 ? run(add_pairs<Y, 0>) : rank <= 8 ? run(add_pairs<Y, 8>) : rank <= 16 ? run(add_pairs<Y, 16>) : run(add_pairs<Y, kMostRank>);
}

} // namespace

void add_all(arbor_stream *stream, void *y, int32_t y_type, const float *bias, int64_t tokens, int64_t out, const Adapters &adapters, int rows) {
  const auto outputs = [&](int64_t first, int64_t count, const Adapter *adapter) {
    if (y_type == ARBOR_BF16)
      add(stream, static_cast<bf16 *>(y), bias, {first, count, out, rows}, adapter);
    else
      add(stream, static_cast<float *>(y), bias, {first, count, out, rows}, adapter);
  };
  int64_t done = 0;
  for (int32_t i = 0; i < adapters.count; i++) {
    const Adapter &adapter = adapters.at[i];
    if (adapter.row_count == 0) continue;
    outputs(done, adapter.row_start - done, nullptr);
    outputs(adapter.row_start, adapter.row_count, &adapter);
    done = int64_t(adapter.row_start) + adapter.row_count;
  }
  outputs(done, tokens - done, nullptr);
}

} // namespace arbor
