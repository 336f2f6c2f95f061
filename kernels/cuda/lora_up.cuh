// scale xa bᵀ and the bias for rows that decode: left undone by arbor_linear, and done by the op that reads the outputs next, in its own kernel, where
// it knows how (rope, swiglu, the norm): a launch and a pass over the outputs less. Whatever op comes instead does it first, on its own (lora_up.cu).
//
// A warp has 16 rows and 32 columns of the outputs: two products m16n8k16 for each 16 ranks and 8 columns. The columns are dealt so that a thread ends
// up with 8 neighbours of a row, 16 bytes. All it reads is asked for at once: these kernels are short, and wait for memory more than for anything else.
#pragma once

#include "lora.cuh"
#include "mma.cuh"

namespace arbor {

constexpr int kGroup = 16; // rows of a warp

// Up to kMost runs of rows under one adapter, or under none (rank 0), in groups of 16. Kernels have a size for few of them: a graph of a whole pass holds
// the parameters of a hundred such launches.
template <int kMost> struct RunsOf {
  int32_t count = 0;
  const bf16 *outputs = nullptr; // unfinished
  int64_t ld = 0;
  const float *bias = nullptr;
  int32_t groups = 0, pieces = 0;
  int32_t first_group[kMost];
  const bf16 *low[kMost];  // x aᵀ of the run's rows …
  const float *sums[kMost]; // … or its pieces' sums
  int64_t low_ld[kMost];
  Adapter at[kMost];

  size_t shared_bytes() const; // of kGroup rows of xa
};
constexpr int kFewRuns = 3, kManyRuns = 2 * kMostAdapters + 1;
using Runs = RunsOf<kManyRuns>;
RunsOf<kFewRuns> few(const Runs &runs);

// Calls launch(runs) with as small parameters as hold them.
template <class Launch> void with_runs(const Runs &runs, const Launch &launch) { runs.count <= kFewRuns ? launch(few(runs)) : launch(runs); }

// What a linear has left undone.
struct Pending {
  void *y = nullptr; // bf16; null: nothing
  const float *bias = nullptr;
  int64_t tokens = 0, out = 0;
  Adapters adapters;
  Unfinished unfinished;

  Runs runs() const; // every row is in one
};

Pending &pending_of(arbor_stream *stream);
// Does what is left undone.
void finish_pending(arbor_stream *stream);
// The work left undone on these outputs, which is the caller's from now on; nothing (false) where its kernels don't take these adapters (of up to so many
// `members`) or this type.
bool take_pending(arbor_stream *stream, const void *y, int32_t type, int64_t tokens, int64_t out, Pending &taken, int32_t members = kParts);

// ---- device -------------------------------------------------------------------------------------------------------------------

// An output with its adapter's share, scale times `low`, and its bias. A prompt's rows are rounded once they have the first, and again with the second.
// (fmaf in so many words: a row has the same bits whichever kernel finishes it, so none is left to the compiler.)
__device__ __forceinline__ bf16 finished(float y, float scale, float low, float bias, bool rounded) {
  const float sum = fmaf(scale, low, y);
  return from_float<bf16>((rounded ? to_float(from_float<bf16>(sum)) : sum) + bias);
}

// Rows of one run: those that a warp works on together, or one.
struct Group {
  int32_t run = 0, first, count = 1;

  template <class Runs> __device__ __forceinline__ static Group of_number(const Runs &runs, int32_t number) {
    Group group;
    while (group.run + 1 < runs.count && number >= runs.first_group[group.run + 1]) group.run++;
    group.first = (number - runs.first_group[group.run]) * kGroup;
    group.count = min(kGroup, runs.at[group.run].row_count - group.first);
    return group;
  }
  template <class Runs> __device__ __forceinline__ static Group of_row(const Runs &runs, int32_t row) {
    Group group;
    while (group.run + 1 < runs.count && row >= runs.at[group.run + 1].row_start) group.run++;
    group.first = row - runs.at[group.run].row_start;
    return group;
  }
};

// low[tile][i]: what a thread has of xa bᵀ for the warp's rows and the 32 columns from `first` on, a multiple of 32: of row (lane / 4) i = 0, 1 and of
// the row 8 below i = 2, 3, at columns 8 (lane % 4) + 2 tile and the next.
using LowSums = float[4][4];

// What a thread needs for 16 ranks of it, of the member that column `first` belongs to, from rank k on. Loading and multiplying are apart, so that all
// loads of a warp are under way together.
struct Xa {
  uint32_t at[4]; // pairs of neighbours, as the left operand has them

