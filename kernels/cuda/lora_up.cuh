// scale xa bᵀ and the bias for rows that decode: left undone by arbor_linear, and done by the op that reads the outputs next, in its own kernel, where
// it knows how (rope, swiglu): a launch and a pass over the outputs less. Whatever op comes instead does it first, on its own (lora_up.cu).
//
// A warp has 16 rows and 32 columns of the outputs: two products m16n8k16 for each 16 ranks and 8 columns. The columns are dealt so that a thread ends
// up with 8 neighbours of a row, 16 bytes. All it reads is asked for at once: these kernels are short, and wait for memory more than for anything else.
#pragma once

#include <type_traits>

#include "lora.cuh"
#include "mma.cuh"

namespace arbor {

constexpr int kGroup = 16; // rows of a warp

// Up to kMost runs of rows under one adapter, or under none (rank 0), in groups of 16. Kernels have a size for few of them: a graph of a whole pass holds
// the parameters of a hundred such launches.
template <int kMost> struct RunsOf {
  int32_t count = 0;
  const float *outputs = nullptr; // unfinished: [terms, tokens, ld], as DecodeOutputs has them
  int32_t terms = 1;
  int64_t tokens = 0, ld = 0;
  const float *bias = nullptr;
  int32_t groups = 0, pieces = 0;
  int32_t first_group[kMost];
  bool inside[kMost];      // rounded with the base's product
  const float *low[kMost]; // x aᵀ, from the run's first row on …
  const float *sums[kMost]; // … or its pieces' sums
  int64_t low_ld[kMost];
  Adapter at[kMost];

  size_t shared_bytes() const; // of kGroup rows of xa
};
constexpr int kFewRuns = 3, kSomeRuns = 10, kManyRuns = 2 * kMostAdapters + 1;
using Runs = RunsOf<kManyRuns>;
template <int kMost> RunsOf<kMost> in_less_room(const Runs &runs);

// Calls launch(runs, most terms) with as small parameters as hold them, for a kernel that is made for one term, a few or any number.
constexpr int kFewTerms = 4, kManyTerms = 8;
template <class Launch> void with_runs(const Runs &runs, const Launch &launch) {
  const auto sized = [&](const auto &some) {
    if (some.terms == 1)
      launch(some, std::integral_constant<int, 1>());
    else if (some.terms <= kFewTerms)
      launch(some, std::integral_constant<int, kFewTerms>());
    else
      launch(some, std::integral_constant<int, kManyTerms>());
  };
  runs.count <= kFewRuns ? sized(in_less_room<kFewRuns>(runs)) : runs.count <= kSomeRuns ? sized(in_less_room<kSomeRuns>(runs)) : sized(runs);
}

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
// The work left undone on these outputs, which is the caller's from now on; nothing (false) where its kernels don't take these adapters or this type.
bool take_pending(arbor_stream *stream, const void *y, int32_t type, int64_t tokens, int64_t out, Pending &taken);

// ---- device -------------------------------------------------------------------------------------------------------------------

// An output with its adapter's share, scale times `low`, and its bias. A prompt's rows are rounded once they have the first, and again with the second.
// (fmaf in so many words: a row has the same bits whichever kernel finishes it, so none is left to the compiler.)
__device__ __forceinline__ bf16 finished(float y, float scale, float low, float bias, bool rounded) {
  const float sum = fmaf(scale, low, y);
  return from_float<bf16>((rounded ? to_float(from_float<bf16>(sum)) : sum) + bias);
}

// Rows of one run that a warp works on together.
struct Group {
  int32_t run = 0, first, count = 1;

