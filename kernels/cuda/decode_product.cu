#include "decode_product.cuh"

#include <algorithm>
#include <type_traits>

#include "mma.cuh"

namespace arbor {
namespace {

constexpr int kColumns = 64; // of a block, unless it is narrower
constexpr int kMultiply = 128, kProducers = 2, kThreads = kMultiply + 32 * kProducers; // the last warps ask for tiles: one alone is slower than products
constexpr int64_t kLeastDepth = 384, kMostTerms = 8; // of a term: with less, adding terms costs more than it brings
constexpr int64_t kDeep = 2048;                      // steps enough that a multiprocessor is slower than its part of memory

// A block: x's rows at most, blocks that share a multiprocessor, W's rows. Four warps multiply 64 of these at a time: where a block has fewer, what
// lies behind them is multiplied as well, and nobody asks what came of it.
template <int kMostRows, int kSharing, int kWidth> struct BlockOf {
  static constexpr int kRows = kMostRows, kBlocks = kSharing, kColumns = kWidth;
  static constexpr int kStageBytes = (kColumns + kRows) * kTileColumns * 2, kBehind = (64 - kColumns) * kTileColumns * 2;
  static constexpr int kStages = ((kBlocks == 1 ? 180 << 10 : (220 << 10) / kBlocks) - kBehind) / kStageBytes; // of a ring
};
constexpr int kUsualBlocks = 3, kMostBlocks = 5, kMostNarrow = 2; // on a multiprocessor; with more than usual, rings are short

// A block's sums by way of shared memory, so that rows go out in pieces of 16 bytes.
template <class T, class Block>
__device__ __forceinline__ void write_sums(T *to, T *shared, const float (&sums)[Block::kRows / 8][4], int rows, int columns, int64_t ld) {
  constexpr int kPiece = 16 / sizeof(T), kPitch = Block::kColumns + kPiece, kWidth = Block::kColumns;
  const int lane = int(threadIdx.x) & 31, column = int(threadIdx.x) / 32 * 16 + (lane >> 2);
  __syncthreads(); // what was computed with lies there
#pragma unroll
  for (int n = 0; n < Block::kRows / 8; n++)
#pragma unroll
    for (int i = 0; i < 4; i++)
      if (column < kWidth) shared[(8 * n + 2 * (lane & 3) + (i & 1)) * kPitch + column + (i >> 1) * 8] = from_float<T>(sums[n][i]);
  __syncthreads();
  for (int i = int(threadIdx.x); i < rows * (kWidth / kPiece); i += kThreads) {
    const int row = i / (kWidth / kPiece), first = i % (kWidth / kPiece) * kPiece;
    if (first < columns) store_pack(to + row * ld + first, load_pack(shared + row * kPitch + first));
  }
}

// A block has some columns and a term; of its warps that multiply each has 16 columns and all rows. Sums run over k in order. Tiles of 64 of k come through
// a ring of stages, which are filled again as soon as all warps have done with them: a warp may be a stage ahead of the others.
template <class Block>
__global__ __launch_bounds__(kThreads, Block::kBlocks) void decode_tiles(const __grid_constant__ TileMap weights, const __grid_constant__ TileMap xs, void *to,
                                                                  bool rounded, int32_t first_row, int32_t rows, int32_t all_rows, int32_t columns,
                                                                  int32_t steps) {
  constexpr int kRows = Block::kRows, kColumns = Block::kColumns, kStages = Block::kStages, kStageBytes = Block::kStageBytes;
  extern __shared__ __align__(1024) unsigned char memory[];
  __shared__ Arrival filled[kStages], emptied[kStages];
  unsigned char *const stages = memory + (1024 - shared_address(memory) % 1024) % 1024;
  const int first = int(blockIdx.x) * kColumns, start = int(blockIdx.y) * steps, thread = int(threadIdx.x);
  const int producer = thread / 32 - kMultiply / 32;
  const bool copies = producer >= 0 && thread % 32 == 0;
  const auto weight_at = [&](int slot) { return stages + slot * kStageBytes; };
  const auto x_at = [&](int slot) { return weight_at(slot) + kColumns * kTileColumns * 2; };
  const auto copy_weight = [&](int slot, int step) {
    expect_bytes(filled + slot, kStageBytes);
    copy_tile(weight_at(slot), &weights, (start + step) * kTileColumns, first, filled + slot);
  };
  const auto copy_x = [&](int slot, int step) { copy_tile(x_at(slot), &xs, (start + step) * kTileColumns, first_row, filled + slot); };
  if (thread == 0) make_arrivals(filled, kStages), make_arrivals(emptied, kStages, kMultiply / 32);
  __syncthreads();
  if (copies)
    for (int i = producer; i < min(steps, kStages); i += kProducers) copy_weight(i, i);
  __syncwarp();
  after_kernels_before();
  float sums[kRows / 8][4] = {};
  if (copies) {
    for (int i = producer; i < min(steps, kStages); i += kProducers) copy_x(i, i);
    for (int step = kStages + producer; step < steps; step += kProducers) {
      const int slot = step % kStages;
      wait_for(emptied + slot, (step / kStages + 1) & 1);
      copy_weight(slot, step), copy_x(slot, step);
    }
  } else if (thread < kMultiply) {
    int slot = 0, parity = 0;
    const auto ask_for_products = [&] {
      wait_for(filled + slot, parity);
      begin_products();
      add_tile_products<kRows, kColumns>(sums, weight_at(slot), x_at(slot));
      close_products();
    };
    ask_for_products();
    for (int step = 1; step < steps; step++) {
      const int before = slot;
      if (++slot == kStages) slot = 0, parity ^= 1;
      ask_for_products();
      wait_products<1>(); // those before
      if (thread % 32 == 0) arrive(emptied + before);
    }
    wait_products<0>();
    hold(sums);
  }
  __syncwarp();
  const int64_t place = (int64_t(blockIdx.y) * all_rows + first_row) * columns + first;
  if (rounded)
    write_sums<bf16, Block>(static_cast<bf16 *>(to) + place, reinterpret_cast<bf16 *>(stages), sums, rows, columns - first, columns);
  else
    write_sums<float, Block>(static_cast<float *>(to) + place, reinterpret_cast<float *>(stages), sums, rows, columns - first, columns);
}

// Of `count` rows from `first` on, of all of x.
template <class Block>
bool launch(arbor_stream *stream, const bf16 *x, const bf16 *weight, int64_t weight_ld, const DecodeOutputs &to, int64_t first, int64_t count, int64_t rows,
            int64_t depth) {
  constexpr size_t kShared = Block::kStages * Block::kStageBytes + Block::kBehind + 1024;
  TileMap weights, xs;
  const auto kernel = decode_tiles<Block>;
  if (!map_tiles(weights, weight, to.columns, depth, weight_ld, Block::kColumns) || !map_tiles(xs, x, rows, depth, depth, Block::kRows) || !allow_shared(kernel, kShared)) return false;
  const dim3 grid(unsigned(ceil_div(to.columns, Block::kColumns)), unsigned(to.terms));
  launch_after(kernel, grid, kThreads, kShared, cuda_stream(stream), weights, xs, to.at, to.rounded, first, count, rows, to.columns, depth / kTileColumns / to.terms);
  return true;
}

// So many on a multiprocessor as `sharing` says, kMost at most.
template <int kRows, int kWidth, int kMost, int kBlocks = 1, class... Arguments> bool launch_sharing(arbor_stream *stream, int32_t sharing, const Arguments &...arguments) {
  if constexpr (kBlocks < kMost)
    if (sharing > kBlocks) return launch_sharing<kRows, kWidth, kMost, kBlocks + 1>(stream, sharing, arguments...);
  return launch<BlockOf<kRows, kBlocks, kWidth>>(stream, arguments...);
}

template <int kRows, class... Arguments> bool launch_dealt(arbor_stream *stream, const DecodeBlocks &dealt, const Arguments &...arguments) {
  return dealt.columns == 16   ? launch_sharing<kRows, 16, kMostNarrow>(stream, dealt.sharing, arguments...)
         : dealt.columns == 32 ? launch_sharing<kRows, 32, kMostNarrow>(stream, dealt.sharing, arguments...)
                               : launch_sharing<kRows, kColumns, kMostBlocks>(stream, dealt.sharing, arguments...);
}

// The fewer blocks there are, the more each asks for before the wait.
int64_t blocks_on_each(arbor_stream *stream, const DecodeOutputs &to, int64_t columns = kColumns) {
  return ceil_div(ceil_div(to.columns, columns) * to.terms, multiprocessors(stream));
}

} // namespace

int32_t decode_terms(arbor_stream *stream, int64_t columns, int64_t depth) {
  if (depth % kTileColumns != 0 || columns % 8 != 0) return 0;
  if (decodes_in_order(stream)) return terms_in_order(stream, columns, depth);
  int64_t terms = std::min(ceil_div(multiprocessors(stream), ceil_div(columns, kColumns)), std::clamp(depth / kLeastDepth, int64_t(1), kMostTerms));
  while (depth / kTileColumns % terms != 0) terms--;
  return int32_t(terms);
}

int32_t terms_in_order(arbor_stream *stream, int64_t columns, int64_t depth) {
  const bool few_blocks = 4 * ceil_div(columns, kColumns) <= multiprocessors(stream), deep = depth >= kDeep && depth > 2 * columns;
  return decodes_in_order(stream) && few_blocks && deep && depth % (2 * kTileColumns) == 0 ? 2 : 1;
}

std::vector<DecodeBlocks> other_blocks(arbor_stream *stream, const DecodeOutputs &to) {
  std::vector<DecodeBlocks> others;
  if (blocks_on_each(stream, to) > kUsualBlocks)
    for (int32_t sharing = kUsualBlocks + 1; sharing <= kMostBlocks; sharing++) others.push_back({kColumns, sharing});
  if (2 * ceil_div(to.columns, kColumns) * to.terms <= multiprocessors(stream))
    for (const int32_t columns : {32, 16}) {
      const auto sharing = int32_t(blocks_on_each(stream, to, columns));
      if (sharing <= kMostNarrow) others.push_back({columns, sharing});
    }
  return others;
}

bool decode_product(arbor_stream *stream, const bf16 *x, const bf16 *weight, int64_t weight_ld, const DecodeOutputs &to, int64_t rows, int64_t depth,
                    const DecodeBlocks &blocks) {
  if (!has_warpgroups(stream)) return false;
  DecodeBlocks dealt = blocks;
  if (dealt.sharing == 0) dealt.sharing = int32_t(std::min(blocks_on_each(stream, to), int64_t(kUsualBlocks)));
  for (int64_t first = 0; first < rows; first += kMostDecodeRows) {
    const int64_t count = std::min(kMostDecodeRows, rows - first);
    const auto run = [&](auto most) { return launch_dealt<most()>(stream, dealt, x, weight, weight_ld, to, first, count, rows, depth); };
    const bool done = count <= 8    ? run(std::integral_constant<int, 8>())
                      : count <= 16 ? run(std::integral_constant<int, 16>())
                      : count <= 32 ? run(std::integral_constant<int, 32>())
                                    : run(std::integral_constant<int, 64>());
    if (!done) return false;
  }
  return true;
}

} // namespace arbor
