// Adapters beside a product of many rows: x aᵀ by cuBLASLt, its product with b where y is touched anyway; gradients as small products.

#include "lora.cuh"

#include <cmath>

#include "convert.cuh"
#include "products.cuh"

namespace arbor {

bool read_adapters(Adapters &to, const double *loras, int64_t count, int64_t tokens, int64_t out, bool backward) {
  if (count < 0 || count > kMostAdapters || (count > 0 && !loras)) return false;
  to.count = int32_t(count);
  const auto pointer = [](double number) { return reinterpret_cast<float *>(uint64_t(number)); };
  for (int64_t i = 0; i < count; i++) {
    const double *n = loras + i * kLoraNumbers;
    Adapter &a = to.at[i];
    a.row_start = int32_t(n[0]), a.row_count = int32_t(n[1]), a.rank = int32_t(n[2]), a.scale = float(n[3]);
    int64_t rows = 0;
    a.part_count = 0;
    for (int p = 0; p < kParts; p++) {
      a.parts[p] = int32_t(n[4 + p]);
      rows += a.parts[p];
      if (a.parts[p] > 0) a.part_count = p + 1;
    }
    a.a = pointer(n[8]), a.b = pointer(n[9]), a.xa = pointer(n[10]), a.da = pointer(n[11]), a.db = pointer(n[12]);
    if (a.row_start < 0 || a.row_count < 0 || int64_t(a.row_start) + a.row_count > tokens || a.rank < 1 || rows != out) return false;
    if (!given(a.a, a.b, a.xa) || (backward && !given(a.da, a.db))) return false;
  }
  return true;
}

namespace {

constexpr int kAddThreads = 128;
constexpr int kAddRows = 32; // tokens a block takes
constexpr int kMostRank = 32;

// A thread an output: its row of b stays in registers while it goes through the block's tokens. kRank 0: no adapter, the bias alone.
template <class Y, int kRank> __global__ void add_to_outputs(Y *y, const float *bias, int64_t tokens, int64_t out, int64_t first_row, Adapter adapter) {
  extern __shared__ float xa[]; // [kAddRows][width]
  const int64_t o = int64_t(blockIdx.x) * kAddThreads + threadIdx.x, first = int64_t(blockIdx.y) * kAddRows;
  const int rows = int(min(int64_t(kAddRows), tokens - first)), width = adapter.width();
  if constexpr (kRank > 0) {
    for (int i = threadIdx.x; i < rows * width; i += kAddThreads) xa[i] = adapter.xa[first * width + i];
    __syncthreads();
  }
  if (o >= out) return;
  float b[kRank > 0 ? kRank : 1];
  int offset = 0;
  if constexpr (kRank > 0) {
    const int rank = adapter.rank;
    offset = adapter.part_of(o) * rank;
#pragma unroll
    for (int r = 0; r < kRank; r++) b[r] = r < rank ? adapter.b[o * rank + r] * adapter.scale : 0.0f;
  }
  const float plain = bias ? bias[o] : 0.0f;
  for (int row = 0; row < rows; row++) {
    Y *place = y + (first_row + first + row) * out + o;
    float sum = to_float(*place) + plain;
    if constexpr (kRank > 0) {
      float low = 0;
#pragma unroll
      for (int r = 0; r < kRank; r++) low += (r < adapter.rank ? xa[row * width + offset + r] : 0.0f) * b[r];
      sum += low;
    }
    *place = from_float<Y>(sum);
  }
}

// Any rank, one row of b read again for each token.
template <class Y> __global__ void add_large_rank(Y *y, const float *bias, int64_t out, int64_t first_row, Adapter adapter) {
  const int64_t o = int64_t(blockIdx.x) * kAddThreads + threadIdx.x, row = blockIdx.y;
  if (o >= out) return;
  const float *xa = adapter.xa + row * adapter.width() + adapter.part_of(o) * adapter.rank, *b = adapter.b + o * adapter.rank;
  float low = 0;
  for (int r = 0; r < adapter.rank; r++) low += xa[r] * b[r];
  Y *place = y + (first_row + row) * out + o;
  *place = from_float<Y>(to_float(*place) + (bias ? bias[o] : 0.0f) + adapter.scale * low);
}

// Rows [first_row, first_row + tokens) of y.
template <class Y>
void add_outputs(arbor_stream *stream, Y *y, const float *bias, int64_t first_row, int64_t tokens, int64_t out, const Adapter *adapter) {
  if (tokens <= 0 || (!adapter && !bias)) return;
  const cudaStream_t s = cuda_stream(stream);
  const dim3 grid(unsigned(ceil_div(out, kAddThreads)), unsigned(ceil_div(tokens, kAddRows)));
  if (!adapter)
    add_to_outputs<Y, 0><<<grid, kAddThreads, 0, s>>>(y, bias, tokens, out, first_row, Adapter{});
  else if (adapter->rank > kMostRank)
    add_large_rank<<<dim3(grid.x, unsigned(tokens)), kAddThreads, 0, s>>>(y, bias, out, first_row, *adapter);
  else {
    const size_t shared = size_t(kAddRows) * size_t(adapter->width()) * 4;
    const auto run = [&](auto kernel) { kernel<<<grid, kAddThreads, shared, s>>>(y, bias, tokens, out, first_row, *adapter); };
    adapter->rank <= 8 ? run(add_to_outputs<Y, 8>) : adapter->rank <= 16 ? run(add_to_outputs<Y, 16>) : run(add_to_outputs<Y, kMostRank>);
  }
}

// Pieces of the stream's scratch memory, taken one after the other.
struct Pieces {
  char *at;
  void *take(int64_t bytes) {
    void *piece = at;
    at += ceil_div(bytes, 256) * 256;
    return piece;
  }
};

int64_t padded(int64_t bytes) { return ceil_div(bytes, 256) * 256; }

// `values` in the type of the activations: themselves, or a copy.
const void *in_type(arbor_stream *stream, int32_t type, const float *values, int64_t count, Pieces &pieces, float scale = 1) {
  if (type == ARBOR_F32) return values;
  void *copy = pieces.take(count * 2);
  to_bf16(stream, copy, values, count, scale);
  return copy;
}

int64_t element(int32_t type) { return type == ARBOR_BF16 ? 2 : 4; }

} // namespace

int32_t add_adapters(arbor_stream *stream, int32_t type, void *y, int32_t y_type, const void *x, const float *bias, int64_t tokens, int64_t in,
                     int64_t out, const Adapters &adapters) {
  const auto outputs = [&](int64_t first, int64_t count, const Adapter *adapter) {
    if (y_type == ARBOR_BF16)
      add_outputs(stream, static_cast<bf16 *>(y), bias, first, count, out, adapter);
    else
      add_outputs(stream, static_cast<float *>(y), bias, first, count, out, adapter);
  };
  int64_t done = 0; // rows before have their bias
  for (int32_t i = 0; i < adapters.count; i++) {
    const Adapter &adapter = adapters.at[i];
    if (adapter.row_count == 0) continue;
    const int64_t width = adapter.width();
    char *memory = static_cast<char *>(scratch(stream, 1, padded(width * in * 2)));
    if (!memory) return ARBOR_OUT_OF_MEMORY;
    Pieces pieces{memory};
    Product xa{adapter.row_count, width, in};
    xa.a = {static_cast<const char *>(x) + adapter.row_start * in * element(type), type, in};
    xa.b = {in_type(stream, type, adapter.a, width * in, pieces), type, in, true};
    xa.out = adapter.xa, xa.out_type = ARBOR_F32, xa.out_ld = width, xa.by_row = true;
    const int32_t code = product(stream, "arbor_linear", xa);
    if (code != ARBOR_OK) return code;
    outputs(done, adapter.row_start - done, nullptr);
    outputs(adapter.row_start, adapter.row_count, &adapter);
    done = adapter.row_start + adapter.row_count;
  }
  outputs(done, tokens - done, nullptr);
  return launched(stream, "arbor_linear");
}

int32_t add_adapter_gradients(arbor_stream *stream, int32_t type, void *dx, const void *dy, const void *x, int64_t in, int64_t out,
                              const Adapters &adapters) {
  const char *op = "arbor_linear_backward";
  for (int32_t i = 0; i < adapters.count; i++) {
    const Adapter &g = adapters.at[i];
    if (g.row_count == 0) continue;
    const int64_t width = g.width(), rows = g.row_count, size = element(type);
    char *memory = static_cast<char *>(
        scratch(stream, 1, padded(width * in * 2) + padded(out * g.rank * 2) + padded(rows * width * 2) + padded(rows * width * size)));
    if (!memory) return ARBOR_OUT_OF_MEMORY;
    Pieces pieces{memory};
    const char *dys = static_cast<const char *>(dy) + g.row_start * out * size, *xs = static_cast<const char *>(x) + g.row_start * in * size;
    const void *a = in_type(stream, type, g.a, width * in, pieces), *b = in_type(stream, type, g.b, out * g.rank, pieces);
    const char *xa = static_cast<const char *>(in_type(stream, type, g.xa, rows * width, pieces));
    char *dyb = static_cast<char *>(pieces.take(rows * width * size)); // scale dy b, [rows, width]
    int32_t code = ARBOR_OK;
    int64_t first = 0; // output row of the part
    for (int32_t p = 0; p < g.part_count && code == ARBOR_OK; first += g.parts[p++]) {
      const int64_t part = g.parts[p], place = p * g.rank;
      if (part == 0) continue;
      Product down{rows, g.rank, part};
      down.a = {dys + first * size, type, out};
      down.b = {static_cast<const char *>(b) + first * g.rank * size, type, g.rank};
      down.out = dyb + place * size, down.out_type = type, down.out_ld = width, down.alpha = g.scale;
      code = product(stream, op, down);
      if (code != ARBOR_OK) break;
      Product db{part, g.rank, rows};
      db.a = {dys + first * size, type, out, true};
      db.b = {xa + place * size, type, width};
      db.out = g.db + first * g.rank, db.out_type = ARBOR_F32, db.out_ld = g.rank, db.alpha = g.scale, db.beta = 1;
      code = product(stream, op, db);
    }
    if (code != ARBOR_OK) return code;
    Product da{width, in, rows};
    da.a = {dyb, type, width, true}, da.b = {xs, type, in};
    da.out = g.da, da.out_type = ARBOR_F32, da.out_ld = in, da.beta = 1;
    code = product(stream, op, da);
    if (code != ARBOR_OK || !dx) {
      if (code != ARBOR_OK) return code;
      continue;
    }
    Product up{rows, in, width};
    up.a = {dyb, type, width}, up.b = {a, type, in};
    up.out = static_cast<char *>(dx) + g.row_start * in * size, up.out_type = type, up.out_ld = in, up.beta = 1;
    code = product(stream, op, up);
    if (code != ARBOR_OK) return code;
  }
  return ARBOR_OK;
}

} // namespace arbor