  template <class Runs> __device__ __forceinline__ static Group of_number(const Runs &runs, int32_t number) {
    Group group;
    while (group.run + 1 < runs.count && number >= runs.first_group[group.run + 1]) group.run++;
    group.first = (number - runs.first_group[group.run]) * kGroup;
    group.count = min(kGroup, runs.at[group.run].row_count - group.first);
    return group;
  }
};

// Eight neighbouring outputs of a product, and two: asked for (load), then added in order (sums). kTerms: there are at most so many. Apart, so that all
// loads of a thread are under way together.
template <int kTerms> struct EightOutputs {
  Pack<float> terms[kTerms][2];

  template <class Runs> __device__ __forceinline__ void load(const Runs &runs, int64_t at) {
#pragma unroll
    for (int t = 0; t < kTerms; t++)
      if (t < runs.terms)
#pragma unroll
        for (int half = 0; half < 2; half++) terms[t][half] = load_pack(runs.outputs + at + t * runs.tokens * runs.ld + half * 4);
  }
  template <class Runs> __device__ __forceinline__ void sums(float (&to)[8], const Runs &runs) const {
#pragma unroll
    for (int i = 0; i < 8; i++) {
      to[i] = terms[0][i >> 2].at[i & 3];
#pragma unroll
      for (int t = 1; t < kTerms; t++)
        if (t < runs.terms) to[i] += terms[t][i >> 2].at[i & 3];
    }
  }
};

template <int kTerms> struct TwoOutputs {
  float2 terms[kTerms];

  __device__ __forceinline__ void load(const float *from, int64_t at, int32_t count, int64_t stride) {
#pragma unroll
    for (int t = 0; t < kTerms; t++) terms[t] = t < count ? *reinterpret_cast<const float2 *>(from + at + t * stride) : make_float2(0, 0);
  }
  __device__ __forceinline__ float2 sums() const {
    float2 sum = terms[0];
#pragma unroll
    for (int t = 1; t < kTerms; t++) sum.x += terms[t].x, sum.y += terms[t].y;
    return sum;
  }
};

// low[tile][i]: what a thread has of xa bᵀ for the warp's rows and the 32 columns from `first` on, a multiple of 32: of row (lane / 4) i = 0, 1 and of
// the row 8 below i = 2, 3, at columns 8 (lane % 4) + 2 tile and the next.
using LowSums = float[4][4];

// What a thread needs for 16 ranks of it, of the member that column `first` belongs to, from rank k on. Loading and multiplying are apart, so that all
// loads of a warp are under way together.
template <int kTerms> struct Xa {
  TwoOutputs<kTerms> loaded[4];
  float2 sums[4];
  uint32_t at[4]; // pairs of neighbours, as the left operand has them, times `scale`; after `add`

  template <class Runs> __device__ __forceinline__ void load(const Runs &runs, const Group &group, int64_t first, int k) {
    const Adapter &adapter = runs.at[group.run];
    const int lane = int(threadIdx.x) & 31, line = lane >> 2;
    const int64_t ld = runs.low_ld[group.run], place = (group.first + line) * ld + adapter.part_of(first) * adapter.rank + k + (lane & 3) * 2;
    each(group, adapter, k, [&](int i, bool there) {
      loaded[i].load(runs.low[group.run], place + (i & 1) * 8 * ld + (i >> 1) * 8, there ? runs.terms : 0, runs.tokens * ld);
    });
  }
  __device__ __forceinline__ void add(float scale) {
#pragma unroll
    for (int i = 0; i < 4; i++) sums[i] = loaded[i].sums(), at[i] = pack_pair(scale * sums[i].x, scale * sums[i].y);
  }
  // Writes it down, for those who ask for it later: by the warp that has a member's first columns.
  template <class Runs> __device__ __forceinline__ void keep(const Runs &runs, const Group &group, int64_t first, int k) const {
    const Adapter &adapter = runs.at[group.run];
    if (first != 0 && adapter.part_of(first - 1) == adapter.part_of(first)) return;
    const int lane = int(threadIdx.x) & 31, line = lane >> 2, width = adapter.width();
    float *to = adapter.xa + int64_t(group.first + line) * width + adapter.part_of(first) * adapter.rank + k + (lane & 3) * 2;
    each(group, adapter, k, [&](int i, bool there) {
      if (there) *reinterpret_cast<float2 *>(to + (i & 1) * 8 * width + (i >> 1) * 8) = sums[i];
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
    if (k >= rank) return; // an adapter of no ranks, as a row without one has it
    const float *from = adapter.b + (first + (line >> 1) * 8 + (line & 1)) * rank + k + (lane & 3) * 2;
#pragma unroll
    for (int tile = 0; tile < 4; tile++) {
      at[tile][0] = *reinterpret_cast<const float2 *>(from + tile * 2 * rank);
      at[tile][1] = k + 8 < rank ? *reinterpret_cast<const float2 *>(from + tile * 2 * rank + 8) : make_float2(0, 0);
    }
  }
  __device__ __forceinline__ void multiply(LowSums &low, const uint32_t (&xa)[4]) const {
#pragma unroll
    for (int tile = 0; tile < 4; tile++) mma(low[tile], xa, pack_pair(at[tile][0].x, at[tile][0].y), pack_pair(at[tile][1].x, at[tile][1].y));
  }
};

// What x aᵀ is multiplied by before it is rounded for the product with bᵀ, and what that product is: as it goes for a prompt's rows.
template <class Runs> __device__ __forceinline__ float scale_before(const Runs &runs, int32_t run) { return runs.inside[run] ? runs.at[run].scale : 1.0f; }
template <class Runs> __device__ __forceinline__ float scale_after(const Runs &runs, int32_t run) { return runs.inside[run] ? 1.0f : runs.at[run].scale; }

// Finishes eight neighbouring outputs of a run: columns `column` on, of the row 8 · below below the warp's line. `low` has gone on from the product's
// sums where it is inside.
template <class Runs>
__device__ __forceinline__ Pack<bf16> finish_pack(const float (&sums)[8], const Runs &runs, int32_t run, const LowSums &low, int below, int64_t column) {
  Pack<bf16> outputs;
#pragma unroll
  for (int i = 0; i < 8; i++) {
    const float y = runs.inside[run] ? 0 : to_float(from_float<bf16>(sums[i]));
    outputs.at[i] = finished(y, scale_after(runs, run), low[i >> 1][below * 2 + (i & 1)], runs.bias ? runs.bias[column + i] : 0.0f, true);
  }
  return outputs;
}

// Finishes group `number`'s rows at kSets times 32 columns, from first[...] on, after the kernels before. `each` is asked to begin with a row
// (begin(below, row): what it needs of memory that the linear before didn't write) and to end with its outputs (end(below, row, outputs)): thread by thread
// 8 columns of each set. Nothing else keeps them.
template <int kTerms, class Runs, int kSets, class Each>
__device__ __forceinline__ void finish_columns(const Runs &runs, int32_t number, const int64_t (&first)[kSets], Each &each) {
  const Group group = Group::of_number(runs, number);
  const Adapter &adapter = runs.at[group.run];
  const int lane = int(threadIdx.x) & 31, line = lane >> 2, column = (lane & 3) * 8;
  const int64_t row = int64_t(adapter.row_start) + group.first + line;
  const auto each_row = [&](auto &&visit) {
#pragma unroll
    for (int below = 0; below < 2; below++)
      if (line + below * 8 < group.count) visit(below, row + below * 8);
  };
  // Older than the linear: places, and b's first columns.
  B b[kSets];
#pragma unroll
  for (int s = 0; s < kSets; s++) b[s].load(adapter, first[s], 0);
  each_row([&](int below, int64_t r) { each.begin(below, r); });
  after_kernels_before();
  uint32_t left[kSets][4];
  const auto load_left = [&](int k) {
    Xa<kTerms> xa[kSets];
#pragma unroll
    for (int s = 0; s < kSets; s++) xa[s].load(runs, group, first[s], k);
#pragma unroll
    for (int s = 0; s < kSets; s++) {
      xa[s].add(scale_before(runs, group.run));
#pragma unroll
      for (int i = 0; i < 4; i++) left[s][i] = xa[s].at[i];
      xa[s].keep(runs, group, first[s], k);
    }
  };
  // Terms fill the registers: first those of x aᵀ, then those of outputs, row by row.
  if (kTerms > 1 && adapter.rank > 0) load_left(0), loads_stay_here();
  float sums[2][kSets][8] = {};
  each_row([&](int below, int64_t r) {
    EightOutputs<kTerms> loaded[kSets];
#pragma unroll
    for (int s = 0; s < kSets; s++) loaded[s].load(runs, r * runs.ld + first[s] + column);
#pragma unroll
    for (int s = 0; s < kSets; s++) loaded[s].sums(sums[below][s], runs);
    if (kTerms > 1) loads_stay_here();
  });
  LowSums low[kSets] = {};
  if (runs.inside[group.run])
#pragma unroll
    for (int s = 0; s < kSets; s++)
#pragma unroll
      for (int i = 0; i < 16; i++) low[s][i >> 2][i & 3] = sums[(i & 3) >> 1][s][(i >> 2) * 2 + (i & 1)];
  for (int k = 0; k < adapter.rank; k += 16) {
    if (kTerms == 1 || k > 0) load_left(k);
#pragma unroll
    for (int s = 0; s < kSets; s++) {
      if (k > 0) b[s].load(adapter, first[s], k);
      b[s].multiply(low[s], left[s]);
    }
  }
  each_row([&](int below, int64_t r) {
    Pack<bf16> outputs[kSets];
#pragma unroll
    for (int s = 0; s < kSets; s++) outputs[s] = finish_pack(sums[below][s], runs, group.run, low[s], below, first[s] + column);
    each.end(below, r, outputs);
  });
}

} // namespace arbor
