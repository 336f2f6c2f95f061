// Fills the tables of tiles (attention_plan.cuh).

#include <climits>

#include "attention_plan.cuh"
#include "memory.cuh"

namespace arbor {
namespace {

constexpr int kPlanThreads = 1024, kSpanWarps = 8;

// The sum of `value` over the threads before this one; `total` is that over all. `shared` holds 33 numbers.
__device__ int sum_before(int value, int *shared, int &total) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  int sum = value;
  for (int offset = 1; offset < 32; offset <<= 1) {
    const int other = __shfl_up_sync(0xffffffffu, sum, offset);
    if (lane >= offset) sum += other;
  }
  __syncthreads();
  if (lane == 31) shared[warp] = sum;
  __syncthreads();
  if (warp == 0) {
    const int own = shared[lane];
    int warps = own;
    for (int offset = 1; offset < 32; offset <<= 1) {
      const int other = __shfl_up_sync(0xffffffffu, warps, offset);
      if (lane >= offset) warps += other;
    }
    shared[lane] = warps - own;
    if (lane == 31) shared[32] = warps;
  }
  __syncthreads();
  total = shared[32];
  return shared[warp] + sum - value;
}

// How a segment's context is cut into key tiles: what lies before its own rows, which others see as well, apart from these, so that segments with one
// ancestor have the same tiles there. Not where it has so few rows that they would be a waste of a tile.
struct KeyCuts {
  static constexpr int kFewRows = 16;
  int keys, cut, length;

  __device__ KeyCuts(const Segment &segment, int tile_keys)
      : keys(tile_keys), cut(segment.row_count > kFewRows ? segment.context_length - segment.row_count : segment.context_length),
        length(segment.context_length) {}
  __device__ int before() const { return (cut + keys - 1) / keys; }
  __device__ int tiles() const { return before() + (length - cut + keys - 1) / keys; }
  __device__ int first(int i) const { return i < before() ? i * keys : cut + (i - before()) * keys; }
  // Entries of the tile that begins at `first`, 0 when none does.
  __device__ int count(int first) const {
    const int from = first < cut ? first : first - cut, end = first < cut ? cut : length;
    return from % keys == 0 ? max(0, min(keys, end - first)) : 0;
  }
};

// One block; a thread for each segment.
__global__ void __launch_bounds__(kPlanThreads) plan_kernel(AttentionShape shape, AttentionTiles tiles) {
  __shared__ int shared[33];
  int queries = 0, keys = 0, rows = 0;
  for (int first = 0; first < shape.segment_count; first += kPlanThreads) {
    const int s = first + int(threadIdx.x);
    Segment segment = {0, 0, 0, 0};
    if (s < shape.segment_count) read_segment(shape, s, segment);
    const int packed = segment.row_count * shape.group();
    const int own_queries = (packed + tiles.sizes.rows - 1) / tiles.sizes.rows;
    const int own_keys = tiles.sizes.keys > 0 && packed > 0 ? KeyCuts(segment, tiles.sizes.keys).tiles() : 0;
    int total;
    const int query_at = queries + sum_before(own_queries, shared, total);
    queries += total;
    for (int i = 0; i < own_queries && query_at + i < tiles.query_bound; i++) tiles.queries[query_at + i] = {s, i * tiles.sizes.rows};
    const int key_at = keys + sum_before(own_keys, shared, total);
    keys += total;
    for (int i = 0; i < own_keys && key_at + i < tiles.key_bound; i++) {
      const KeyCuts cuts(segment, tiles.sizes.keys);
      const int at = cuts.first(i);
      tiles.keys[key_at + i] = {s, at, segment.context_start + at, cuts.count(at)};
    }
    sum_before(segment.row_count, shared, total);
    rows += total;
  }
  if (threadIdx.x != 0) return;
  if (queries > tiles.query_bound) report(shape.fault, kFaultAttention, rows, shape.tokens);
  if (keys > tiles.key_bound) report(shape.fault, kFaultAttention, int64_t(keys) * tiles.sizes.keys, shape.context_capacity);
  tiles.counts[0] = min(queries, tiles.query_bound);
  tiles.counts[1] = min(keys, tiles.key_bound);
  tiles.counts[2] = rows;
  tiles.counts[3] = tiles.counts[4] = tiles.counts[5] = 0;
}

// A key tile's slots in the lanes of a warp.
struct LaneSlots {
  int one, two;

