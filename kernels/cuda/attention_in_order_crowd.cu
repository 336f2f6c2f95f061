// Attention of many single rows as attention_in_order.cu, to the bit: a block has up to three tiles of four rows, so that one block for each multiprocessor
// will do for some hundred rows. A round's work is cut into tasks: a strip of keys, the rows next to one another that list the same slots there. Warps
// take tasks' keys in turn and leave the scores where each strip and row has its place; then each makes weights of a strip; then each goes through
// the tasks' values in order, with one tile's weights and 16 of the head's columns. Rows of a tile that are not of the task weigh nothing.

#include <algorithm>

#include "attention_in_order_tasks.cuh"

namespace arbor {
namespace {

using namespace in_order;

// The scores of a task's rows, and their highest.
template <int D>
__device__ __forceinline__ void score_task(const Rows &rows, const Tiles &tiles, const Task &task, int first, const bf16 *keys, Crowd<D> &shared) {
  const int lane = int(threadIdx.x) & 31, own = first + task.strip * kStrip, length = rows.length(task.begin);
#pragma unroll 1
  for (int tile = 0; tile < kTiles; tile++) {
    if (!tiles.has(tile, task)) continue;
    float scores[kStrip / 8][4] = {};
    add_inner_products<D, kStrip>(scores, shared.queries[tile], 0, keys, 0, lane);
    const int seen[2] = {length, length};
    if (own + kStrip > length) mask<kStrip>(scores, seen, own, lane);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const float peak = highest(scores, half, -INFINITY);
      if (!task.has(tiles.row(tile, half))) continue;
      if ((lane & 3) == 0) shared.peaks[1 + task.strip][tile][(lane >> 2) + 8 * half] = peak;
#pragma unroll
      for (int n = 0; n < kStrip / 8; n++)
        shared.places[task.strip][tile].scores[n][half][lane] = make_float2(scores[n][2 * half], scores[n][2 * half + 1]);
    }
  }
}

// A warp's share of the tasks' keys, the farthest first, with the next on their way; then the first of the tasks' values come where they were, stage by
// stage. All but the last stage's copies are closed.
template <int D>
__device__ __forceinline__ void score_tasks(const AttentionShape &shape, const Rows &rows, const Tiles &tiles, int first, int count, const bf16 *k,
                                            const bf16 *v, Crowd<D> &shared) {
  const int lane = int(threadIdx.x) & 31, warp = int(threadIdx.x) >> 5, width = shape.kv_width();
  bf16(*const own)[kStrip * D] = shared.ring + 2 * warp;
  const auto copy = [&](const bf16 *from, int task, int turn) {
    if (task >= 0 && task < count) copy_strip<D>(own[turn], from, shared.slots[task][lane], width);
  };
  int at = count - 1 - warp, turn = 0;
#pragma unroll 1
  for (int i = 0; i < 2; i++) copy(k, at - i * kWarps, i), close_copies();
  if (first == 0) {
    wait_copies<2>();
    __syncthreads(); // the queries are every warp's
  }
  for (; at >= 0; at -= kWarps, turn ^= 1) {
    wait_copies<1>();
    __syncwarp();
    score_task<D>(rows, tiles, Task(shared.tasks[at]), first, own[turn], shared);
    __syncwarp();
    copy(k, at - 2 * kWarps, turn), close_copies();
  }
  for (int stage = 0; stage < 2 * warp / kChunk; stage++) close_copies();
#pragma unroll 1
  for (int i = 0; i < 2; i++) copy(v, 2 * warp + i, i);
  for (int stage = 2 * warp / kChunk; stage < kStages - 1; stage++) close_copies();
}

// The scores of a warp's strip become weights under the peak of its block of 64.
template <int D>
__device__ __forceinline__ void weigh(const Rows &rows, const Tiles &tiles, int first, float scale, Crowd<D> &shared) {
  const int lane = int(threadIdx.x) & 31, warp = int(threadIdx.x) >> 5, last = warp / kBlockStrips * kBlockStrips + kBlockStrips - 1;
#pragma unroll 1
  for (int tile = 0; tile < kTiles; tile++) {
    if (tile * tiles.most >= rows.count) break;
    Place &place = shared.places[warp][tile];
    float scores[kStrip / 8][4], totals[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const bool sees = first + warp * kStrip < rows.length(tiles.row(tile, half));
#pragma unroll
      for (int n = 0; n < kStrip / 8; n++) {
        const float2 two = sees ? place.scores[n][half][lane] : make_float2(-INFINITY, -INFINITY);
        scores[n][2 * half] = two.x, scores[n][2 * half + 1] = two.y;
      }
      const int m = (lane >> 2) + 8 * half;
      float peak = shared.peaks[0][tile][m];
#pragma unroll
      for (int s = 0; s < kWarps; s += 4) { // divided among the row's four lanes
        const float one = shared.peaks[1 + s + (lane & 3)][tile][m];
        peak = fmaxf(peak, s + (lane & 3) <= last ? one : peak);
      }
      totals[half] = weigh_strip(scores, 0, half, scale, max_of_four(peak) * scale);
    }
    __syncwarp(); // weights lie where other lanes' scores were
    lay_weights(place.made.weights, scores, lane);
    place.made.totals[0][lane] = totals[0], place.made.totals[1][lane] = totals[1];
  }
}

// What a warp sums: of tile `tile`, in which this lane's rows are the block's `row`, 16 columns.
template <int D> struct Columns {
  int tile, pair, row[2];
  Running sums;
  float out[2][4] = {};

  __device__ __forceinline__ Columns(const Tiles &tiles)
      : tile(int(threadIdx.x) / 32 / (D / 16)), pair(int(threadIdx.x) / 32 % (D / 16)), row{tiles.row(tile, 0), tiles.row(tile, 1)} {}

  // Goes on to block `block` of the round; one in which no row of the tile sees a key changes nothing.
  __device__ __forceinline__ void enter(int block, float scale, const Crowd<D> &shared) {
    const int lane = int(threadIdx.x) & 31, s = block * kBlockStrips;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int m = (lane >> 2) + 8 * half;
      const float shrink = sums.pass(half, shared.peaks[1 + s][tile][m], shared.peaks[2 + s][tile][m], scale);
      sums.count(half, shrink, shared.places[s][tile].made.totals[half][lane], shared.places[s + 1][tile].made.totals[half][lane]);
#pragma unroll
      for (int n = 0; n < 2; n++) out[n][2 * half] *= shrink, out[n][2 * half + 1] *= shrink;
    }
  }
  __device__ __forceinline__ void add(const Task &task, const bf16 *values, const Crowd<D> &shared) {
    const int lane = int(threadIdx.x) & 31;
    const bool one = task.has(row[0]), two = task.has(row[1]);
#pragma unroll
    for (int step = 0; step < kStrip / 16; step++) {
      const uint4 all = shared.places[task.strip][tile].made.weights[step][lane];
      const uint32_t left[4] = {one ? all.x : 0, two ? all.y : 0, one ? all.z : 0, two ? all.w : 0};
      uint32_t right[4];
      load_transposed(right, (down_address<D>(values, 0, lane) ^ 32 * pair) + step * kDown<D>);
      mma(out[0], left, right[0], right[1]);
      mma(out[1], left, right[2], right[3]);
    }
  }
};

