// Root-mean-square norm with the residual add before it, and its gradient. A block a row; a warp a row where that is enough (rms_norm_warps.cuh).

#include "add_rows.cuh"
#include "rms_norm_warps.cuh"
#include "stream.cuh"

namespace arbor {
namespace {

constexpr int kThreads = 256;

// Runs over a row in packs of 16 bytes where its width allows, else value by value.
template <class T, bool kWide, class Body> __device__ __forceinline__ void over_row(int64_t hidden, const Body &body) {
  constexpr int kStep = kWide ? Pack<T>::kCount : 1;
  for (int64_t i = int64_t(threadIdx.x) * kStep; i < hidden; i += int64_t(kThreads) * kStep) body(i);
}

template <class T, bool kWide> struct Row {
  static constexpr int kCount = kWide ? Pack<T>::kCount : 1;
  float at[kCount];
  __device__ __forceinline__ static Row load(const T *from) {
    Row row;
    if constexpr (kWide) {
      const Pack<T> pack = load_pack(from);
#pragma unroll
      for (int j = 0; j < kCount; j++) row.at[j] = to_float(pack.at[j]);
    } else
      row.at[0] = to_float(from[0]);
    return row;
  }
  __device__ __forceinline__ void store(T *to) const {
    if constexpr (kWide) {
      Pack<T> pack;
#pragma unroll
      for (int j = 0; j < kCount; j++) pack.at[j] = from_float<T>(at[j]);
      store_pack(to, pack);
    } else
      to[0] = from_float<T>(at[0]);
  }
};

constexpr int kKept = 2; // packs of a row that a thread keeps between the two looks at them

template <class T, bool kWide>
__global__ void rms_norm(T *y, float *rstd, T *sum, const T *x, const T *delta, const float *weight, int64_t hidden, float eps) {
  using Values = Row<T, kWide>;
  __shared__ float shared[33];
  const int64_t base = int64_t(blockIdx.x) * hidden;
  y += base, x += base, sum += base;
  if (delta) delta += base;
  float squares = 0;
  const auto first_look = [&](int64_t i, Values &v) {
    v = Values::load(x + i);
    if (delta) {
      const Values d = Values::load(delta + i);
#pragma unroll
      for (int j = 0; j < Values::kCount; j++) v.at[j] = to_float(from_float<T>(v.at[j] + d.at[j]));
      v.store(sum + i);
    }
#pragma unroll
    for (int j = 0; j < Values::kCount; j++) squares = fmaf(v.at[j], v.at[j], squares);
  };
  const auto scaled = [&](int64_t i, Values &v, const float *weights, float by) {
#pragma unroll
    for (int j = 0; j < Values::kCount; j++) v.at[j] *= by * weights[j];
    v.store(y + i);
  };
  const auto rstd_of_row = [&] {
    const float r = rsqrtf(block_sum(squares, shared) / float(hidden) + eps);
    if (threadIdx.x == 0) rstd[blockIdx.x] = r;
    return r;
  };
  after_kernels_before();
  if (hidden <= int64_t(kKept) * kThreads * Values::kCount) {
    Values kept[kKept];
    float weights[kKept][Values::kCount];
    const auto each = [&](auto &&visit) {
#pragma unroll
      for (int s = 0; s < kKept; s++) {
        const int64_t i = (int64_t(threadIdx.x) + s * kThreads) * Values::kCount;
        if (i < hidden) visit(s, i);
      }
    };
    each([&](int s, int64_t i) {
#pragma unroll
      for (int j = 0; j < Values::kCount; j++) weights[s][j] = weight[i + j];
    });
    each([&](int s, int64_t i) { first_look(i, kept[s]); });
    const float r = rstd_of_row();
    each([&](int s, int64_t i) { scaled(i, kept[s], weights[s], r); });
    return;
  }
  Values v;
  over_row<T, kWide>(hidden, [&](int64_t i) { first_look(i, v); });
  const float r = rstd_of_row();
  over_row<T, kWide>(hidden, [&](int64_t i) {
    v = Values::load((delta ? sum : x) + i);
    scaled(i, v, weight + i, r);
  });
}

template <class T, bool kWide>
__global__ void rms_norm_backward(T *dx, const T *dy, const T *x, const float *weight, const float *rstd, const T *d_residual, int64_t hidden) {
  using Values = Row<T, kWide>;
  __shared__ float shared[33];
  const int64_t base = int64_t(blockIdx.x) * hidden, own = int64_t(threadIdx.x) * Values::kCount;
  after_kernels_before();
  const float r = rstd[blockIdx.x];
  Values kept = {}; // of the residual, asked for with the first look
  if (d_residual && own < hidden) kept = Values::load(d_residual + base + own);
  float dot = 0;
  over_row<T, kWide>(hidden, [&](int64_t i) {
    const Values d = Values::load(dy + base + i), v = Values::load(x + base + i);
#pragma unroll
    for (int j = 0; j < Values::kCount; j++) dot = fmaf(d.at[j] * weight[i + j], v.at[j], dot);
  });
  const float mean = block_sum(dot, shared) * r * r / float(hidden);
  over_row<T, kWide>(hidden, [&](int64_t i) {
    const Values d = Values::load(dy + base + i), v = Values::load(x + base + i);
    Values out;
#pragma unroll
    for (int j = 0; j < Values::kCount; j++) out.at[j] = r * fmaf(-mean, v.at[j], d.at[j] * weight[i + j]);
    if (d_residual) {
      const Values before = i == own ? kept : Values::load(d_residual + base + i);
#pragma unroll
      for (int j = 0; j < Values::kCount; j++) out.at[j] += before.at[j];
    }
    out.store(dx + base + i);
  });
}

template <class T> bool is_wide(int64_t hidden, std::initializer_list<const void *> rows) {
  uint64_t all = uint64_t(hidden) * sizeof(T);
  for (const void *row : rows) all |= reinterpret_cast<uint64_t>(row);
  return all % 16 == 0;
}

} // namespace
} // namespace arbor

