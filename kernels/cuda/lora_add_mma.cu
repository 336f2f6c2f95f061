// y += low · high: y is read and written once, 16 bytes a thread at a time. A warp keeps `high` of its 32 columns in registers while it goes through the
// block's rows. Columns are dealt to the fragments of mma.m16n8k16 so that a thread has 8 neighbours of a row, k so that it has 4 of them. So all of y
// that a thread reads it writes, and what is on its way waits in shared memory that is its own: nobody waits for another.

#include "lora_add_mma.cuh"
#include "mma.cuh"

namespace arbor {
namespace {

constexpr int kWarps = 4, kThreads = 32 * kWarps;
constexpr int kColumns = 32 * kWarps;           // a block's
constexpr int kStages = 4;                      // times 16 rows of y that are under way together, and are worked on
constexpr int kWanted = 4 * 132;                // blocks
constexpr int kMostRows = 256, kLeastRows = 32; // a block's

struct Stage {
  uint4 at[2][kThreads];
};

// `high` of the warp's columns, from `first` on, as right operands of `kSteps` times 16 terms.
template <int kSteps> __device__ __forceinline__ void load_high(uint32_t (&b)[kSteps][4][2], const LowRank &of, int first) {
  const int lane = threadIdx.x & 31, n = lane >> 2, quad = lane & 3;
  const auto value = [&](int k, int column) { return k < of.terms && column < of.columns ? of.high[k * of.k_step + column * of.column_step] : 0.0f; };
#pragma unroll
  for (int s = 0; s < kSteps; s++)
#pragma unroll
    for (int tile = 0; tile < 4; tile++)
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const int column = first + n / 2 * 8 + 2 * tile + n % 2, k = 16 * s + 4 * quad + 2 * half;
        b[s][tile][half] = pack_pair(value(k, column), value(k + 1, column));
      }
}

// Rows [row, row + 16) of `low` as left operands; those before `end` are there.
template <int kSteps> __device__ __forceinline__ void load_low(uint2 (&low)[kSteps][2], const LowRank &of, int row, int end) {
  const int lane = threadIdx.x & 31, group = lane >> 2, quad = lane & 3;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int at = row + 8 * half + group;
#pragma unroll
    for (int s = 0; s < kSteps; s++) {
      const int k = 16 * s + 4 * quad;
      low[s][half] = make_uint2(0, 0);
      if (at < end && k < of.terms) low[s][half] = *reinterpret_cast<const uint2 *>(of.low + int64_t(at) * of.low_ld + k);
    }
  }
}

// Rows [row, row + 16) of the thread's columns of y on their way.
__device__ __forceinline__ void copy_rows(Stage &to, const LowRank &of, int row, int end, int first) {
  const int lane = threadIdx.x & 31, group = lane >> 2, quad = lane & 3;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int at = row + 8 * half + group, column = first + 8 * quad;
    const bool there = at < end && column < of.columns;
    copy_piece(&to.at[half][threadIdx.x], there ? of.y + at * of.y_ld + column : of.y, there);
  }
}

__device__ __forceinline__ uint32_t add_pair(uint32_t y, float scale, float low, float high) {
  const float2 pair = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162 *>(&y));
  return pack_pair(fmaf(scale, low, pair.x), fmaf(scale, high, pair.y));
}

template <int kSteps>
__device__ __forceinline__ void add_rows(const LowRank &of, const uint32_t (&b)[kSteps][4][2], const uint2 (&low)[kSteps][2], const Stage &from, int row,
                                         int end, int first) {
  const int lane = threadIdx.x & 31, group = lane >> 2, quad = lane & 3;
  float sums[4][4] = {};
#pragma unroll
  for (int s = 0; s < kSteps; s++)
#pragma unroll
    for (int tile = 0; tile < 4; tile++) mma(sums[tile], {low[s][0].x, low[s][1].x, low[s][0].y, low[s][1].y}, b[s][tile][0], b[s][tile][1]);
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int at = row + 8 * half + group, column = first + 8 * quad;
    uint4 y = from.at[half][threadIdx.x];
    y.x = add_pair(y.x, of.scale, sums[0][2 * half], sums[0][2 * half + 1]);
    y.y = add_pair(y.y, of.scale, sums[1][2 * half], sums[1][2 * half + 1]);
    y.z = add_pair(y.z, of.scale, sums[2][2 * half], sums[2][2 * half + 1]);
    y.w = add_pair(y.w, of.scale, sums[3][2 * half], sums[3][2 * half + 1]);
    if (at < end && column < of.columns) *reinterpret_cast<uint4 *>(of.y + at * of.y_ld + column) = y;
  }
}

