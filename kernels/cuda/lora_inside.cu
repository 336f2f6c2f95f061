// Adapters take columns of the lengthened sum, each its own, zeros in all other rows: those change no bit, as every column of an adapter begins at a
// multiple of 16, a step of the tensor cores. A number that isn't finite would (0 · ∞), so b and a are held to what bf16 can say. Adapters that find no
// room together have products of their own, over their rows.

#include "lora_inside.cuh"

#include <algorithm>

#include "mma.cuh"
#include "products.cuh"

namespace arbor {
namespace {

constexpr int kWide = 9; // scratch memory
constexpr int kThreads = 256, kRows = kThreads / kSpareColumns; // a block's
constexpr int kHeld = 4;                  // pieces of a row that a thread asks for before it waits
constexpr int kInside = 8;                // most adapters of a product
constexpr float kLargest = 3.3895314e38f; // of bf16

// Adapters of one product: the column where each begins, its number among those given.
struct Inside {
  int32_t count = 0;
  int32_t columns[kInside], numbers[kInside];
  int64_t first = 0, end = 0; // rows of the product
  Adapter at[kInside];

  // The adapter that has this column, if any, and which of its own it is; of a row, where one is named.
  struct Found {
    int32_t i = -1, k = 0;
  };
  __device__ __forceinline__ Found find(int32_t column, int64_t row = -1) const {
    for (int32_t i = 0; i < count; i++) {
      const Adapter &adapter = at[i];
      const bool has_row = row < 0 || (row >= adapter.row_start && row < int64_t(adapter.row_start) + adapter.row_count);
      if (has_row && column >= columns[i] && column < columns[i] + padded_width(adapter)) return {i, column - columns[i]};
    }
    return {};
  }
};

// `can`: the weight's shape and the adapter say so. An adapter on rows of one before it is beside.
template <class Can> DividedAdapters divide(const Adapters &adapters, const Can &can) {
  DividedAdapters divided;
  int64_t end = 0;
  for (int32_t i = 0; i < adapters.count; i++) {
    const Adapter &adapter = adapters.at[i];
    if (adapter.row_count == 0) continue;
    const bool inside = adapter.row_start >= end && can(adapter);
    Adapters &to = inside ? divided.inside : divided.beside;
    to.at[to.count++] = adapter;
    end = std::max(end, int64_t(adapter.row_start) + adapter.row_count);
  }
  return divided;
}

// From adapter `next` on as many as find room; `next` is then the first that doesn't.
Inside take_adapters(const Adapters &adapters, int32_t &next, int64_t tokens) {
  Inside inside;
  inside.first = next == 0 ? 0 : adapters.at[next].row_start;
  for (int32_t taken = 0; next < adapters.count && inside.count < kInside; next++) {
    const Adapter &adapter = adapters.at[next];
    int32_t column = taken;
    for (int32_t i = 0; i < inside.count; i++) // one adapter on several runs of rows
      if (inside.at[i].a == adapter.a && inside.at[i].b == adapter.b) column = inside.columns[i];
    if (column == taken) {
      if (taken + padded_width(adapter) > kSpareColumns) break;
      taken += padded_width(adapter);
    }
    inside.columns[inside.count] = column, inside.numbers[inside.count] = next, inside.at[inside.count++] = adapter;
  }
  inside.end = next == adapters.count ? tokens : adapters.at[next].row_start;
  return inside;
}

__device__ __forceinline__ uint32_t held_pair(float low, float high) {
  return pack_pair(fminf(fmaxf(low, -kLargest), kLargest), fminf(fmaxf(high, -kLargest), kLargest));
}
// Eight values, held to what is finite.
__device__ __forceinline__ uint4 held(const float *from) {
  const float4 low = *reinterpret_cast<const float4 *>(from), high = *reinterpret_cast<const float4 *>(from + 4);
  return make_uint4(held_pair(low.x, low.y), held_pair(low.z, low.w), held_pair(high.x, high.y), held_pair(high.z, high.w));
}

// Behind x: scale times the pieces' sums of x aᵀ, which become xa as well. Behind the weight's columns: b.
struct Forward {
  Inside inside;
  const float *sums[kInside];
  int32_t pieces;
  bf16 *weight;
  int64_t in, out;