  template <class Runs> __device__ __forceinline__ void load(const Runs &runs, const Group &group, int64_t first, int k) {
    const Adapter &adapter = runs.at[group.run];
    const int lane = int(threadIdx.x) & 31, line = lane >> 2;
    const int64_t ld = runs.low_ld[group.run], place = (group.first + line) * ld + adapter.part_of(first) * adapter.rank + k + (lane & 3) * 2;
    each(group, adapter, k, [&](int i, bool there) {
      at[i] = there ? *reinterpret_cast<const uint32_t *>(runs.low[group.run] + place + (i & 1) * 8 * ld + (i >> 1) * 8) : 0;
    });
  }
  // Writes it down, for those who ask for it later: by the warp that has a member's first columns.
  template <class Runs> __device__ __forceinline__ void keep(const Runs &runs, const Group &group, int64_t first, int k) const {
    const Adapter &adapter = runs.at[group.run];
    if (first != 0 && adapter.part_of(first - 1) == adapter.part_of(first)) return;
    const int lane = int(threadIdx.x) & 31, line = lane >> 2, width = adapter.width();
    float *to = adapter.xa + int64_t(group.first + line) * width + adapter.part_of(first) * adapter.rank + k + (lane & 3) * 2;
    each(group, adapter, k, [&](int i, bool there) {
      if (there) *reinterpret_cast<float2 *>(to + (i & 1) * 8 * width + (i >> 1) * 8) = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162 *>(at + i));
    });
  }

private:
  template <class Visit> __device__ __forceinline__ static void each(const Group &group, const Adapter &adapter, int k, const Visit &visit) {
#pragma unroll
    for (int i = 0; i < 4; i++) visit(i, (int(threadIdx.x & 31) >> 2) + (i & 1) * 8 < group.count && k + (i >> 1) * 8 < adapter.rank);
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
  __device__ __forceinline__ void multiply(LowSums &low, const Xa &xa) const {
#pragma unroll
    for (int tile = 0; tile < 4; tile++) mma(low[tile], xa.at, pack_pair(at[tile][0].x, at[tile][0].y), pack_pair(at[tile][1].x, at[tile][1].y));
  }
};

// Finishes eight neighbouring outputs: columns `column` on, of the row 8 · below below the warp's line.
template <class Runs>
__device__ __forceinline__ void finish_pack(Pack<bf16> &outputs, const Runs &runs, const Adapter &adapter, const LowSums &low, int below, int64_t column) {
#pragma unroll
  for (int i = 0; i < 8; i++)
    outputs.at[i] = finished(to_float(outputs.at[i]), adapter.scale, low[i >> 1][below * 2 + (i & 1)], runs.bias ? runs.bias[column + i] : 0.0f, true);
}

// Finishes group `number`'s rows at kSets times 32 columns, from first[...] on, after the kernels before. `each` is asked to begin with a row
// (begin(below, row): what it needs of memory) and to end with its outputs (end(below, row, outputs)): thread by thread 8 columns of each set.
template <class Runs, int kSets, class Each>
__device__ __forceinline__ void finish_columns(bf16 *y, int64_t out, const Runs &runs, int32_t number, const int64_t (&first)[kSets], Each &each) {
  const Group group = Group::of_number(runs, number);
  const Adapter &adapter = runs.at[group.run];
  const int lane = int(threadIdx.x) & 31, line = lane >> 2, column = (lane & 3) * 8;
  const int64_t row = int64_t(adapter.row_start) + group.first + line;
  after_kernels_before();
  Pack<bf16> outputs[2][kSets];
#pragma unroll
  for (int below = 0; below < 2; below++) {
    if (line + below * 8 >= group.count) continue;
    each.begin(below, row + below * 8);
#pragma unroll
    for (int s = 0; s < kSets; s++) outputs[below][s] = load_pack(runs.outputs + (row + below * 8) * runs.ld + first[s] + column);
  }
  LowSums low[kSets] = {};
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
      finish_pack(outputs[below][s], runs, adapter, low[s], below, first[s] + column);
      store_pack(y + (row + below * 8) * out + first[s] + column, outputs[below][s]);
    }
    each.end(below, row + below * 8, outputs[below]);
  }
}

} // namespace arbor
