// scale xa bᵀ and the bias for rows that decode: left undone by arbor_linear, and done by the op that reads the outputs next, in its own kernel, where
// it knows how (rope, swiglu, the norm): a launch and a pass over the outputs less. Whatever op comes instead does it first, on its own (lora_up.cu).
//
// A warp has 16 rows and 32 columns of the outputs: two products m16n8k16 for each 16 ranks and 8 columns. The columns are dealt so that a thread ends
// up with 8 neighbours of a row, 16 bytes. All it reads is asked for at once: these kernels are short, and wait for memory more than for anything else.
#pragma once

#include "lora.cuh"
#include "mma.cuh"

namespace arbor {

constexpr int kGroup = 16;   // rows of a warp
constexpr int kColumns = 32; // its columns

// Runs of rows under one adapter, or under none (rank 0), in groups of 16.
struct Runs {
  int32_t count = 0;
  int32_t pieces = 0;
  const float *sums = nullptr;
  const float *bias = nullptr;
  int32_t groups = 0;
  int32_t first_group[2 * kMostAdapters + 1];
  int64_t start[2 * kMostAdapters + 1]; // of its sums
  Adapter at[2 * kMostAdapters + 1];

  void add(const Adapter &adapter, int64_t its_sums);
  Runs only(bool on_tensor_cores, int64_t out) const;
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
};

Pending &pending_of(arbor_stream *stream);
// Does what is left undone.
void finish_pending(arbor_stream *stream);
// The work left undone on these outputs, which is the caller's from now on; nothing (false) where its kernels don't take these adapters or this type.
bool take_pending(arbor_stream *stream, const void *y, int32_t type, int64_t tokens, int64_t out, Pending &taken);

// Whether an adapter's share is computed on tensor cores, of xa and b rounded to bf16 as a prompt's is. It hangs on the adapter alone.
inline bool up_on_tensor_cores(const Adapter &adapter, int64_t out) {
  bool even = adapter.rank % 8 == 0 && out % kColumns == 0;
  for (int p = 0; p < adapter.part_count; p++) even = even && adapter.parts[p] % kColumns == 0;
  return even;
}

// ---- device -------------------------------------------------------------------------------------------------------------------

// The pieces' sums of two neighbours in order. `stride`: floats from a piece to the next.
__device__ __forceinline__ float2 add_pieces(const float *sums, int64_t stride, int32_t pieces) {
  constexpr int kAtOnce = 6;
  float2 total = make_float2(0, 0);
  for (int32_t start = 0; start < pieces; start += kAtOnce) { // loads under way together, added in order
    float2 values[kAtOnce];
#pragma unroll
    for (int j = 0; j < kAtOnce; j++)
      values[j] = start + j < pieces ? __ldcg(reinterpret_cast<const float2 *>(sums + (start + j) * stride)) : make_float2(0, 0);
#pragma unroll
    for (int j = 0; j < kAtOnce; j++) total.x += values[j].x, total.y += values[j].y;
  }
  return total;
}
__device__ __forceinline__ float add_pieces_singly(const float *sums, int64_t stride, int32_t pieces) {
  float total = 0;
  for (int32_t piece = 0; piece < pieces; piece++) total += sums[piece * stride];
  return total;
}

// An output with its adapter's share, scale times `low`, and its bias. A prompt's rows are rounded once they have the first, and again with the second.
// (fmaf in so many words: a row has the same bits whichever kernel finishes it, so none is left to the compiler.)
template <class Y> __device__ __forceinline__ Y finished(float y, float scale, float low, float bias, bool rounded) {
  const float sum = fmaf(scale, low, y);
  return from_float<Y>((rounded ? to_float(from_float<Y>(sum)) : sum) + bias);
}

// Rows of one run: those that a warp works on together, or one.
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

// low[tile][i]: what a thread has of xa bᵀ for the warp's rows and the 32 columns from `first` on, a multiple of 32: of row (lane / 4) i = 0, 1 and of
// the row 8 below i = 2, 3, at columns 8 (lane % 4) + 2 tile and the next.
using LowRank = float[4][4];

// What a thread needs for 16 ranks of it, of the member that column `first` belongs to, from rank k on. Loading and multiplying are apart, so that all
// loads of a warp are under way together.
struct Xa {
  float2 at[4];
  int64_t place; // of the first in the adapter's xa

  __device__ __forceinline__ void load(const Runs &runs, const Group &group, int64_t first, int k) {
    const Adapter &adapter = runs.at[group.run];
    const int lane = int(threadIdx.x) & 31, line = lane >> 2, width = adapter.width();
    place = int64_t(group.first + line) * width + adapter.part_of(first) * adapter.rank + k + (lane & 3) * 2;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const float *sums = runs.sums + runs.start[group.run] + place + (i & 1) * 8 * width + (i >> 1) * 8;
      at[i] = there(group, adapter, i, k) ? add_pieces(sums, int64_t(adapter.row_count) * width, runs.pieces) : make_float2(0, 0);
    }
  }
  // Writes it down, for those who ask for it later: by the warp that has a member's first columns.
  __device__ __forceinline__ void keep(const Runs &runs, const Group &group, int64_t first, int k) const {
    const Adapter &adapter = runs.at[group.run];
    if (first != 0 && adapter.part_of(first - 1) == adapter.part_of(first)) return;
#pragma unroll
    for (int i = 0; i < 4; i++)
      if (there(group, adapter, i, k)) *reinterpret_cast<float2 *>(adapter.xa + place + (i & 1) * 8 * adapter.width() + (i >> 1) * 8) = at[i];
  }

private:
  __device__ __forceinline__ static bool there(const Group &group, const Adapter &adapter, int i, int k) {
    return (int(threadIdx.x & 31) >> 2) + (i & 1) * 8 < group.count && k + (i >> 1) * 8 < adapter.rank;
  }
};
struct B {
  float2 at[4][2];

