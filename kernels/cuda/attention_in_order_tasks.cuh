// What a block of attention_in_order_crowd.cu has in shared memory, how its rows lie in tiles, and the tasks of a round of keys.
#pragma once

#include "attention.cuh"
#include "attention_in_order.cuh"

namespace arbor {
namespace in_order {

constexpr int kWarps = kManyWarps, kThreads = 32 * kWarps, kRound = kWarps * kStrip; // keys of a round
constexpr int kTiles = 3, kBlockRows = kTiles * kMostRows, kMostTasks = kWarps * kBlockRows;
constexpr int kChunk = 6, kStages = 4, kRing = kChunk * kStages; // values come by so many strips, of which as many chunks are here or on their way
static_assert(kRing == 2 * kWarps && kChunk % 2 == 0, "or two strips of keys for each warp");

// Of a strip and a tile: scores, and where they were what has become of them.
union Place {
  float2 scores[kStrip / 8][2][32];
  struct {
    uint4 weights[kStrip / 16][32]; // as left operands
    float totals[2][32];
  } made;
};

template <int D> struct alignas(256) Crowd {
  bf16 queries[kTiles][kTileRows * D];
  bf16 ring[kRing][kStrip * D];
  Place places[kWarps][kTiles];
  float peaks[1 + kWarps][kTiles][kTileRows]; // before the round; of each strip
  int slots[kMostTasks][kStrip], tasks[kMostTasks], counts[kWarps];
};

// Rows [begin, end) of the block list the same slots in a strip, or are one.
struct Task {
  int strip, begin, end;

  __device__ __forceinline__ explicit Task(int packed) : strip(packed & 255), begin(packed >> 8 & 255), end(packed >> 16) {}
  static __device__ __forceinline__ int packed(int strip, int begin, int end) { return strip | begin << 8 | end << 16; }
  __device__ __forceinline__ bool has(int row) const { return row >= begin && row < end; }
};

// How a block's rows lie in tiles, `most` in each; `part`: which of a tile's are this lane's two.
struct Tiles {
  int most, part[2];

  __device__ __forceinline__ Tiles(int rows, int heads) : most(rows) {
    const int m = (int(threadIdx.x) & 31) >> 2;
    part[0] = m / heads, part[1] = (m + 8) / heads;
  }
  // The block's row, one that is never there where the tile has none.
  __device__ __forceinline__ int row(int tile, int half) const { return part[half] < most ? tile * most + part[half] : 31; }
  __device__ __forceinline__ bool has(int tile, const Task &task) const { return task.begin < (tile + 1) * most && task.end > tile * most; }
};

// The slots that this warp's strip of the round from `first` on has in each row, for key `lane` of it; kNone past a row's end.
struct StripSlots {
  static constexpr int kNone = -0x7fffffff - 1;
  int of[kBlockRows];

  __device__ __forceinline__ void read(const AttentionShape &shape, const Rows &rows, int first) {
    const int key = first + int(threadIdx.x);
#pragma unroll
    for (int r = 0; r < kBlockRows; r++) { // all on their way at once
      const int length = rows.length(r), start = rows.entries(r);
      of[r] = key < length ? shape.context[start + key] : kNone;
    }
  }
};

// Leaves the tasks of a round in the order of their strips; their number. It waits for all who are in the round before.
template <int D>
__device__ __forceinline__ int find_tasks(const AttentionShape &shape, const Rows &rows, const StripSlots &slots, int first, Crowd<D> &shared) {
  const int lane = int(threadIdx.x) & 31, warp = int(threadIdx.x) >> 5, own = first + warp * kStrip;
  unsigned begun = 0, joined = 0; // rows with whom a task begins, or goes on
  int before = 0;                 // the length of the row before
#pragma unroll
  for (int r = 0; r < kBlockRows; r++) {
    const int length = rows.length(r);
    if (r > 0 && own < min(before, length) && __all_sync(0xffffffffu, slots.of[r] == slots.of[max(r - 1, 0)])) // and none at the same keys
      joined |= 1u << r;
    else if (own < length)
      begun |= 1u << r;
    before = length;
  }
  if (lane == 0) shared.counts[warp] = __popc(begun);
  __syncthreads();
  int at = 0, all = 0;
#pragma unroll
  for (int w = 0; w < kWarps; w++) {
    if (w == warp) at = all;
    all += shared.counts[w];
  }
  if (begun >> lane & 1) shared.tasks[at + __popc(begun & ((1u << lane) - 1))] = Task::packed(warp, lane, lane + __ffs(~(joined >> lane >> 1)));
  int wrong = StripSlots::kNone;
#pragma unroll
  for (int r = 0; r < kBlockRows; r++) {
    const bool valid = unsigned(slots.of[r]) < unsigned(shape.slots);
    if (!valid) wrong = max(wrong, slots.of[r]);
    if (begun >> r & 1) shared.slots[at++][lane] = valid ? slots.of[r] : -1;
  }
  if (wrong != StripSlots::kNone) report(shape.fault, kFaultAttention, wrong, shape.slots);
  for (int m = lane; m < kTiles * kTileRows; m += 32) {
    shared.peaks[1 + warp][m / kTileRows][m % kTileRows] = -INFINITY; // of rows that see nothing of the strip
    if (first == 0 && warp == 0) shared.peaks[0][m / kTileRows][m % kTileRows] = -kMostFloat;
  }
  return all;
}

} // namespace in_order
} // namespace arbor
