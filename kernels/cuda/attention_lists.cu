// Where each slot is listed among the key tiles (attention_plan.cuh), so that its gradient's shares can be added in order. Lists of tiles are
// tried in their order by the span of their slots; only the place of a slot's list in memory depends on which block comes first.

#include "attention_plan.cuh"

namespace arbor {
namespace {

constexpr int kListWarps = 16, kListThreads = 32 * kListWarps;
constexpr int kListSlots = 4, kBlockSlots = kListWarps * kListSlots; // slots of a warp, of a block
constexpr int kBatch = 2 * kListThreads, kAhead = 4;

// A tile that may list one of the block's slots.
struct alignas(16) Candidate {
  int at, count;
  Listing shares;
};

struct ListShared {
  Candidate candidates[kBatch];
  int found[kBatch / 32], counts[kBlockSlots], first;
};

// The tiles among the kBatch from `first` on that may list slots from low to high, in order; returns how many there are.
__device__ int find_candidates(const AttentionTiles &tiles, int first, int low, int high, ListShared &shared) {
  const int lane = int(threadIdx.x) & 31, warp = int(threadIdx.x) >> 5, end = tiles.counts[1];
  unsigned found[2];
  __syncthreads(); // nobody reads the candidates before any more
#pragma unroll
  for (int part = 0; part < 2; part++) {
    const int t = first + part * kListThreads + int(threadIdx.x);
    bool hit = false;
    if (t < end) {
      const KeySpan span = tiles.spans[t];
      hit = span.segments > 0 && span.low <= high && span.high >= low;
    }
    found[part] = __ballot_sync(0xffffffffu, hit);
    if (lane == 0) shared.found[part * kListWarps + warp] = __popc(found[part]);
  }
  __syncthreads();
  int total = 0;
  for (int w = 0; w < kBatch / 32; w++) {
    const int part = w / kListWarps;
    if (w % kListWarps == warp && (found[part] >> lane & 1)) {
      const int t = first + part * kListThreads + int(threadIdx.x);
      const KeyTile tile = tiles.keys[t];
      shared.candidates[total + __popc(found[part] & ((1u << lane) - 1))] = {tile.at, tile.count, tiles.parts[t]};
    }
    total += shared.found[w];
  }
  __syncthreads();
  return total;
}

// Calls visit(slot of the warp, ballot of the lanes that hold it, the tile's shares, the lanes' place in it) for each half of a tile, in order.
template <class Visit>
__device__ void for_each_listing(const AttentionShape &shape, int slot, int count, const ListShared &shared,
                                 const Visit &visit) {
  const int lane = int(threadIdx.x) & 31;
  for (int c = 0; c < count; c += kAhead) {
    int held[kAhead][2];
#pragma unroll
    for (int a = 0; a < kAhead; a++)
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const Candidate candidate = shared.candidates[min(c + a, count - 1)];
        const bool valid = c + a < count && lane + 32 * half < candidate.count;
        held[a][half] = valid ? shape.context[candidate.at + lane + 32 * half] : -1;
      }
#pragma unroll
    for (int a = 0; a < kAhead; a++)
#pragma unroll
      for (int half = 0; half < 2; half++)
#pragma unroll
        for (int i = 0; i < kListSlots; i++) {
          const unsigned all = __ballot_sync(0xffffffffu, held[a][half] == slot + i);
          if (all != 0) visit(i, all, shared.candidates[c + a].shares, 32 * half + lane);
        }
  }
}

// A block for kBlockSlots slots. It counts, takes a place for its lists among all, and passes over the tiles again to write them.
__global__ void __launch_bounds__(kListThreads) list_kernel(AttentionShape shape, AttentionTiles tiles) {
  __shared__ ListShared shared;
  const int lane = int(threadIdx.x) & 31, warp = int(threadIdx.x) >> 5, low = int(blockIdx.x) * kBlockSlots, slot = low + warp * kListSlots;
  const int tile_count = tiles.counts[1];
  int counts[kListSlots] = {}, found = 0;
  for (int first = 0; first < tile_count; first += kBatch) {
    found = find_candidates(tiles, first, low, low + kBlockSlots - 1, shared);
    for_each_listing(shape, slot, found, shared, [&](int i, unsigned all, const Listing &shares, int) { counts[i] += __popc(all) * shares.count; });
  }
#pragma unroll
  for (int i = 0; i < kListSlots; i++)
    if (lane == 0) shared.counts[warp * kListSlots + i] = counts[i];
  __syncthreads();
  if (threadIdx.x == 0) {
    int total = 0;
    for (int i = 0; i < kBlockSlots; i++) {
      const int own = shared.counts[i];
      shared.counts[i] = total;
      total += own;
    }
    shared.first = atomicAdd(tiles.counts + 3, total);
  }
  __syncthreads();
  int at[kListSlots];
#pragma unroll
  for (int i = 0; i < kListSlots; i++) {
    at[i] = shared.first + shared.counts[warp * kListSlots + i];
    if (lane != 0 || slot + i >= shape.slots) continue;
    tiles.listings[slot + i] = {at[i], counts[i]};
    if (counts[i] != 1) tiles.several[atomicAdd(tiles.counts + 5, 1)] = slot + i;
  }
  for (int first = 0; first < tile_count; first += kBatch) {
    if (tile_count > kBatch) found = find_candidates(tiles, first, low, low + kBlockSlots - 1, shared); // else they are still there
    for_each_listing(shape, slot, found, shared, [&](int i, unsigned all, const Listing &shares, int place) {
      if (all >> lane & 1) {
        int *const to = tiles.entries + at[i] + __popc(all & ((1u << lane) - 1)) * shares.count;
        for (int p = 0; p < shares.count; p++) to[p] = (shares.first + p) * tiles.sizes.keys + place;
      }
      at[i] += __popc(all) * shares.count;
    });
  }
}

} // namespace

void list_slots(cudaStream_t on, const AttentionShape &shape, const AttentionTiles &tiles) {
  list_kernel<<<unsigned(ceil_div(shape.slots, kBlockSlots)), kListThreads, 0, on>>>(shape, tiles);
}

} // namespace arbor
