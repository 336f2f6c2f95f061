// What linears of decoding rows leave undone, done on its own.

#include "lora_up.cuh"

#include <algorithm>

namespace arbor {
namespace {

constexpr int kThreads = 128;

struct Nothing {
  __device__ __forceinline__ void begin(int, int64_t) {}
  template <class Outputs> __device__ __forceinline__ void end(int, int64_t, const Outputs &) {}
};

template <class Y> __global__ __launch_bounds__(kThreads) void finish(Y *y, int64_t out, const __grid_constant__ Runs runs) {
  const int64_t first[] = {(int64_t(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32) * kColumns};
  Nothing nothing;
  if (first[0] < out) finish_columns(y, out, runs, int32_t(blockIdx.y), first, nothing);
}

// Any adapters: a thread a column, b read from memory as it is needed. Rows under an adapter that tensor cores take are none of these.
template <class Y> __global__ __launch_bounds__(kThreads) void finish_any(Y *y, int64_t out, const __grid_constant__ Runs runs) {
  extern __shared__ float xa[]; // [kGroup][width]
  const Group group = Group::of_number(runs, int32_t(blockIdx.y));
  const Adapter &adapter = runs.at[group.run];
  const int64_t o = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const int32_t rank = adapter.rank, width = adapter.width();
  after_kernels_before();
  const float *sums = runs.sums + runs.start[group.run] + int64_t(group.first) * width;
  for (int i = threadIdx.x; i < group.count * width; i += kThreads) {
    xa[i] = add_pieces_singly(sums + i, int64_t(adapter.row_count) * width, runs.pieces);
    if (blockIdx.x == 0) adapter.xa[int64_t(group.first) * width + i] = xa[i];
  }
  __syncthreads();
  if (o >= out) return;
  const float *own = xa + (rank > 0 ? adapter.part_of(o) * rank : 0);
  Y *place = y + (int64_t(adapter.row_start) + group.first) * out + o;
  for (int j = 0; j < group.count; j++) {
    float low = 0;
    for (int r = 0; r < rank; r++) low = fmaf(own[j * width + r], adapter.b[o * rank + r], low);
    place[j * out] = finished<Y>(to_float(place[j * out]), adapter.scale, low, runs.bias ? runs.bias[o] : 0.0f, false);
  }
}

// Rows that tensor cores take and others by launches of their own: which way a row goes must not hang on its neighbours.
template <class Y> void finish_on(cudaStream_t stream, Y *y, const Pending &pending) {
  for (const bool tensor : {true, false}) {
    const Runs runs = pending.runs(false).only(tensor, pending.out);
    if (runs.groups == 0) continue;
    const unsigned groups = unsigned(runs.groups);
    if (tensor)
      launch_after(finish<Y>, dim3(unsigned(ceil_div(pending.out, kThreads)), groups), kThreads, 0, stream, y, pending.out, runs);
    else
      launch_after(finish_any<Y>, dim3(unsigned(ceil_div(pending.out, kThreads)), groups), kThreads, runs.shared_bytes(), stream, y, pending.out, runs);
  }
}

} // namespace

size_t Runs::shared_bytes() const {
  int32_t width = 0;
  for (int32_t i = 0; i < count; i++) width = std::max(width, at[i].width());
  return size_t(kGroup) * size_t(width) * sizeof(float);
}

void Runs::add(const Adapter &adapter, int64_t its_sums) {
  if (adapter.row_count <= 0) return;
  first_group[count] = groups;
  start[count] = its_sums;
  at[count++] = adapter;
  groups += int32_t(ceil_div(adapter.row_count, kGroup));
}

Runs Runs::only(bool on_tensor_cores, int64_t out) const {
  Runs some;
  some.pieces = pieces, some.sums = sums, some.bias = bias;
  for (int32_t i = 0; i < count; i++)
    if (up_on_tensor_cores(at[i], out) == on_tensor_cores) some.add(at[i], start[i]);
  return some;
}

Runs Pending::runs(bool all_rows) const {
  Runs runs;
  runs.sums = sums.at, runs.pieces = sums.pieces, runs.bias = bias;
  const auto plain = [&](int64_t first, int64_t end) {
    Adapter none{};
    none.row_start = int32_t(first), none.row_count = int32_t(end - first);
    if (all_rows || bias) runs.add(none, 0);
  };
  int64_t done = 0;
  for (int32_t i = 0; i < adapters.count; i++) {
    plain(done, adapters.at[i].row_start);
    runs.add(adapters.at[i], sums.start[i]);
    done = int64_t(adapters.at[i].row_start) + adapters.at[i].row_count;
  }
  plain(done, tokens);
  return runs;
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
  const bool same = pending.y && pending.y == y && pending.y_type == type && type == ARBOR_BF16 && pending.tokens == tokens && pending.out == out;
  const Adapters &adapters = pending.adapters;
  const auto fits = [&](const Adapter &adapter) { return up_on_tensor_cores(adapter, out); };
  if (!same || out % kColumns != 0 || !std::all_of(adapters.at, adapters.at + adapters.count, fits)) return false;
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