// The tasks' values, weighted, in order. A stage is filled again when all warps have been through the chunk that it held.
template <int D>
__device__ __forceinline__ void add_tasks(const AttentionShape &shape, const Tiles &tiles, int count, const bf16 *v, float scale, Columns<D> &columns,
                                          Crowd<D> &shared) {
  constexpr int kPieces = D / 8, kCopies = kChunk * kStrip * kPieces / kThreads;
  static_assert(kCopies * kThreads == kChunk * kStrip * kPieces, "threads have the same number of pieces");
  const int lane = int(threadIdx.x) & 31, width = shape.kv_width();
  const auto copy_values = [&](int chunk) {
#pragma unroll
    for (int i = 0; i < kCopies; i++) {
      const int piece = i * kThreads + int(threadIdx.x), strip = piece / (kStrip * kPieces), key = piece / kPieces % kStrip, task = chunk * kChunk + strip;
      if (task >= count) break;
      const int slot = shared.slots[task][key];
      copy_piece(shared.ring[chunk % kStages * kChunk + strip] + tile_at<D>(key, piece % kPieces), v + int64_t(max(slot, 0)) * width + piece % kPieces * 8,
                 slot >= 0);
    }
  };
  int block = -1;
#pragma unroll 1
  for (int chunk = 0; chunk * kChunk < count; chunk++) {
    wait_copies<kStages - 2>();
    __syncthreads(); // the chunk is here, and nobody reads the one before any more
    if (chunk > 0) copy_values(chunk + kStages - 1);
    close_copies();
    const int packed = lane < kChunk && chunk * kChunk + lane < count ? shared.tasks[chunk * kChunk + lane] : 0;
    for (unsigned left = __ballot_sync(0xffffffffu, tiles.has(columns.tile, Task(packed))); left != 0; left &= left - 1) {
      const int i = __ffs(left) - 1;
      const Task task(__shfl_sync(0xffffffffu, packed, i));
      if (task.strip / kBlockStrips != block) columns.enter(block = task.strip / kBlockStrips, scale, shared);
      columns.add(task, shared.ring[chunk % kStages * kChunk + i], shared);
    }
  }
}