  __device__ __forceinline__ bf16 value(int64_t row, const Inside::Found &found) const {
    const auto [i, k] = found;
    const Adapter &adapter = inside.at[i];
    if (k >= adapter.width()) return from_float<bf16>(0.0f);
    const int64_t at = (row - adapter.row_start) * adapter.width() + k;
    const float total = add_pieces(sums[i] + at, int64_t(adapter.row_count) * adapter.width(), pieces);
    adapter.xa[at] = total;
    return from_float<bf16>(adapter.scale * total);
  }
  __host__ __device__ int64_t weight_pieces() const { return out * kSpareColumns / 8; }
  __device__ __forceinline__ void lay(int64_t piece) const {
    const int64_t o = piece / (kSpareColumns / 8);
    const int32_t column = int32_t(piece % (kSpareColumns / 8)) * 8;
    const auto [i, k] = inside.find(column);
    uint4 values = make_uint4(0, 0, 0, 0);
    if (i >= 0) {
      const Adapter &adapter = inside.at[i];
      if (k < adapter.width() && k / adapter.rank == adapter.part_of(o)) values = held(adapter.b + o * adapter.rank + k % adapter.rank);
    }
    *reinterpret_cast<uint4 *>(weight + o * (in + kSpareColumns) + in + column) = values;
  }
};

// Behind dy: dyb, scale times the sums of dy b over the blocks of the pass, for the pass over x as well. Behind the weight's rows: a.
struct Backward {
  Inside inside;
  const float *sums[kInside];
  bf16 *dyb[kInside];
  bf16 *weight;
  int64_t in, out;

