// What linears of decoding rows leave undone, done on its own.

#include "lora_up.cuh"

#include <algorithm>
#include <type_traits>

namespace arbor {
namespace {

constexpr int kThreads = 128;

struct Kept {
  bf16 *y; // the thread's columns
  int64_t out;
  __device__ __forceinline__ void begin(int, int64_t) {}
  __device__ __forceinline__ void end(int, int64_t row, const Pack<bf16> (&outputs)[1]) { store_pack(y + row * out, outputs[0]); }
};

template <int kTerms, class Runs> __global__ __launch_bounds__(kThreads) void finish(bf16 *y, int64_t out, const __grid_constant__ Runs runs) {
  const int64_t first[] = {(int64_t(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32) * kUpColumns};
  if (first[0] >= out) return;
  Kept kept{y + first[0] + (threadIdx.x & 3) * 8, out};
  finish_columns<kTerms>(runs, int32_t(blockIdx.y), first, kept);
}

// Any adapters: a thread a column, b read from memory as it is needed.
__global__ __launch_bounds__(kThreads) void finish_any(bf16 *y, int64_t out, const __grid_constant__ Runs runs) {
  extern __shared__ float xa[]; // [kGroup][width]
  const Group group = Group::of_number(runs, int32_t(blockIdx.y));
  const Adapter &adapter = runs.at[group.run];
  const int64_t o = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const int32_t rank = adapter.rank, width = adapter.width();
  after_kernels_before();
  const float *sums = runs.sums[group.run] + int64_t(group.first) * width;
  for (int i = threadIdx.x; i < group.count * width; i += kThreads) {
    xa[i] = add_pieces(sums + i, int64_t(adapter.row_count) * width, runs.pieces);
    if (blockIdx.x == 0) adapter.xa[int64_t(group.first) * width + i] = xa[i];
  }
  __syncthreads();
  if (o >= out) return;
  const float *own = xa + (rank > 0 ? adapter.part_of(o) * rank : 0);
  const int64_t row = int64_t(adapter.row_start) + group.first;
  const auto y_of = [&](int64_t r) {
    return to_float(from_float<bf16>(add_pieces(runs.outputs + r * runs.ld + o, runs.tokens * runs.ld, runs.terms)));
  };
  for (int j = 0; j < group.count; j++) {
    float low = 0;
    for (int r = 0; r < rank; r++) low = fmaf(own[j * width + r], adapter.b[o * rank + r], low);
    y[(row + j) * out + o] = finished(y_of(row + j), adapter.scale, low, runs.bias ? runs.bias[o] : 0.0f, false);
  }
}

template <class Runs> void add(Runs &runs, const Adapter &adapter, bool inside, const float *low, int64_t low_ld, const float *sums) {
  if (adapter.row_count <= 0) return;
  runs.first_group[runs.count] = runs.groups;
  runs.low[runs.count] = low, runs.low_ld[runs.count] = low_ld, runs.sums[runs.count] = sums;
  runs.inside[runs.count] = inside;
  runs.at[runs.count++] = adapter;
  runs.groups += int32_t(ceil_div(adapter.row_count, kGroup));
}

} // namespace

template <> size_t Runs::shared_bytes() const {
  int32_t width = 0;
  for (int32_t i = 0; i < count; i++) width = std::max(width, at[i].width());
  return size_t(kGroup) * size_t(width) * sizeof(float);
}

template <class To, class Fits> static To chosen(const Runs &runs, const Fits &fits) {
  To some;
  some.outputs = runs.outputs, some.terms = runs.terms, some.tokens = runs.tokens, some.ld = runs.ld, some.bias = runs.bias, some.pieces = runs.pieces;
  for (int32_t i = 0; i < runs.count; i++)
    if (fits(runs.at[i])) add(some, runs.at[i], runs.inside[i], runs.low[i], runs.low_ld[i], runs.sums[i]);
  return some;
}

template <int kMost> RunsOf<kMost> in_less_room(const Runs &runs) {
  return chosen<RunsOf<kMost>>(runs, [](const Adapter &) { return true; });
}
template RunsOf<kFewRuns> in_less_room(const Runs &runs);
template RunsOf<kSomeRuns> in_less_room(const Runs &runs);

Runs Pending::runs() const {
  Runs runs;
  runs.outputs = unfinished.outputs, runs.terms = unfinished.terms, runs.tokens = tokens, runs.ld = unfinished.ld, runs.bias = bias, runs.pieces = unfinished.sums.pieces;
  const auto plain = [&](int64_t first, int64_t end) {
    Adapter none{};
    none.row_start = int32_t(first), none.row_count = int32_t(end - first);
    add(runs, none, false, nullptr, 0, nullptr);
  };
  int64_t done = 0;
  for (int32_t i = 0; i < adapters.count; i++) {
    const Adapter &adapter = adapters.at[i];
    plain(done, adapter.row_start);
    const float *low = unfinished.low[i] ? unfinished.low[i] + adapter.row_start * unfinished.low_ld[i] : nullptr;
    add(runs, adapter, unfinished.inside[i], low, unfinished.low_ld[i], unfinished.sums.at + unfinished.sums.start[i]);
    done = int64_t(adapter.row_start) + adapter.row_count;
  }
  plain(done, tokens);
  return runs;
}

// Rows that tensor cores take and others by launches of their own: which way a row goes must not hang on its neighbours.
void finish_pending(arbor_stream *stream) {
  Pending &pending = pending_of(stream);
  if (!pending.y) return;
  bf16 *y = static_cast<bf16 *>(pending.y);
  pending.y = nullptr;
  const Runs all = pending.runs();
  for (const bool tensor : {true, false}) {
    const Runs runs = chosen<Runs>(all, [&](const Adapter &adapter) { return up_on_tensor_cores(adapter, pending.out) == tensor; });
    const dim3 grid(unsigned(ceil_div(pending.out, kThreads)), unsigned(runs.groups));
    if (runs.groups == 0) continue;
    if (tensor)
      with_runs(runs, [&](const auto &some, auto terms) { launch_after(finish<terms(), std::decay_t<decltype(some)>>, grid, kThreads, 0, cuda_stream(stream), y, pending.out, some); });
    else
      launch_after(finish_any, grid, kThreads, runs.shared_bytes(), cuda_stream(stream), y, pending.out, runs);
  }
}

bool take_pending(arbor_stream *stream, const void *y, int32_t type, int64_t tokens, int64_t out, Pending &taken) {
  Pending &pending = pending_of(stream);
  const bool same = pending.y && pending.y == y && type == ARBOR_BF16 && pending.tokens == tokens && pending.out == out;
  const Adapters &adapters = pending.adapters;
  const auto fits = [&](const Adapter &adapter) { return up_on_tensor_cores(adapter, out); };
  if (!same || !std::all_of(adapters.at, adapters.at + adapters.count, fits)) return false;
  taken = pending;
  pending.y = nullptr;
  return true;
}

} // namespace arbor
