// The tiles of a launch. The host knows how many segments and rows there are and the device what they hold, so the host launches as many
// blocks as there may be tiles, and these tables say which tile each has.
#pragma once

#include "attention_shape.cuh"

namespace arbor {

struct alignas(8) QueryTile {
  int segment, first; // its first packed row
};

// Entries [first, first + count) of a segment's context, which lie at context[at ...]. They hold slots from low to high; segment and the
// next `segments` - 1 list the same slots here and share the tile. 0: another tile stands for this one.
struct alignas(16) KeyTile {
  int segment, first, at, count;
};
struct alignas(16) KeySpan {
  int low, high, segments, unused;
};

struct alignas(8) Listing {
  int first, count;
};

struct AttentionTiles {
  int *counts; // query tiles, key tiles, rows of all segments, entries in use
  QueryTile *queries;
  KeyTile *keys;
  KeySpan *spans;
  // Where each slot is listed: entries[...] hold tile * tile_keys + place in the tile, in order.
  Listing *listings;
  int *entries;
  int query_bound, key_bound, tile_rows, tile_keys; // tile_keys 0: no key tiles
};

constexpr int kPlanScratch = 2, kPartialScratch = 3, kDeltaScratch = 4, kTablesScratch = 6; // the last: tables with key tiles

// Launches what fills the tables; not where they are those of the call before, for `same_plan` (arbor_ops.h) and the same sizes. `merged`: at
// most so many segments share a key tile.
int32_t plan_attention(arbor_stream *stream, const char *op, const AttentionShape &shape, bool same_plan, int tile_rows, int tile_keys,
                       int merged, AttentionTiles &tiles);
// Its last part: listings and entries, from keys and spans.
void list_slots(cudaStream_t on, const AttentionShape &shape, const AttentionTiles &tiles);

} // namespace arbor
