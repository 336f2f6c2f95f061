// The pass over dy: sums of dy b over columns and of dyᵀ xa over rows, of the same tile. A block has 256 columns of one member and some rows; a warp
// keeps the sums of dyᵀ xa of its 64 columns in registers while the rows go by, and b's rows of them.

#include "lora_gradients.cuh"
#include "mma.cuh"

namespace arbor {
namespace {

constexpr int kWarps = 4, kThreads = 32 * kWarps, kStages = 3;
constexpr int kRows = 16; // that a block reads at a time
constexpr int kSlices = kDyColumns / kWarps / 16; // of 16 columns, a warp's

template <int kRank> struct Shared {
  static constexpr int kFragments = kRows / 16 * kRank / 8; // of 16 x 8 sums
  bf16 dy[kStages][kRows * kDyColumns];
  float4 dyb[2][kWarps][kFragments][32]; // each warp's share, of this step and the one before
  // and behind it the block's rows of xa, rounded
  __device__ bf16 *xa() { return reinterpret_cast<bf16 *>(this + 1); }
};

// What a block works on.
struct Block {
  int32_t adapter = 0, across, down;

  __device__ __forceinline__ Block(const Gradients &gradients, int32_t number) {
    for (;; adapter++) {
      const Adapter &a = gradients.adapters.at[adapter];
      const int32_t blocks = blocks_across(a), all = blocks * row_blocks(a, gradients.places[adapter].dy_rows);
      across = number % blocks, down = number / blocks;
      if (number < all || adapter + 1 == gradients.adapters.count) break;
      number -= all;
    }
  }
};

// The block's rows of xa as a tile, zeros behind its ranks and rows.
template <int kRank> __device__ __forceinline__ void load_xa(bf16 *tile, const Adapter &adapter, int32_t part, int32_t first, int32_t rows, int32_t tile_rows) {
  for (int i = threadIdx.x; i < tile_rows * (kRank / 8); i += kThreads) {
    const int row = i / (kRank / 8), piece = i % (kRank / 8);
    EightFloats eight;
    eight.clear();
    if (row < rows && piece * 8 < adapter.rank) eight.load(adapter.xa + int64_t(first + row) * adapter.width() + part * adapter.rank + piece * 8);
    *reinterpret_cast<uint4 *>(tile + tile_at<kRank>(row, piece)) = eight.values();
  }
}

// Rows of b of the warp's columns, from `first` on, as right operands.
template <int kRank> __device__ __forceinline__ void load_b(uint32_t (&b)[kSlices][kRank / 8][2], const Adapter &adapter, int64_t first, int64_t end) {
  const int lane = threadIdx.x & 31, group = lane >> 2, quad = lane & 3;
  const auto value = [&](int64_t column, int r) { return column < end && r < adapter.rank ? adapter.b[column * adapter.rank + r] : 0.0f; };
#pragma unroll
  for (int i = 0; i < kSlices; i++)
#pragma unroll
    for (int n = 0; n < kRank / 8; n++)
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const int64_t column = first + 16 * i + 8 * half + 2 * quad;
        b[i][n][half] = pack_pair(value(column, 8 * n + group), value(column + 1, 8 * n + group));
      }
}

// Adds the tile's share of dyᵀ xa (whose rows begin at `row` of xa's tile) to the warp's sums and stores its share of dy b.
template <int kRank>
__device__ __forceinline__ void add_tile(float (&db)[kSlices][kRank / 8][4], const uint32_t (&b)[kSlices][kRank / 8][2], const bf16 *dy, const bf16 *xa,
                                         int row, float4 (&to)[Shared<kRank>::kFragments][32]) {
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  const uint32_t down = down_address<kDyColumns>(dy, 0, lane), across = across_address<kDyColumns>(dy, 0, lane);
  const uint32_t xa_at = down_address<kRank>(xa, row, lane);
#pragma unroll
  for (int m = 0; m < kRows / 16; m++) {
    float dyb[kRank / 8][4] = {};
    uint32_t low[kRank / 16][4];
#pragma unroll
    for (int j = 0; j < kRank / 16; j++) load_transposed(low[j], (xa_at ^ 32 * j) + m * kDown<kRank>);
#pragma unroll
    for (int i = 0; i < kSlices; i++) {
      const int slice = warp * kSlices + i;
      uint32_t rows[4], columns[4];
      load_matrices(rows, (down ^ 32 * slice) + m * kDown<kDyColumns>);
      load_transposed(columns, (across ^ 32 * slice) + m * kDown<kDyColumns>);
#pragma unroll
      for (int n = 0; n < kRank / 8; n++) {
        mma(dyb[n], rows, b[i][n][0], b[i][n][1]);
        mma(db[i][n], columns, low[n / 2][n % 2 * 2], low[n / 2][n % 2 * 2 + 1]);
      }
    }
#pragma unroll
    for (int n = 0; n < kRank / 8; n++) to[m * (kRank / 8) + n][lane] = make_float4(dyb[n][0], dyb[n][1], dyb[n][2], dyb[n][3]);
  }
}

// The warps' shares of dy b, added in order, of the rows from `to` on, `rows` of them there.
template <int kRank>
__device__ __forceinline__ void store_dyb(float *to, int32_t rows, int32_t rank, const float4 (&shares)[kWarps][Shared<kRank>::kFragments][32]) {
  for (int i = threadIdx.x; i < Shared<kRank>::kFragments * 32; i += kThreads) {
    const int fragment = i / 32, lane = i % 32, column = fragment % (kRank / 8) * 8 + 2 * (lane & 3);
    const int row = fragment / (kRank / 8) * 16 + (lane >> 2);
    float4 sum = shares[0][fragment][lane];
#pragma unroll
    for (int warp = 1; warp < kWarps; warp++) {
      const float4 share = shares[warp][fragment][lane];
      sum.x += share.x, sum.y += share.y, sum.z += share.z, sum.w += share.w;
    }
    if (column >= rank) continue;
    if (row < rows) *reinterpret_cast<float2 *>(to + row * rank + column) = make_float2(sum.x, sum.y);
    if (row + 8 < rows) *reinterpret_cast<float2 *>(to + (row + 8) * rank + column) = make_float2(sum.z, sum.w);
  }
}

template <int kRank> __global__ void __launch_bounds__(kThreads) pass_over_dy_kernel(const bf16 *dy, const __grid_constant__ Gradients gradients) {
  extern __shared__ __align__(1024) unsigned char memory[];
  Shared<kRank> &shared = *reinterpret_cast<Shared<kRank> *>(memory);
  const Block block(gradients, int32_t(blockIdx.x));
  const Adapter &adapter = gradients.adapters.at[block.adapter];
  const GradientPlace &place = gradients.places[block.adapter];
  const PartColumns columns(adapter, block.across);
  const int thread = threadIdx.x, lane = thread & 31, warp = thread >> 5, rank = adapter.rank;
  const int32_t first = block.down * place.dy_rows, rows = min(place.dy_rows, adapter.row_count - first), steps = (rows + kRows - 1) / kRows;
  const int64_t out = gradients.out;

  const auto copy_step = [&](int step) {
    constexpr int kPieces = kDyColumns / 8;
    const bf16 *from = dy + int64_t(adapter.row_start + first + step * kRows) * out + columns.first;
    const int piece = thread % kPieces;
    const bool there = columns.first + piece * 8 < columns.end;
#pragma unroll
    for (int row = thread / kPieces; row < kRows; row += kThreads / kPieces) {
      const bool valid = there && step * kRows + row < rows;
      copy_piece(&shared.dy[step % kStages][tile_at<kDyColumns>(row, piece)], valid ? from + row * out + piece * 8 : dy, valid);
    }
  };
  uint32_t b[kSlices][kRank / 8][2];
  const int64_t column = columns.first + warp * kSlices * 16;
  load_b<kRank>(b, adapter, column, columns.end); // older than the kernel before
  after_kernels_before();
#pragma unroll
  for (int step = 0; step < kStages - 1; step++) {
    if (step < steps) copy_step(step);
    close_copies();
  }
  load_xa<kRank>(shared.xa(), adapter, columns.part, first, rows, steps * kRows);

  float db[kSlices][kRank / 8][4] = {};
  float *const dyb = gradients.sums + place.dyb_sums + (int64_t(block.across) * adapter.row_count + first) * rank;
  const auto store_step = [&](int step) {
    store_dyb<kRank>(dyb + int64_t(step) * kRows * rank, rows - step * kRows, rank, shared.dyb[step & 1]);
  };
  for (int step = 0; step < steps; step++) {
    wait_copies<kStages - 2>();
    __syncthreads(); // this step's rows are here, and nobody reads the one before any more
    if (step + kStages - 1 < steps) copy_step(step + kStages - 1);
    close_copies();
    if (step > 0) store_step(step - 1);
    add_tile<kRank>(db, b, shared.dy[step % kStages], shared.xa(), step * kRows, shared.dyb[step & 1][warp]);
  }
  __syncthreads();
  store_step(steps - 1);

  float *const to = gradients.sums + place.db_sums + int64_t(block.down) * out * rank;
#pragma unroll
  for (int i = 0; i < kSlices; i++)
#pragma unroll
    for (int n = 0; n < kRank / 8; n++) {
      const int r = 8 * n + 2 * (lane & 3);
      const int64_t o = column + 16 * i + (lane >> 2);
      if (r >= rank) continue;
      if (o < columns.end) *reinterpret_cast<float2 *>(to + o * rank + r) = make_float2(db[i][n][0], db[i][n][1]);
      if (o + 8 < columns.end) *reinterpret_cast<float2 *>(to + (o + 8) * rank + r) = make_float2(db[i][n][2], db[i][n][3]);
    }
}

} // namespace

void pass_over_dy(cudaStream_t on, const bf16 *dy, const Gradients &gradients) {
  int64_t blocks = 0;
  int32_t rank = 0, rows = 0;
  for (int32_t i = 0; i < gradients.adapters.count; i++) {
    const Adapter &adapter = gradients.adapters.at[i];
    blocks += int64_t(blocks_across(adapter)) * row_blocks(adapter, gradients.places[i].dy_rows);
    rank = max(rank, adapter.rank), rows = max(rows, gradients.places[i].dy_rows);
  }
  if (blocks == 0) return;
  const auto run = [&](auto kernel, size_t shared) {
    allow_shared(kernel, shared);
    launch_after(kernel, dim3(unsigned(blocks)), kThreads, shared, on, dy, gradients);
  };
  if (rank <= 16)
    run(pass_over_dy_kernel<16>, sizeof(Shared<16>) + size_t(rows) * 16 * sizeof(bf16));
  else
    run(pass_over_dy_kernel<32>, sizeof(Shared<32>) + size_t(rows) * 32 * sizeof(bf16));
}

} // namespace arbor