  __device__ __forceinline__ void load(const Adapter &adapter, int64_t first, int k) {
    const int lane = int(threadIdx.x) & 31, line = lane >> 2, rank = adapter.rank;
    const float *from = adapter.b + (first + (line >> 1) * 8 + (line & 1)) * rank + k + (lane & 3) * 2;
#pragma unroll
    for (int tile = 0; tile < 4; tile++) {
      at[tile][0] = *reinterpret_cast<const float2 *>(from + tile * 2 * rank);
      at[tile][1] = k + 8 < rank ? *reinterpret_cast<const float2 *>(from + tile * 2 * rank + 8) : make_float2(0, 0);
    }
  }
  __device__ __forceinline__ void multiply(LowRank &low, const Xa &xa) const {
    uint32_t left[4];
#pragma unroll
    for (int i = 0; i < 4; i++) left[i] = pack_pair(xa.at[i].x, xa.at[i].y);
#pragma unroll
    for (int tile = 0; tile < 4; tile++) mma(low[tile], left, pack_pair(at[tile][0].x, at[tile][0].y), pack_pair(at[tile][1].x, at[tile][1].y));
  }
};

// Eight neighbouring outputs of a row.
template <class Y> struct alignas(16) Eight {
  Y at[8];
  __device__ __forceinline__ static Eight load(const Y *from) {
    Eight eight;
#pragma unroll
    for (int i = 0; i < int(sizeof(Eight) / 16); i++) reinterpret_cast<uint4 *>(&eight)[i] = reinterpret_cast<const uint4 *>(from)[i];
    return eight;
  }
  __device__ __forceinline__ void store(Y *to) const {
#pragma unroll
    for (int i = 0; i < int(sizeof(Eight) / 16); i++) reinterpret_cast<uint4 *>(to)[i] = reinterpret_cast<const uint4 *>(this)[i];
  }
  // Finishes them: columns `column` on, of the row 8 · below below the warp's line.
  __device__ __forceinline__ void finish(const Runs &runs, const Adapter &adapter, const LowRank &low, int below, int64_t column) {
#pragma unroll
    for (int i = 0; i < 8; i++)
      at[i] = finished<Y>(to_float(at[i]), adapter.scale, low[i >> 1][below * 2 + (i & 1)], runs.bias ? runs.bias[column + i] : 0.0f, true);
  }
};

// Finishes group `number`'s rows at kSets times 32 columns, from first[...] on, after the kernels before. `each` is asked to begin with a row
// (begin(below, row): what it needs of memory) and to end with its outputs (end(below, row, outputs)): thread by thread 8 columns of each set.
template <class Y, int kSets, class Each>
__device__ __forceinline__ void finish_columns(Y *y, int64_t out, const Runs &runs, int32_t number, const int64_t (&first)[kSets], Each &each) {
  const Group group = Group::of_number(runs, number);
  const Adapter &adapter = runs.at[group.run];
  const int lane = int(threadIdx.x) & 31, line = lane >> 2, column = (lane & 3) * 8;
  const int64_t row = int64_t(adapter.row_start) + group.first + line;
  after_kernels_before();
  Eight<Y> outputs[2][kSets];
#pragma unroll
  for (int below = 0; below < 2; below++) {
    if (line + below * 8 >= group.count) continue;
    each.begin(below, row + below * 8);
#pragma unroll
    for (int s = 0; s < kSets; s++) outputs[below][s] = Eight<Y>::load(y + (row + below * 8) * out + first[s] + column);
  }
  LowRank low[kSets] = {};
  for (int k = 0; k < adapter.rank; k += 16) {
    Xa xa[kSets];
    B b[kSets];
#pragma unroll
    for (int s = 0; s < kSets; s++) xa[s].load(runs, group, first[s], k), b[s].load(adapter, first[s], k);
#pragma unroll
    for (int s = 0; s < kSets; s++) b[s].multiply(low[s], xa[s]), xa[s].keep(runs, group, first[s], k);
  }
#pragma unroll
  for (int below = 0; below < 2; below++) {
    if (line + below * 8 >= group.count) continue;
#pragma unroll
    for (int s = 0; s < kSets; s++) {
      outputs[below][s].finish(runs, adapter, low[s], below, first[s] + column);
      outputs[below][s].store(y + (row + below * 8) * out + first[s] + column);
    }
    each.end(below, row + below * 8, outputs[below]);
  }
}

} // namespace arbor
