// The norm of rows that one, two or four warps hold in registers, and its gradient. A block of 256 threads a row (rms_norm.cu) is mostly idle where a row
// is some hundred packs of 16 bytes, and a multiprocessor then has too few bytes on their way. Here all that a row reads is asked for before the first use.
#pragma once

#include <type_traits>

#include "stream.cuh"

namespace arbor {

constexpr int kBlockWarps = 4;
constexpr int kSumWarps = 8; // warps that look at a row in rms_norm.cu

// The warps of a row, and which of its packs are a lane's: those of its place in every group of 32 that is the warp's.
template <class T, int kWarps, int kPacks> struct Team {
  static constexpr int kColumns = kWarps * kPacks * 32 * Pack<T>::kCount; // at most
  static constexpr int kRows = kBlockWarps / kWarps;                     // of a block
  static constexpr int kSums = kSumWarps / kWarps < kPacks ? kSumWarps / kWarps : kPacks;
  using Packs = Pack<T>[kPacks];
  using Floats = float[kPacks][Pack<T>::kCount];

  const int warp = int(threadIdx.x) / 32 % kWarps, lane = int(threadIdx.x) % 32, row_in_block = int(threadIdx.x) / 32 / kWarps;
  const int64_t row = int64_t(blockIdx.x) * kRows + row_in_block;
  const int columns; // 0: there is no such row

  __device__ __forceinline__ Team(int64_t rows, int hidden) : columns(row < rows ? hidden : 0) {}

  // Calls visit(number, first column) for the lane's packs.
  template <class Visit> __device__ __forceinline__ void each(const Visit &visit) const {
#pragma unroll
    for (int s = 0; s < kPacks; s++)
      if (const int i = ((warp + kWarps * s) * 32 + lane) * Pack<T>::kCount; i < columns) visit(s, i);
  }
  __device__ __forceinline__ void load(Packs &to, const T *from) const {
    each([&](int s, int i) { to[s] = load_pack(from + i); });
  }
  __device__ __forceinline__ void load(Floats &to, const float *from) const {
    each([&](int s, int i) {
#pragma unroll
      for (int j = 0; j < Pack<T>::kCount; j += 4) {
        const Pack<float> four = load_pack(from + i + j);
        to[s][j] = four.at[0], to[s][j + 1] = four.at[1], to[s][j + 2] = four.at[2], to[s][j + 3] = four.at[3];
      }
    });
  }
  // Sums over the row, of sums by lane and pack number modulo 8 / kWarps: in the order of rms_norm.cu's block_sum, where these are the lanes of 8 warps. Once a
  // kernel: nobody waits for the others before writing to shared memory.
  __device__ __forceinline__ float sum(const float (&of)[kSums]) const {
    __shared__ float shared[kRows][kSumWarps];
#pragma unroll
    for (int s = 0; s < kSumWarps / kWarps; s++) {
      const float total = s < kSums ? warp_sum(of[s < kSums ? s : 0]) : 0.0f;
      if (lane == 0) shared[row_in_block][warp + kWarps * s] = total;
    }
    __syncthreads();
    float sums[kSumWarps];
#pragma unroll
    for (int s = 0; s < kSumWarps; s++) sums[s] = shared[row_in_block][s];
#pragma unroll
    for (int half = kSumWarps / 2; half > 0; half /= 2)
#pragma unroll
      for (int s = 0; s < half; s++) sums[s] += sums[s + half];
    return sums[0];
  }
};

// The bits of rms_norm.cu's rms_norm.
template <class T, int kWarps, int kPacks>
__global__ __launch_bounds__(32 * kBlockWarps) void rms_norm_warps(T *y, float *rstd, T *sum, const T *x, const T *delta, const float *weight, int64_t rows,
                                                                  int hidden, float eps) {
  using Row = Team<T, kWarps, kPacks>;
  const Row team(rows, hidden);
  const int64_t base = team.row * hidden;
  after_kernels_before();
  typename Row::Packs own = {};
  typename Row::Floats weights;
  team.load(weights, weight);
  team.load(own, x + base);
  if (delta) {
    typename Row::Packs added;
    team.load(added, delta + base);
    team.each([&](int s, int i) {
#pragma unroll
      for (int j = 0; j < Pack<T>::kCount; j++) own[s].at[j] = from_float<T>(to_float(own[s].at[j]) + to_float(added[s].at[j]));
      store_pack(sum + base + i, own[s]);
    });
  }
  float squares[Row::kSums] = {};
  team.each([&](int s, int) {
    float &total = squares[s % Row::kSums];
#pragma unroll
    for (int j = 0; j < Pack<T>::kCount; j++) total = fmaf(to_float(own[s].at[j]), to_float(own[s].at[j]), total);
  });
  const float r = rsqrtf(team.sum(squares) / float(hidden) + eps);
  if (team.columns > 0 && team.warp == 0 && team.lane == 0) rstd[team.row] = r;
  team.each([&](int s, int i) {
    Pack<T> out;
#pragma unroll
    for (int j = 0; j < Pack<T>::kCount; j++) out.at[j] = from_float<T>(to_float(own[s].at[j]) * (r * weights[s][j]));
    store_pack(y + base + i, out);
  });
}

// The bits of rms_norm.cu's rms_norm_backward. dx may be the memory of dy or of d_residual.
template <class T, int kWarps, int kPacks>
__global__ __launch_bounds__(32 * kBlockWarps) void rms_norm_backward_warps(T *dx, const T *dy, const T *x, const float *weight, const float *rstd,
                                                                           const T *d_residual, int64_t rows, int hidden) {
  using Row = Team<T, kWarps, kPacks>;
  const Row team(rows, hidden);
  const int64_t base = team.row * hidden;
  after_kernels_before();
  typename Row::Packs d, v, residual = {};
  typename Row::Floats scaled; // dy times the weight
  team.load(scaled, weight);
  team.load(d, dy + base);
  team.load(v, x + base);
  if (d_residual) team.load(residual, d_residual + base);
  const float r = team.columns > 0 ? rstd[team.row] : 0.0f;
  float dot[Row::kSums] = {};
  team.each([&](int s, int) {
#pragma unroll
    for (int j = 0; j < Pack<T>::kCount; j++) {
      scaled[s][j] *= to_float(d[s].at[j]);
      dot[s % Row::kSums] = fmaf(scaled[s][j], to_float(v[s].at[j]), dot[s % Row::kSums]);
    }
  });
  const float mean = team.sum(dot) * r * r / float(hidden);
  team.each([&](int s, int i) {
    Pack<T> out;
#pragma unroll
    for (int j = 0; j < Pack<T>::kCount; j++) {
      const float own = r * fmaf(-mean, to_float(v[s].at[j]), scaled[s][j]);
      out.at[j] = from_float<T>(d_residual ? own + to_float(residual[s].at[j]) : own);
    }
    store_pack(dx + base + i, out);
  });
}

// Calls run(warps, packs, rows of a block) and says true where a team of warps can take rows; else a block takes each, and comes to the same bits.
template <class T, class Run> bool by_warps(int64_t hidden, const float *weight, const Run &run) {
  if (reinterpret_cast<uint64_t>(weight) % 16 != 0) return false;
  const auto fits = [&](auto warps, auto packs) {
    const bool can = hidden <= Team<T, warps(), packs()>::kColumns;
    if (can) run(warps, packs, Team<T, warps(), packs()>::kRows);
    return can;
  };
  constexpr std::integral_constant<int, 1> one;
  constexpr std::integral_constant<int, 2> two;
  constexpr std::integral_constant<int, 3> three;
  constexpr std::integral_constant<int, 4> four;
  return fits(one, three) || fits(two, three) || fits(two, four) || fits(four, four);
}

} // namespace arbor
