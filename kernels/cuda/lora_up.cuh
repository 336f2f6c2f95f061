// scale xa bᵀ and the bias for rows that decode: left undone by arbor_linear, and done by the op that reads the outputs next, in its own kernel, where
// it knows how (rope, swiglu, the norm): a launch and a pass over the outputs less. Whatever op comes instead does it first, on its own (lora_up.cu).
#pragma once

#include <type_traits>

#include "lora.cuh"

namespace arbor {

constexpr int kGroup = 8; // rows that share a read of b

// Runs of rows under one adapter, or under none (rank 0), in groups of 8.
struct Runs {
  int32_t count = 0;
  int32_t pieces = 0;
  bool rounded = false; // xa and b to bf16, as the tensor cores take them in a prompt and in training
  const float *sums = nullptr;
  const float *bias = nullptr;
  int32_t groups = 0;
  int32_t first_group[2 * kMostAdapters + 1];
  int64_t start[2 * kMostAdapters + 1]; // of its sums
  Adapter at[2 * kMostAdapters + 1];

  size_t shared_bytes() const; // of kGroup rows of xa
};

// What a linear has left undone.
struct Pending {
  void *y = nullptr; // null: nothing
  int32_t y_type = 0;
  const float *bias = nullptr;
  int64_t tokens = 0, out = 0;
  Adapters adapters;
  PieceSums sums;

  // Every row is in a run with `all_rows` or a bias.
  Runs runs(bool all_rows) const;
  // What all adapters have; 0 where they differ.
  int32_t rank() const;
};

Pending &pending_of(arbor_stream *stream);
// Does what is left undone.
void finish_pending(arbor_stream *stream);
// The work left undone on these outputs, which is the caller's from now on; nothing (false) where its kernels don't know these ranks or this type.
bool take_pending(arbor_stream *stream, const void *y, int32_t type, int64_t tokens, int64_t out, Pending &taken);

// Calls run(std::integral_constant<int, rank>) for a rank that `take_pending` lets through.
template <class Run> void by_rank(int32_t rank, const Run &run) {
  rank == 8 ? run(std::integral_constant<int, 8>()) : rank == 16 ? run(std::integral_constant<int, 16>()) : run(std::integral_constant<int, 32>());
}

// ---- device -------------------------------------------------------------------------------------------------------------------

// The pieces' sums in order. `stride`: from a piece to the next.
__device__ __forceinline__ float add_pieces(const float *sums, int64_t stride, int32_t pieces) {
  constexpr int kAtOnce = 6;
  float total = 0;
  for (int32_t start = 0; start < pieces; start += kAtOnce) { // loads under way together, added in order
    float values[kAtOnce];
#pragma unroll
    for (int j = 0; j < kAtOnce; j++) values[j] = start + j < pieces ? sums[(start + j) * stride] : 0.0f;
#pragma unroll
    for (int j = 0; j < kAtOnce; j++) total += values[j];
  }
  return total;
}

__device__ __forceinline__ float factor(const Runs &runs, float value) { return runs.rounded ? to_float(__float2bfloat16_rn(value)) : value; }

// An output with its adapter's share, scale times `low`, and its bias. A prompt's rows are rounded once they have the first, and again with the second.
// (fmaf in so many words, here and in what follows: a row has the same bits whichever kernel finishes it, so none is left to the compiler.)
template <class Y> __device__ __forceinline__ Y finished(const Runs &runs, float y, float scale, float low, float bias) {
  const float sum = fmaf(scale, low, y);
  return from_float<Y>((runs.rounded ? to_float(from_float<Y>(sum)) : sum) + bias);
}

// Rows of one run: those that a block works on together, or one.
struct Group {
  int32_t run = 0, first, count = 1;