// A block for `count` segments and a key head.
template <int D>
__global__ void __launch_bounds__(kThreads, 1)
    in_order_crowd_kernel(AttentionShape shape, int count, const bf16 *q, const bf16 *k, const bf16 *v, bf16 *out, float *lse, float scale) {
  extern __shared__ __align__(256) unsigned char memory[];
  Crowd<D> &shared = *reinterpret_cast<Crowd<D> *>(memory);
  const int lane = int(threadIdx.x) & 31, kv_head = int(blockIdx.y);
  Rows rows(shape, int(blockIdx.x) * count, count);
  rows.head = kv_head * shape.group(), rows.heads = shape.group();
  const Tiles tiles((count + kTiles - 1) / kTiles, rows.heads); // all tiles are used: they go through their values at the same time
  k += kv_head * D, v += kv_head * D;
  for (int query = 0; rows.pick(query); query++) { // one, where the engine decodes
    StripSlots slots;
    slots.read(shape, rows, 0);
    after_kernels_before(); // what rows see is the host's to say, and read; all else is not
    Columns<D> columns(tiles);
    for (int first = 0; first < rows.longest; first += kRound) {
      const int tasks = find_tasks<D>(shape, rows, slots, first, shared);
      for (int tile = 0; tile * tiles.most < rows.count && first == 0; tile++)
        copy_queries<D, kWarps>(shape, rows, tile * tiles.most, min(rows.count, (tile + 1) * tiles.most), q, shared.queries[tile]);
      close_copies();
      __syncthreads(); // tasks are every warp's
      score_tasks<D>(shape, rows, tiles, first, tasks, k, v, shared);
      slots.read(shape, rows, first + kRound);
      __syncthreads(); // scores and peaks, too
      weigh<D>(rows, tiles, first, scale, shared);
      add_tasks<D>(shape, tiles, tasks, v, scale, columns, shared);
      if (columns.tile < kTiles && columns.pair == 0 && (lane & 3) == 0)
        for (int half = 0; half < 2; half++) shared.peaks[0][columns.tile][(lane >> 2) + 8 * half] = columns.sums.peak[half];
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int m = (lane >> 2) + 8 * half, row = rows.row(columns.row[half]), length = rows.length(columns.row[half]);
      const float total = sum_of_four(columns.sums.total[half]), by = 1 / total;
      if (length == 0) continue;
      const int64_t at = int64_t(row) * shape.heads + rows.head + m % rows.heads;
      if (lse && columns.pair == 0 && (lane & 3) == 0) lse[at] = columns.sums.peak[half] * scale * kLn2 + logf(total);
      store_pair<D>(out, at, columns.pair, columns.out, half, by, lane);
    }
  }
  after_kernels_before(); // no grid ends before those before it, though its blocks had nothing to do
}

} // namespace

bool attend_crowd_in_order(arbor_stream *stream, const AttentionShape &shape, const AttentionTensors &t) {
  if (shape.dim > 64 || shape.group() > kTileRows) return false;
  const int64_t count = std::min<int64_t>(ceil_div(int64_t(shape.segment_count) * shape.kv_heads, multiprocessors(stream)),
                                          kTiles * std::min(kMostRows, kTileRows / shape.group()));
  if (count < 2) return false; // each row may have a multiprocessor
  const dim3 grid(unsigned(ceil_div(shape.segment_count, count)), unsigned(shape.kv_heads));
  const auto launch = [&](auto kernel, size_t bytes) {
    if (!allow_shared(kernel, bytes)) return false;
    launch_after(kernel, grid, kThreads, bytes, cuda_stream(stream), shape, int(count), static_cast<const bf16 *>(t.q), static_cast<const bf16 *>(t.k),
                 static_cast<const bf16 *>(t.v), static_cast<bf16 *>(t.out), t.lse, 1 / sqrtf(float(shape.dim)) * kLog2e);
    return true;
  };
  return shape.dim == 64 ? launch(in_order_crowd_kernel<64>, sizeof(Crowd<64>)) : launch(in_order_crowd_kernel<32>, sizeof(Crowd<32>));
}

} // namespace arbor