  __device__ LaneSlots(const AttentionShape &shape, int at, int count, int lane)
      : one(lane < count ? shape.context[at + lane] : -1), two(lane + 32 < count ? shape.context[at + lane + 32] : -1) {}
  __device__ bool equals(const LaneSlots &other) const { return __all_sync(0xffffffffu, one == other.one && two == other.two); }
};

// Whether segment s has the same tile as `tile`, with these slots.
__device__ bool has_tile(const AttentionShape &shape, int s, const KeyTile &tile, int keys, const LaneSlots &slots, int lane) {
  Segment segment;
  if (!read_segment(shape, s, segment) || segment.row_count == 0 || KeyCuts(segment, keys).count(tile.first) != tile.count) return false;
  return LaneSlots(shape, segment.context_start + tile.first, tile.count, lane).equals(slots);
}

// A warp for each key tile. Segments share a tile within windows of `merged`, so each warp finds out alone what its tile stands for.
__global__ void __launch_bounds__(kSpanWarps * 32) span_kernel(AttentionShape shape, AttentionTiles tiles) {
  const int lane = threadIdx.x & 31, t = blockIdx.x * kSpanWarps + (threadIdx.x >> 5);
  if (t >= tiles.counts[1]) return;
  const KeyTile tile = tiles.keys[t];
  const LaneSlots slots(shape, tile.at, tile.count, lane);
  const int low = min(slots.one < 0 ? INT_MAX : slots.one, slots.two < 0 ? INT_MAX : slots.two);
  KeySpan span = {__reduce_min_sync(0xffffffffu, low), __reduce_max_sync(0xffffffffu, max(slots.one, slots.two)), 1, 0};
  const int merged = tiles.sizes.merged;
  if (merged > 1) {
    const auto same = [&](int s) { return has_tile(shape, s, tile, tiles.sizes.keys, slots, lane); };
    if (tile.segment % merged != 0 && same(tile.segment - 1))
      span.segments = 0;
    else
      for (int s = tile.segment + 1; s < shape.segment_count && s % merged != 0 && same(s); s++) span.segments++;
  }
  int steps = 0;
  for (int s = tile.segment; s < tile.segment + span.segments; s++) {
    Segment segment;
    read_segment(shape, s, segment);
    steps += ((segment.row_count - segment.seer(tile.first)) * shape.group() + tiles.sizes.step_rows - 1) / tiles.sizes.step_rows;
  }
  span.steps = steps;
  if (lane == 0) tiles.spans[t] = span;
}

// One block. Cuts the tiles' steps into shares of about one length.
__global__ void __launch_bounds__(kPlanThreads) share_kernel(AttentionTiles tiles) {
  __shared__ int shared[33];
  const int count = tiles.counts[1], thread = int(threadIdx.x);
  int64_t steps = 0;
  for (int first = 0; first < count; first += kPlanThreads) {
    int total;
    sum_before(first + thread < count ? tiles.spans[first + thread].steps : 0, shared, total);
    steps += total;
  }
  const int64_t most = max(int64_t(tiles.sizes.least_steps), (steps + tiles.sizes.shares - 1) / max(tiles.sizes.shares, 1));
  int shares = 0;
  for (const bool long_ones : {true, false}) // these first: a launch ends sooner when its last blocks are short
    for (int first = 0; first < count; first += kPlanThreads) {
      const int t = first + thread, own = t < count ? tiles.spans[t].steps : 0, parts = (2 * own > most) == long_ones ? int((own + most - 1) / most) : 0;
      int total;
      const int at = shares + sum_before(parts, shared, total);
      shares += total;
      if (parts > 0 || (t < count && own == 0)) tiles.parts[t] = {at, parts};
      for (int i = 0; i < parts; i++)
        tiles.shares[at + i] = {t, int(int64_t(own) * i / parts), int(int64_t(own) * (i + 1) / parts), 0};
    }
  if (thread == 0) tiles.counts[4] = shares;
}

// ---- host ----------------------------------------------------------------------------------------------------------------------

// Takes the tables' memory; false when there is none.
bool place_tables(arbor_stream *stream, const AttentionShape &shape, AttentionTiles &tiles) {
  const int64_t keys = tiles.key_bound, slots = keys > 0 ? shape.slots : 0;
  const int64_t shares = tiles.share_bound;
  const int64_t bytes[] = {32, keys * 16, keys * 16, int64_t(tiles.query_bound) * 8, slots * 8, shares * tiles.sizes.keys * 4, keys * 8, shares * 16, slots * 4};
  int64_t at[9], total = 0;
  for (int i = 0; i < 9; i++) at[i] = total, total += ceil_div(bytes[i], 16) * 16;
  char *const memory = static_cast<char *>(scratch(stream, keys > 0 ? kTablesScratch : kPlanScratch, total));
  if (!memory) return false;
  tiles.counts = reinterpret_cast<int *>(memory + at[0]);
  tiles.keys = reinterpret_cast<KeyTile *>(memory + at[1]);
  tiles.spans = reinterpret_cast<KeySpan *>(memory + at[2]);
  tiles.queries = reinterpret_cast<QueryTile *>(memory + at[3]);
  tiles.listings = reinterpret_cast<Listing *>(memory + at[4]);
  tiles.entries = reinterpret_cast<int *>(memory + at[5]);
  tiles.parts = reinterpret_cast<Listing *>(memory + at[6]);
  tiles.shares = reinterpret_cast<KeyShare *>(memory + at[7]);
  tiles.several = reinterpret_cast<int *>(memory + at[8]);
  return true;
}

// All that tables are made from but the values in segments and context; the sizes that are not here follow from these.
ScratchNote note_of(const AttentionShape &shape, const TileSizes &sizes) {
  return {int64_t(reinterpret_cast<uintptr_t>(shape.segments)), int64_t(reinterpret_cast<uintptr_t>(shape.context)), shape.segment_count,
          shape.context_capacity, shape.tokens, shape.slots, shape.heads, shape.kv_heads, sizes.rows, sizes.keys, sizes.merged};
}

} // namespace