// y and `high` are older than the kernel before, which writes `low`: what is read of them doesn't wait for it.
template <int kSteps> __global__ void __launch_bounds__(kThreads) add_low_ranks_kernel(const __grid_constant__ LowRanks all, int rows) {
  extern __shared__ __align__(1024) unsigned char memory[];
  Stage *const stages = reinterpret_cast<Stage *>(memory);
  int number = blockIdx.x, i = 0, across = 0;
  for (;; i++) {
    across = (all.at[i].columns + kColumns - 1) / kColumns;
    const int blocks = across * ((all.at[i].rows + rows - 1) / rows);
    if (number < blocks || i + 1 == all.count) break;
    number -= blocks;
  }
  const LowRank &of = all.at[i];
  const int first = number % across * kColumns + int(threadIdx.x >> 5) * 32, start = number / across * rows, end = min(start + rows, of.rows);
  if (first >= of.columns) return;
#pragma unroll
  for (int stage = 0; stage < kStages - 1; stage++) {
    if (start + 16 * stage < end) copy_rows(stages[stage], of, start + 16 * stage, end, first);
    close_copies();
  }
  uint32_t b[kSteps][4][2];
  load_high<kSteps>(b, of, first);
  after_kernels_before();
  uint2 next[kSteps][2];
  load_low<kSteps>(next, of, start, end);
  int stage = 0;
  for (int row = start; row < end; row += 16) {
    uint2 low[kSteps][2];
#pragma unroll
    for (int s = 0; s < kSteps; s++) low[s][0] = next[s][0], low[s][1] = next[s][1];
    if (row + 16 < end) load_low<kSteps>(next, of, row + 16, end);
    const int ahead = row + 16 * (kStages - 1), free = stage == 0 ? kStages - 1 : stage - 1;
    if (ahead < end) copy_rows(stages[free], of, ahead, end, first);
    close_copies();
    wait_copies<kStages - 1>();
    add_rows<kSteps>(of, b, low, stages[stage], row, end, first);
    stage = stage + 1 == kStages ? 0 : stage + 1;
  }
}

} // namespace

void add_low_ranks(cudaStream_t on, const LowRanks &all) {
  const auto count = [&](int rows) {
    int64_t blocks = 0;
    for (int32_t i = 0; i < all.count; i++) blocks += ceil_div(all.at[i].columns, kColumns) * ceil_div(all.at[i].rows, rows);
    return blocks;
  };
  // More rows a block read `high` less often, more blocks fill the device; bits hang on neither.
  int rows = kMostRows;
  while (rows > kLeastRows && count(rows) < kWanted) rows /= 2;
  if (count(rows) == 0) return;
  int32_t terms = 0;
  for (int32_t i = 0; i < all.count; i++) terms = max(terms, all.at[i].terms);
  const auto run = [&](auto kernel) {
    constexpr size_t kShared = kStages * sizeof(Stage);
    allow_shared(kernel, kShared);
    launch_after(kernel, dim3(unsigned(count(rows))), kThreads, kShared, on, all, rows);
  };
  terms <= 16   ? run(add_low_ranks_kernel<1>)
  : terms <= 32 ? run(add_low_ranks_kernel<2>)
  : terms <= 48 ? run(add_low_ranks_kernel<3>)
                : run(add_low_ranks_kernel<4>);
}

} // namespace arbor
