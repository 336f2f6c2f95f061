// The pass over x: sums of (dy b)ᵀ x over rows. A block has 128 columns and some rows; a warp keeps the sums of its 32 columns with up to 48 of dyb's in
// registers while the rows go by.

#include "lora_gradients.cuh"
#include "mma.cuh"

namespace arbor {
namespace {

constexpr int kWarps = 4, kThreads = 32 * kWarps, kStages = 4;
constexpr int kSlices = kXColumns / kWarps / 16; // of 16 columns, a warp's

// kTiles: of 16 columns of dyb, a block's.
template <int kTiles> struct Shared {
  bf16 x[kStages][kPassRows * kXColumns];
  bf16 dyb[kStages][kTiles][kPassRows * 16];
};

__host__ __device__ inline int32_t groups_of(const Adapter &adapter, int32_t tiles) { return int32_t(ceil_div(adapter.width(), 16 * tiles)); }

// What a block works on.
struct Block {
  int32_t adapter = 0, group, across, down;

  __device__ __forceinline__ Block(const Gradients &gradients, int32_t tiles, int32_t number) {
    const int32_t blocks = int32_t(ceil_div(gradients.in, kXColumns));
    for (;; adapter++) {
      const Adapter &a = gradients.adapters.at[adapter];
      const int32_t groups = groups_of(a, tiles), all = blocks * groups * row_blocks(a, gradients.places[adapter].x_rows);
      across = number % blocks, group = number / blocks % groups, down = number / (blocks * groups);
      if (number < all || adapter + 1 == gradients.adapters.count) break;
      number -= all;
    }
  }
};

template <int kTiles>
__device__ __forceinline__ void add_tile(float (&da)[kTiles][2 * kSlices][4], const bf16 *x, const bf16 (&dyb)[kTiles][kPassRows * 16]) {
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  const uint32_t x_at = down_address<kXColumns>(x, 0, lane);
#pragma unroll
  for (int m = 0; m < kPassRows / 16; m++) {
    uint32_t left[kTiles][4];
#pragma unroll
    for (int t = 0; t < kTiles; t++) load_transposed(left[t], across_address<16>(dyb[t], 16 * m, lane));
#pragma unroll
    for (int i = 0; i < kSlices; i++) {
      uint32_t right[4];
      load_transposed(right, (x_at ^ 32 * (warp * kSlices + i)) + m * kDown<kXColumns>);
#pragma unroll
      for (int t = 0; t < kTiles; t++) {
        mma(da[t][2 * i], left[t], right[0], right[1]);
        mma(da[t][2 * i + 1], left[t], right[2], right[3]);
      }
    }
  }
}

template <int kTiles> __global__ void __launch_bounds__(kThreads) pass_over_x_kernel(const bf16 *x, const __grid_constant__ Gradients gradients) {
  extern __shared__ __align__(1024) unsigned char memory[];
  Shared<kTiles> &shared = *reinterpret_cast<Shared<kTiles> *>(memory);
  const Block block(gradients, kTiles, int32_t(blockIdx.x));
  const Adapter &adapter = gradients.adapters.at[block.adapter];
  const GradientPlace &place = gradients.places[block.adapter];
  const int thread = threadIdx.x, lane = thread & 31, warp = thread >> 5, width = adapter.width(), padded = padded_width(adapter);
  const int32_t first = block.down * place.x_rows, rows = min(place.x_rows, adapter.row_count - first), steps = (rows + kPassRows - 1) / kPassRows;
  const int64_t in = gradients.in, column = int64_t(block.across) * kXColumns;
  const int32_t row_of_a = block.group * kTiles * 16;

  const auto copy_x = [&](int step) {
    constexpr int kPieces = kXColumns / 8;
    const int start = step * kPassRows, piece = thread % kPieces;
    const bf16 *from = x + int64_t(adapter.row_start + first + start) * in + column;
    const bool there = column + piece * 8 < in;
#pragma unroll
    for (int row = thread / kPieces; row < kPassRows; row += kThreads / kPieces) {
      const bool valid = there && start + row < rows;
      copy_piece(&shared.x[step % kStages][tile_at<kXColumns>(row, piece)], valid ? from + row * in + piece * 8 : x, valid);
    }
  };
  const auto copy_dyb = [&](int step) {
    const int start = step * kPassRows;
    const bf16 *dyb = gradients.dyb + place.dyb + int64_t(first + start) * padded + row_of_a;
    for (int i = thread; i < kTiles * 2 * kPassRows; i += kThreads) {
      const int row = i / (2 * kTiles), p = i % (2 * kTiles);
      const bool valid = start + row < rows && row_of_a + p * 8 < padded;
      copy_piece(&shared.dyb[step % kStages][p / 2][tile_at<16>(row, p % 2)], valid ? dyb + int64_t(row) * padded + p * 8 : gradients.dyb, valid);
    }
  };
#pragma unroll
  for (int step = 0; step < kStages - 1; step++)
    if (step < steps) copy_x(step); // older than the kernel before
  after_kernels_before();
#pragma unroll
  for (int step = 0; step < kStages - 1; step++) {
    if (step < steps) copy_dyb(step);
    close_copies(); // x arrives with the first
  }
  float da[kTiles][2 * kSlices][4] = {};
  for (int step = 0; step < steps; step++) {
    wait_copies<kStages - 2>();
    __syncthreads(); // this step's rows are here, and nobody reads the one before any more
    if (step + kStages - 1 < steps) copy_x(step + kStages - 1), copy_dyb(step + kStages - 1);
    close_copies();
    add_tile<kTiles>(da, shared.x[step % kStages], shared.dyb[step % kStages]);
  }

  float *const to = gradients.sums + place.da_sums + int64_t(block.down) * width * in;
#pragma unroll
  for (int t = 0; t < kTiles; t++)
#pragma unroll
    for (int n = 0; n < 2 * kSlices; n++) {
      const int32_t w = row_of_a + 16 * t + (lane >> 2);
      const int64_t c = column + warp * kSlices * 16 + 8 * n + 2 * (lane & 3);
      if (c >= in) continue;
      if (w < width) *reinterpret_cast<float2 *>(to + w * in + c) = make_float2(da[t][n][0], da[t][n][1]);
      if (w + 8 < width) *reinterpret_cast<float2 *>(to + (w + 8) * in + c) = make_float2(da[t][n][2], da[t][n][3]);
    }
}

} // namespace

void pass_over_x(cudaStream_t on, const bf16 *x, const Gradients &gradients) {
  int32_t width = 0;
  for (int32_t i = 0; i < gradients.adapters.count; i++) width = max(width, gradients.adapters.at[i].width());
  const auto run = [&](auto kernel, int32_t tiles, size_t shared) {
    int64_t blocks = 0;
    for (int32_t i = 0; i < gradients.adapters.count; i++) {
      const Adapter &adapter = gradients.adapters.at[i];
      blocks += ceil_div(gradients.in, kXColumns) * groups_of(adapter, tiles) * row_blocks(adapter, gradients.places[i].x_rows);
    }
    if (blocks == 0) return;
    allow_shared(kernel, shared);
    launch_after(kernel, dim3(unsigned(blocks)), kThreads, shared, on, x, gradients);
  };
  width <= 16                 ? run(pass_over_x_kernel<1>, 1, sizeof(Shared<1>))
  : width <= 32 || width > 48 ? run(pass_over_x_kernel<2>, 2, sizeof(Shared<2>))
                              : run(pass_over_x_kernel<3>, 3, sizeof(Shared<3>));
}

} // namespace arbor