int32_t arbor_rms_norm(arbor_stream *stream, int32_t type, void *y, float *rstd, void *sum, const void *x, const void *delta, const float *weight,
                       int64_t tokens, int64_t hidden, double eps) {
  using namespace arbor;
  ARBOR_ENTER(stream, "arbor_rms_norm", given(y, rstd, x, weight) && (!delta || sum) && tokens >= 0 && hidden > 0);
  if (tokens == 0) return ARBOR_OK;
  ARBOR_BY_TYPE(type, "arbor_rms_norm", {
    const auto run = [&](auto kernel) {
      launch_after(kernel, dim3(unsigned(tokens)), kThreads, 0, cuda_stream(stream), static_cast<T *>(y), rstd, static_cast<T *>(sum),
                   static_cast<const T *>(x), static_cast<const T *>(delta), weight, hidden, float(eps));
    };
    const bool wide = is_wide<T>(hidden, {y, x, delta, sum});
    const bool done = wide && by_warps<T>(hidden, weight, [&](auto warps, auto packs, int rows) {
      launch_after(rms_norm_warps<T, warps(), packs()>, dim3(unsigned(ceil_div(tokens, rows))), 32 * kBlockWarps, 0, cuda_stream(stream), static_cast<T *>(y), rstd,
                   static_cast<T *>(sum), static_cast<const T *>(x), static_cast<const T *>(delta), weight, tokens, int(hidden), float(eps));
    });
    if (!done) wide ? run(rms_norm<T, true>) : run(rms_norm<T, false>);
  });
  return launched(stream, "arbor_rms_norm");
}

int32_t arbor_rms_norm_backward(arbor_stream *stream, int32_t type, void *dx, const void *dy, const void *x, const float *weight, const float *rstd,
                                const void *d_residual, float *d_weight, int64_t tokens, int64_t hidden) {
  using namespace arbor;
  ARBOR_ENTER(stream, "arbor_rms_norm_backward", given(dx, dy, x, weight, rstd) && tokens >= 0 && hidden > 0);
  if (tokens == 0) return ARBOR_OK;
  ARBOR_BY_TYPE(type, "arbor_rms_norm_backward", {
    const T *dys = static_cast<const T *>(dy);
    const T *xs = static_cast<const T *>(x);
    // First: dx may be dy's memory.
    if (d_weight)
      add_rows(stream, d_weight, tokens, hidden,
               [=] __device__(int64_t row, int64_t i) { return to_float(dys[row * hidden + i]) * to_float(xs[row * hidden + i]) * rstd[row]; });
    const auto run = [&](auto kernel) {
      launch_after(kernel, dim3(unsigned(tokens)), kThreads, 0, cuda_stream(stream), static_cast<T *>(dx), dys, xs, weight, rstd,
                   static_cast<const T *>(d_residual), hidden);
    };
    const bool wide = is_wide<T>(hidden, {dx, dy, x, d_residual});
    const bool done = wide && by_warps<T>(hidden, weight, [&](auto warps, auto packs, int rows) {
      launch_after(rms_norm_backward_warps<T, warps(), packs()>, dim3(unsigned(ceil_div(tokens, rows))), 32 * kBlockWarps, 0, cuda_stream(stream), static_cast<T *>(dx),
                   dys, xs, weight, rstd, static_cast<const T *>(d_residual), tokens, int(hidden));
    });
    if (!done) wide ? run(rms_norm_backward<T, true>) : run(rms_norm_backward<T, false>);
  });
  return launched(stream, "arbor_rms_norm_backward");
}
