// y = silu(gate) · up and its gradient.

#include "lora_up.cuh"
#include "pack_values.cuh"
#include "stream.cuh"

namespace arbor {
namespace {

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

template <class T, int kCount> __global__ void swiglu(T *y, const T *gate_up, int64_t inner) {
  const int64_t i = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * kCount, t = blockIdx.y;
  after_kernels_before();
  if (i >= inner) return;
  float gate[kCount], up[kCount];
  load_values<T, kCount>(gate, gate_up + t * 2 * inner + i);
  load_values<T, kCount>(up, gate_up + t * 2 * inner + inner + i);
#pragma unroll
  for (int j = 0; j < kCount; j++) gate[j] *= sigmoid(gate[j]) * up[j];
  store_values<T, kCount>(y + t * inner + i, gate);
}

constexpr int kThreads = 128;

// The same of decoding rows whose gate_up waits for its adapters: a warp has 32 gates and what they let through.
struct Gates {
  bf16 *y;
  int64_t inner, column;
  __device__ __forceinline__ void begin(int, int64_t) {}
  __device__ __forceinline__ void end(int, int64_t row, const Pack<bf16> (&pair)[2]) {
    Pack<bf16> outputs;
#pragma unroll
    for (int i = 0; i < 8; i++) {
      float gate = to_float(pair[0].at[i]);
      gate *= sigmoid(gate) * to_float(pair[1].at[i]);
      outputs.at[i] = from_float<bf16>(gate);
    }
    store_pack(y + row * inner + column, outputs);
  }
};

template <int kTerms, class Runs> __global__ __launch_bounds__(kThreads) void finish_swiglu(bf16 *y, int64_t inner, const __grid_constant__ Runs runs) {
  const int64_t i = (int64_t(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32) * kUpColumns, first[] = {i, inner + i};
  if (i >= inner) return;
  Gates gates{y, inner, i + (threadIdx.x & 3) * 8};
  finish_columns<kTerms>(runs, int32_t(blockIdx.y), first, gates);
}

// y, if given: what swiglu's output was.
template <class T, int kCount> __global__ void swiglu_backward(T *d_gate_up, T *y, const T *dy, const T *gate_up, int64_t inner) {
  const int64_t i = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * kCount, t = blockIdx.y;
  after_kernels_before();
  if (i >= inner) return;
  float gate[kCount], up[kCount], d[kCount], out[kCount];
  load_values<T, kCount>(gate, gate_up + t * 2 * inner + i);
  load_values<T, kCount>(up, gate_up + t * 2 * inner + inner + i);
  load_values<T, kCount>(d, dy + t * inner + i);
#pragma unroll
  for (int j = 0; j < kCount; j++) {
    const float s = sigmoid(gate[j]);
    const float d_up = d[j] * gate[j] * s;
    out[j] = gate[j] * (s * up[j]);
    gate[j] = d[j] * up[j] * s * (1 + gate[j] * (1 - s));
    up[j] = d_up;
  }
  if (y) store_values<T, kCount>(y + t * inner + i, out);
  store_values<T, kCount>(d_gate_up + t * 2 * inner + i, gate);
  store_values<T, kCount>(d_gate_up + t * 2 * inner + inner + i, up);
}

constexpr int64_t kMostRows = 65535; // of a grid's second dimension

// Calls launch(count of values a thread, grid, first row) for all rows.
template <class T, class Launch> void over_rows(int64_t tokens, int64_t inner, uint64_t pointers, const Launch &launch) {
  const bool wide = (pointers | uint64_t(inner) * sizeof(T)) % 16 == 0;
  const int64_t step = wide ? Pack<T>::kCount : 1;
  for (int64_t row = 0; row < tokens; row += kMostRows) {
    const int64_t rows = tokens - row < kMostRows ? tokens - row : kMostRows;
    launch(wide, dim3(unsigned(ceil_div(inner, 128 * step)), unsigned(rows)), row);
  }
}

uint64_t bits(const void *a, const void *b, const void *c = nullptr) {
  return reinterpret_cast<uint64_t>(a) | reinterpret_cast<uint64_t>(b) | reinterpret_cast<uint64_t>(c);
}

} // namespace
} // namespace arbor

int32_t arbor_swiglu(arbor_stream *stream, int32_t type, void *y, const void *gate_up, int64_t tokens, int64_t inner) {
  using namespace arbor;
  Pending pending;
  const bool waits = stream && inner % kUpColumns == 0 && take_pending(stream, gate_up, type, tokens, 2 * inner, pending);
  ARBOR_ENTER(stream, "arbor_swiglu", given(y, gate_up) && tokens >= 0 && inner > 0);
  if (waits) {
    const Runs runs = pending.runs();
    const dim3 grid(unsigned(ceil_div(inner, kThreads)), unsigned(runs.groups));
    with_runs(runs, [&](const auto &some, auto terms) {
      launch_after(finish_swiglu<terms(), std::decay_t<decltype(some)>>, grid, kThreads, 0, cuda_stream(stream), static_cast<bf16 *>(y), inner, some);
    });
    return launched(stream, "arbor_swiglu");
  }
  ARBOR_BY_TYPE(type, "arbor_swiglu", {
    over_rows<T>(tokens, inner, bits(y, gate_up), [&](bool wide, dim3 grid, int64_t row) {
      T *to = static_cast<T *>(y) + row * inner;
      const T *from = static_cast<const T *>(gate_up) + row * 2 * inner;
      if (wide)
        launch_after(swiglu<T, Pack<T>::kCount>, grid, 128, 0, cuda_stream(stream), to, from, inner);
      else
        launch_after(swiglu<T, 1>, grid, 128, 0, cuda_stream(stream), to, from, inner);
    });
  });
  return launched(stream, "arbor_swiglu");
}

int32_t arbor_swiglu_backward(arbor_stream *stream, int32_t type, void *d_gate_up, void *y, const void *dy, const void *gate_up, int64_t tokens,
                              int64_t inner) {
  using namespace arbor;
  ARBOR_ENTER(stream, "arbor_swiglu_backward", given(d_gate_up, dy, gate_up) && tokens >= 0 && inner > 0);
  ARBOR_BY_TYPE(type, "arbor_swiglu_backward", {
    over_rows<T>(tokens, inner, bits(d_gate_up, dy, gate_up) | bits(y, nullptr), [&](bool wide, dim3 grid, int64_t row) {
      T *to = static_cast<T *>(d_gate_up) + row * 2 * inner;
      T *out = y ? static_cast<T *>(y) + row * inner : nullptr;
      const T *d = static_cast<const T *>(dy) + row * inner;
      const T *from = static_cast<const T *>(gate_up) + row * 2 * inner;
      if (wide)
        launch_after(swiglu_backward<T, Pack<T>::kCount>, grid, 128, 0, cuda_stream(stream), to, out, d, from, inner);
      else
        launch_after(swiglu_backward<T, 1>, grid, 128, 0, cuda_stream(stream), to, out, d, from, inner);
    });
  });
  return launched(stream, "arbor_swiglu_backward");
}