  __device__ __forceinline__ static Group of_number(const Runs &runs, int32_t number) {
    Group group;
    while (group.run + 1 < runs.count && number >= runs.first_group[group.run + 1]) group.run++;
    group.first = (number - runs.first_group[group.run]) * kGroup;
    group.count = min(kGroup, runs.at[group.run].row_count - group.first);
    return group;
  }
  __device__ __forceinline__ static Group of_row(const Runs &runs, int32_t row) {
    Group group;
    while (group.run + 1 < runs.count && row >= runs.at[group.run + 1].row_start) group.run++;
    group.first = row - runs.at[group.run].row_start;
    return group;
  }
};

// x aᵀ of a group's rows into shared memory; the block that is to `keep` it writes it down as well.
__device__ __forceinline__ void load_xa(float *shared, const Runs &runs, const Group &group, bool keep) {
  const Adapter &adapter = runs.at[group.run];
  const int32_t width = adapter.width();
  const float *sums = runs.sums + runs.start[group.run] + int64_t(group.first) * width;
  for (int i = threadIdx.x; i < group.count * width; i += blockDim.x) {
    const float value = add_pieces(sums + i, int64_t(adapter.row_count) * width, runs.pieces);
    shared[i] = factor(runs, value);
    if (keep) adapter.xa[int64_t(group.first) * width + i] = value;
  }
}

template <int kRank> __device__ __forceinline__ float inner_product(const float *a, const float (&b)[kRank]) {
  float sum = 0;
#pragma unroll
  for (int r = 0; r < kRank; r++) sum = fmaf(a[r], b[r], sum);
  return sum;
}

// A row of b, rounded where a prompt's is. `b` is aligned to 16 bytes.
template <int kRank> __device__ __forceinline__ void load_b(float (&to)[kRank], const Runs &runs, const float *b) {
#pragma unroll
  for (int r = 0; r < kRank; r += 4) *reinterpret_cast<float4 *>(to + r) = *reinterpret_cast<const float4 *>(b + r);
#pragma unroll
  for (int r = 0; r < kRank; r++) to[r] = factor(runs, to[r]);
}

// Finishes this thread's `columns` of the block's rows (blockIdx.y: its group) and gives each row's to `each(row, outputs)`. Rows of b wait in registers
// for the kernels before to end. `shared` holds kGroup rows of xa. All of a block's threads come here; `there`: whether the columns are.
template <int kRank, class Y, int kColumns, class Each>
__device__ __forceinline__ void finish_rows(Y *y, int64_t out, const Runs &runs, const int64_t (&columns)[kColumns], bool there, float *shared,
                                            const Each &each) {
  const Group group = Group::of_number(runs, int32_t(blockIdx.y));
  const Adapter &adapter = runs.at[group.run];
  const bool adapted = adapter.rank > 0;
  float b[kColumns][kRank] = {}, plain[kColumns] = {};
  int32_t offset[kColumns] = {};
#pragma unroll
  for (int c = 0; c < kColumns; c++) {
    if (there && adapted) load_b(b[c], runs, adapter.b + columns[c] * kRank), offset[c] = adapter.part_of(columns[c]) * kRank;
    if (there && runs.bias) plain[c] = runs.bias[columns[c]];
  }
  after_kernels_before();
  load_xa(shared, runs, group, blockIdx.x == 0);
  Y *const rows = y + (int64_t(adapter.row_start) + group.first) * out;
  float values[kGroup][kColumns] = {};
#pragma unroll
  for (int j = 0; j < kGroup; j++)
#pragma unroll
    for (int c = 0; c < kColumns; c++)
      if (there && j < group.count) values[j][c] = to_float(rows[j * out + columns[c]]);
  __syncthreads();
  if (!there) return;
#pragma unroll
  for (int j = 0; j < kGroup; j++) {
    if (j >= group.count) continue;
    Y outputs[kColumns];
#pragma unroll
    for (int c = 0; c < kColumns; c++) {
      const float low = adapted ? inner_product(shared + j * adapter.width() + offset[c], b[c]) : 0.0f;
      outputs[c] = finished<Y>(runs, values[j][c], adapter.scale, low, plain[c]);
      rows[j * out + columns[c]] = outputs[c];
    }
    each(int64_t(adapter.row_start) + group.first + j, outputs);
  }
}

} // namespace arbor
