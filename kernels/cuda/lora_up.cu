// What linears of decoding rows leave undone, done on its own.

#include "lora_up.cuh"

#include <algorithm>
#include <type_traits>

namespace arbor {
namespace {

constexpr int kThreads = 128;

template <class Y, int kRank>
__global__ __launch_bounds__(kThreads) void finish(Y *y, int64_t out, const __grid_constant__ Runs runs) {
  extern __shared__ float shared[]; // [kGroup][width]
  const int64_t columns[] = {int64_t(blockIdx.x) * kThreads + threadIdx.x};
  finish_rows<kRank>(y, out, runs, columns, columns[0] < out, shared, [](int64_t, const Y *) {});
}

// Any ranks: b is read from memory as it is needed.
template <class Y> __global__ __launch_bounds__(kThreads) void finish_any(Y *y, int64_t out, const __grid_constant__ Runs runs) {
  extern __shared__ float shared[]; // [kGroup][width]
  const Group group = Group::of_number(runs, int32_t(blockIdx.y));
  const Adapter &adapter = runs.at[group.run];
  const int64_t o = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  after_kernels_before();
  load_xa(shared, runs, group, blockIdx.x == 0);
  __syncthreads();
  if (o >= out) return;
  const int32_t rank = adapter.rank, width = adapter.width();
  const float *xa = shared + (rank > 0 ? adapter.part_of(o) * rank : 0);
  float low[kGroup] = {};
  for (int r = 0; r < rank; r++) {
    const float value = factor(runs, adapter.b[o * rank + r]);
#pragma unroll
    for (int j = 0; j < kGroup; j++) low[j] = fmaf(j < group.count ? xa[j * width + r] : 0.0f, value, low[j]);
  }
  Y *place = y + (int64_t(adapter.row_start) + group.first) * out + o;
  for (int j = 0; j < group.count; j++)
    place[j * out] = finished<Y>(runs, to_float(place[j * out]), adapter.scale, low[j], runs.bias ? runs.bias[o] : 0.0f);
}

template <class Y> void finish_on(cudaStream_t stream, Y *y, const Pending &pending) {
  const Runs runs = pending.runs(false);
  if (runs.groups == 0) return;
  const dim3 grid(unsigned(ceil_div(pending.out, kThreads)), unsigned(runs.groups));
  const auto run = [&](auto kernel) { launch_after(kernel, grid, kThreads, runs.shared_bytes(), stream, y, pending.out, runs); };
  const int32_t rank = pending.rank();
  if (rank == 8 || rank == 16 || rank == 32)
    by_rank(rank, [&](auto one) { run(finish<Y, decltype(one)::value>); });
  else
    run(finish_any<Y>);
}

} // namespace

size_t Runs::shared_bytes() const {
  int32_t width = 0;
  for (int32_t i = 0; i < count; i++) width = std::max(width, at[i].width());
  return size_t(kGroup) * size_t(width) * sizeof(float);
}

Runs Pending::runs(bool all_rows) const {
  Runs runs;
  runs.sums = sums.at, runs.pieces = sums.pieces, runs.bias = bias;
  runs.rounded = up_by_products(adapters, out);
  const auto add = [&](const Adapter &adapter, int64_t start) {
    if (adapter.row_count <= 0) return;
    runs.first_group[runs.count] = runs.groups;
    runs.start[runs.count] = start;
    runs.at[runs.count++] = adapter;
    runs.groups += int32_t(ceil_div(adapter.row_count, kGroup));
  };
  const auto plain = [&](int64_t first, int64_t end) {
    Adapter none{};
    none.row_start = int32_t(first), none.row_count = int32_t(end - first);
    if (all_rows || bias) add(none, 0);
  };
  int64_t done = 0;
  for (int32_t i = 0; i < adapters.count; i++) {
    plain(done, adapters.at[i].row_start);
    add(adapters.at[i], sums.start[i]);
    done = int64_t(adapters.at[i].row_start) + adapters.at[i].row_count;
  }
  plain(done, tokens);
  return runs;
}

int32_t Pending::rank() const {
  const bool same = std::all_of(adapters.at, adapters.at + adapters.count, [&](const Adapter &one) { return one.rank == adapters.at[0].rank; });
  return same && adapters.count > 0 ? adapters.at[0].rank : 0;
}

void finish_pending(arbor_stream *stream) {
  Pending &pending = pending_of(stream);
  if (!pending.y) return;
  if (pending.y_type == ARBOR_BF16)
    finish_on(cuda_stream(stream), static_cast<bf16 *>(pending.y), pending);
  else
    finish_on(cuda_stream(stream), static_cast<float *>(pending.y), pending);
  pending.y = nullptr;
}

bool take_pending(arbor_stream *stream, const void *y, int32_t type, int64_t tokens, int64_t out, Pending &taken) {
  Pending &pending = pending_of(stream);
  const int32_t rank = pending.rank();
  const bool fits = pending.y && pending.y == y && pending.y_type == type && type == ARBOR_BF16 && pending.tokens == tokens && pending.out == out;
  if (!fits || (rank != 8 && rank != 16 && rank != 32)) return false;
  taken = pending;
  pending.y = nullptr;
  return true;
}

void end_decode_adapters(arbor_stream *stream, void *y, int32_t y_type, const float *bias, int64_t tokens, int64_t out, const Adapters &adapters,
                         const PieceSums &sums) {
  join(stream);
  pending_of(stream) = {y, y_type, bias, tokens, out, adapters, sums};
}

} // namespace arbor