int32_t plan_attention(arbor_stream *stream, const char *op, const AttentionShape &shape, bool same_plan, const TileSizes &sizes,
                       AttentionTiles &tiles) {
  tiles.sizes = sizes;
  tiles.query_bound = int(int64_t(shape.tokens) * shape.group() / sizes.rows) + shape.segment_count;
  tiles.key_bound = sizes.keys > 0 ? shape.context_capacity / sizes.keys + 2 * shape.segment_count : 0;
  tiles.share_bound = tiles.key_bound > 0 ? tiles.key_bound + sizes.shares : 0;
  if (!place_tables(stream, shape, tiles)) return ARBOR_OUT_OF_MEMORY;
  // A capture fills its own when it is replayed; what it records is not there yet.
  const bool recording = is_recording(stream);
  const ScratchNote given = note_of(shape, sizes);
  ScratchNote &note = scratch_note(stream, tiles.key_bound > 0 ? kTablesScratch : kPlanScratch);
  if (same_plan && note == given && !recording) return ARBOR_OK;
  note = {};
  const cudaStream_t on = cuda_stream(stream);
  plan_kernel<<<1, kPlanThreads, 0, on>>>(shape, tiles);
  if (tiles.key_bound > 0) {
    span_kernel<<<unsigned(ceil_div(tiles.key_bound, kSpanWarps)), kSpanWarps * 32, 0, on>>>(shape, tiles);
    share_kernel<<<1, kPlanThreads, 0, on>>>(tiles);
    if (shape.slots > 0) list_slots(on, shape, tiles);
  }
  const int32_t code = launched(stream, op);
  if (code == ARBOR_OK && !recording) note = given;
  return code;
}

} // namespace arbor
