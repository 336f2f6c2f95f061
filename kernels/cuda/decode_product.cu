#include "decode_product.cuh"

#include <algorithm>
#include <type_traits>

#include "mma.cuh"

namespace arbor {
namespace {

constexpr int kColumns = 64, kThreads = 128; // of a block
constexpr int64_t kLeastDepth = 384, kMostTerms = 8; // of a term: with less, adding terms costs more than it brings

template <int kRows> constexpr int kStageBytes = (kColumns + kRows) * kTileColumns * 2;
// Stages of a ring, of so many blocks that share a multiprocessor.
template <int kRows, int kBlocks> constexpr int kStages = (kBlocks == 1 ? 180 << 10 : (220 << 10) / kBlocks) / kStageBytes<kRows>;
constexpr int kUsualBlocks = 3, kMostBlocks = 5; // with more than usual, rings are short

// A block's sums by way of shared memory, so that rows go out in pieces of 16 bytes.
template <class T, int kRows>
__device__ __forceinline__ void write_sums(T *to, T *shared, const float (&sums)[kRows / 8][4], int rows, int columns, int64_t ld) {
  constexpr int kPiece = 16 / sizeof(T), kPitch = kColumns + kPiece;
  const int lane = int(threadIdx.x) & 31, column = int(threadIdx.x) / 32 * 16 + (lane >> 2);
  __syncthreads(); // what was computed with lies there
#pragma unroll
  for (int n = 0; n < kRows / 8; n++)
#pragma unroll
    for (int i = 0; i < 4; i++) shared[(8 * n + 2 * (lane & 3) + (i & 1)) * kPitch + column + (i >> 1) * 8] = from_float<T>(sums[n][i]);
  __syncthreads();
  for (int i = int(threadIdx.x); i < rows * (kColumns / kPiece); i += kThreads) {
    const int row = i / (kColumns / kPiece), first = i % (kColumns / kPiece) * kPiece;
    if (first < columns) store_pack(to + row * ld + first, load_pack(shared + row * kPitch + first));
  }
}

// A block has 64 columns and a term, a warp 16 columns and all rows; sums run over k in order. Tiles of 64 of k come through a ring of stages.
template <int kRows, int kBlocks>
__global__ __launch_bounds__(kThreads, kBlocks) void decode_tiles(const __grid_constant__ TileMap weights, const __grid_constant__ TileMap xs, void *to,
                                                                  bool rounded, int32_t first_row, int32_t rows, int32_t all_rows, int32_t columns,
                                                                  int32_t steps) {
  extern __shared__ __align__(1024) unsigned char memory[];
  __shared__ Arrival arrivals[kStages<kRows, kBlocks>];
  unsigned char *const stages = memory + (1024 - shared_address(memory) % 1024) % 1024;
  const int first = int(blockIdx.x) * kColumns, start = int(blockIdx.y) * steps;
  const bool copies = threadIdx.x == 0;
  const auto weight_at = [&](int slot) { return stages + slot * kStageBytes<kRows>; };
  const auto x_at = [&](int slot) { return weight_at(slot) + kColumns * kTileColumns * 2; };
  const auto copy_weight = [&](int slot, int step) {
    expect_bytes(arrivals + slot, kStageBytes<kRows>);
    copy_tile(weight_at(slot), &weights, (start + step) * kTileColumns, first, arrivals + slot);
  };
  const auto copy_x = [&](int slot, int step) { copy_tile(x_at(slot), &xs, (start + step) * kTileColumns, first_row, arrivals + slot); };
  if (copies) {
    make_arrivals(arrivals, kStages<kRows, kBlocks>);
    for (int i = 0; i < min(steps, kStages<kRows, kBlocks>); i++) copy_weight(i, i);
  }
  after_kernels_before();
  if (copies)
    for (int i = 0; i < min(steps, kStages<kRows, kBlocks>); i++) copy_x(i, i);
  __syncthreads();
  float sums[kRows / 8][4] = {};
  int slot = 0, parity = 0;
  for (int step = 0; step < steps; step++) {
    wait_for(arrivals + slot, parity);
    multiply_tiles<kRows>(sums, weight_at(slot), x_at(slot));
    const int next = step + kStages<kRows, kBlocks>;
    if (next < steps) {
      __syncthreads();
      if (copies) copy_weight(slot, next), copy_x(slot, next);
    }
    if (++slot == kStages<kRows, kBlocks>) slot = 0, parity ^= 1;
  }
  const int64_t place = (int64_t(blockIdx.y) * all_rows + first_row) * columns + first;
  if (rounded)
    write_sums<bf16, kRows>(static_cast<bf16 *>(to) + place, reinterpret_cast<bf16 *>(stages), sums, rows, columns - first, columns);
  else
    write_sums<float, kRows>(static_cast<float *>(to) + place, reinterpret_cast<float *>(stages), sums, rows, columns - first, columns);
}

// Of `count` rows from `first` on, of all of x.
template <int kRows, int kBlocks>
bool launch(arbor_stream *stream, const bf16 *x, const bf16 *weight, int64_t weight_ld, const DecodeOutputs &to, int64_t first, int64_t count, int64_t rows,
            int64_t depth) {
  constexpr size_t kShared = kStages<kRows, kBlocks> * kStageBytes<kRows> + 1024;
  TileMap weights, xs;
  const auto kernel = decode_tiles<kRows, kBlocks>;
  if (!map_tiles(weights, weight, to.columns, depth, weight_ld, kColumns) || !map_tiles(xs, x, rows, depth, depth, kRows) || !allow_shared(kernel, kShared)) return false;
  const dim3 grid(unsigned(ceil_div(to.columns, kColumns)), unsigned(to.terms));
  launch_after(kernel, grid, kThreads, kShared, cuda_stream(stream), weights, xs, to.at, to.rounded, first, count, rows, to.columns, depth / kTileColumns / to.terms);
  return true;
}

template <int kRows, int kBlocks = 1, class... Arguments> bool launch_sharing(arbor_stream *stream, int64_t sharing, const Arguments &...arguments) {
  if constexpr (kBlocks < kMostBlocks)
    if (sharing > kBlocks) return launch_sharing<kRows, kBlocks + 1>(stream, sharing, arguments...);
  return launch<kRows, kBlocks>(stream, arguments...);
}

// The fewer blocks there are, the more each asks for before the wait.
int64_t blocks_on_each(arbor_stream *stream, const DecodeOutputs &to) { return ceil_div(ceil_div(to.columns, kColumns) * to.terms, multiprocessors(stream)); }

} // namespace

int32_t decode_terms(arbor_stream *stream, int64_t columns, int64_t depth) {
  if (depth % kTileColumns != 0 || columns % 8 != 0) return 0;
  int64_t terms = std::min(ceil_div(multiprocessors(stream), ceil_div(columns, kColumns)), std::clamp(depth / kLeastDepth, int64_t(1), kMostTerms));
  while (depth / kTileColumns % terms != 0) terms--;
  return int32_t(terms);
}

std::vector<int32_t> decode_sharings(arbor_stream *stream, const DecodeOutputs &to) {
  std::vector<int32_t> more;
  if (blocks_on_each(stream, to) > kUsualBlocks)
    for (int sharing = kUsualBlocks + 1; sharing <= kMostBlocks; sharing++) more.push_back(sharing);
  return more;
}

bool decode_product(arbor_stream *stream, const bf16 *x, const bf16 *weight, int64_t weight_ld, const DecodeOutputs &to, int64_t rows, int64_t depth,
                    int32_t sharing) {
  if (!has_warpgroups(stream)) return false;
  const int64_t share = sharing > 0 ? sharing : std::min(blocks_on_each(stream, to), int64_t(kUsualBlocks));
  for (int64_t first = 0; first < rows; first += kMostDecodeRows) {
    const int64_t count = std::min(kMostDecodeRows, rows - first);
    const auto run = [&](auto most) { return launch_sharing<most()>(stream, share, x, weight, weight_ld, to, first, count, rows, depth); };
    const bool done = count <= 8    ? run(std::integral_constant<int, 8>())
                      : count <= 16 ? run(std::integral_constant<int, 16>())
                      : count <= 32 ? run(std::integral_constant<int, 32>())
                                    : run(std::integral_constant<int, 64>());
    if (!done) return false;
  }
  return true;
}

} // namespace arbor