  __device__ __forceinline__ bf16 value(int64_t row, const Inside::Found &found) const {
    const auto [i, k] = found;
    const Adapter &adapter = inside.at[i];
    const int32_t part = k / adapter.rank;
    const int64_t size = int64_t(adapter.row_count) * adapter.rank, own = row - adapter.row_start;
    float total = 0;
    if (k < adapter.width()) {
      int32_t before = 0;
      for (int32_t p = 0; p < part; p++) before += blocks_of_part(adapter, p);
      total = add_pieces(sums[i] + before * size + own * adapter.rank + k % adapter.rank, size, blocks_of_part(adapter, part));
    }
    return dyb[i][own * padded_width(adapter) + k] = from_float<bf16>(adapter.scale * total);
  }
  __host__ __device__ int64_t weight_pieces() const { return in / 8 * kSpareColumns; }
  __device__ __forceinline__ void lay(int64_t piece) const {
    const int64_t at = piece % (in / 8) * 8;
    const int32_t column = int32_t(piece / (in / 8));
    const auto [i, k] = inside.find(column);
    const bool there = i >= 0 && k < inside.at[i].width();
    const uint4 values = there ? held(inside.at[i].a + k * in + at) : make_uint4(0, 0, 0, 0);
    *reinterpret_cast<uint4 *>(weight + (out + column) * (in + kSpareColumns) + at) = values;
  }
};

// Rows of `from`, which is two launches old, with room behind them; blocks from `row_blocks` on see to the weight's.
template <class Direction>
__global__ __launch_bounds__(kThreads) void widen(bf16 *wide, const bf16 *from, int64_t width, int32_t row_blocks, const __grid_constant__ Direction of) {
  if (int32_t(blockIdx.x) >= row_blocks) {
    const int64_t piece = int64_t(blockIdx.x - row_blocks) * kThreads + threadIdx.x;
    after_kernels_before();
    if (piece < of.weight_pieces()) of.lay(piece);
    return;
  }
  const int64_t first = of.inside.first + int64_t(blockIdx.x) * kRows, ld = width + kSpareColumns;
  const int rows = int(min(int64_t(kRows), of.inside.end - first)), each = int(width / 8), pieces = rows * each;
  const auto load = [&](int i) { return *reinterpret_cast<const uint4 *>(from + (first + i / each) * width + i % each * 8); };
  const auto store = [&](int i, const uint4 &piece) { *reinterpret_cast<uint4 *>(wide + (first + i / each) * ld + i % each * 8) = piece; };
  uint4 held[kHeld];
#pragma unroll
  for (int h = 0; h < kHeld; h++)
    if (const int i = int(threadIdx.x) + h * kThreads; i < pieces) held[h] = load(i);
  after_kernels_before();
  const int row = int(threadIdx.x) / kSpareColumns, column = int(threadIdx.x) % kSpareColumns;
  if (row < rows) {
    const Inside::Found found = of.inside.find(column, first + row);
    wide[(first + row) * ld + width + column] = found.i < 0 ? from_float<bf16>(0.0f) : of.value(first + row, found);
  }
#pragma unroll
  for (int h = 0; h < kHeld; h++)
    if (const int i = int(threadIdx.x) + h * kThreads; i < pieces) store(i, held[h]);
  for (int i = int(threadIdx.x) + kHeld * kThreads; i < pieces; i += kThreads) store(i, load(i));
}

template <class Direction> void launch_widen(cudaStream_t on, bf16 *wide, const void *from, int64_t width, const Direction &of) {
  const int64_t row_blocks = ceil_div(of.inside.end - of.inside.first, kRows), blocks = row_blocks + ceil_div(of.weight_pieces(), kThreads);
  launch_after(widen<Direction>, dim3(unsigned(blocks)), kThreads, 0, on, wide, static_cast<const bf16 *>(from), width, int32_t(row_blocks), of);
}

// Room for rows of `from`'s width and more.
bf16 *room_for(arbor_stream *stream, int64_t tokens, int64_t width) {
  return static_cast<bf16 *>(scratch(stream, kWide, tokens * (width + kSpareColumns) * 2));
}

// The product over the rows of `inside`: [rows, width + room] times the weight, into `columns` columns.
int32_t multiply_wide(arbor_stream *stream, const char *op, const Inside &inside, const bf16 *wide, int64_t width, const Operand &weight, void *to,
                      int32_t to_type, int64_t columns) {
  Product all{inside.end - inside.first, columns, width + kSpareColumns};
  all.a = {wide + inside.first * all.depth, ARBOR_BF16, all.depth};
  all.b = weight;
  all.out = static_cast<char *>(to) + inside.first * columns * (to_type == ARBOR_BF16 ? 2 : 4);
  all.out_type = to_type, all.out_ld = columns, all.by_row = true, all.usual_depth = width;
  return product(stream, op, all);
}

} // namespace

bool inside_forward(int32_t type, const void *x, int32_t weight_type, int64_t in, int64_t out, const Adapter &adapter) {
  const bool pays = weight_type == ARBOR_BF16_ROOMY && 2 * out >= in;
  return pays && padded_width(adapter) <= kSpareColumns && projects_down(type, x, in, adapter) && adds_rounded(adapter, out);
}

DividedAdapters divide_forward(int32_t type, const void *x, int32_t weight_type, int64_t in, int64_t out, const Adapters &adapters) {
  return divide(adapters, [&](const Adapter &adapter) { return inside_forward(type, x, weight_type, in, out, adapter); });
}

DividedAdapters divide_backward(int32_t type, const void *dx, const void *dy, const void *x, int32_t weight_type, int64_t in, int64_t out,
                                const Adapters &adapters) {
  const bool pays = dx && weight_type == ARBOR_BF16_ROOMY && 2 * in >= out;
  return divide(adapters, [&](const Adapter &adapter) {
    return pays && padded_width(adapter) <= kSpareColumns && gradients_by_passes(type, dx, dy, x, in, out, adapter);
  });
}

int32_t multiply_inside(arbor_stream *stream, void *y, int32_t y_type, const void *x, const void *weight, int64_t tokens, int64_t in, int64_t out,
                        const Adapters &adapters) {
  PieceSums sums;
  bf16 *const wide = room_for(stream, tokens, in);
  if (!wide || !project_down(stream, x, tokens, in, adapters, sums)) return ARBOR_OUT_OF_MEMORY;
  for (int32_t next = 0; next < adapters.count;) {
    Forward of{};
    of.inside = take_adapters(adapters, next, tokens);
    for (int32_t i = 0; i < of.inside.count; i++) of.sums[i] = sums.at + sums.start[of.inside.numbers[i]];
    of.pieces = sums.pieces, of.weight = static_cast<bf16 *>(const_cast<void *>(weight)), of.in = in, of.out = out;
    launch_widen(cuda_stream(stream), wide, x, in, of);
    const int32_t code =
        multiply_wide(stream, "arbor_linear", of.inside, wide, in, {weight, ARBOR_BF16, in + kSpareColumns, true}, y, y_type, out);
    if (code != ARBOR_OK) return code;
  }
  return launched(stream, "arbor_linear");
}

int32_t multiply_back_inside(arbor_stream *stream, void *dx, const void *dy, const void *weight, int64_t tokens, const Gradients &gradients) {
  const int64_t in = gradients.in, out = gradients.out;
  bf16 *const wide = room_for(stream, tokens, out);
  if (!wide) return ARBOR_OUT_OF_MEMORY;
  for (int32_t next = 0; next < gradients.adapters.count;) {
    Backward of{};
    of.inside = take_adapters(gradients.adapters, next, tokens);
    for (int32_t i = 0; i < of.inside.count; i++) {
      const GradientPlace &place = gradients.places[of.inside.numbers[i]];
      of.sums[i] = gradients.sums + place.dyb_sums, of.dyb[i] = gradients.dyb + place.dyb;
    }
    of.weight = static_cast<bf16 *>(const_cast<void *>(weight)), of.in = in, of.out = out;
    launch_widen(cuda_stream(stream), wide, dy, out, of);
    const int32_t code =
        multiply_wide(stream, "arbor_linear_backward", of.inside, wide, out, {weight, ARBOR_BF16, in + kSpareColumns}, dx, ARBOR_BF16, in);
    if (code != ARBOR_OK) return code;
  }
  return launched(stream, "arbor_linear_backward");
}

} // namespace arbor
