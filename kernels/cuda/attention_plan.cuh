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
  int low, high, segments, steps; // steps: of the queries that see it, of all these segments
};

struct alignas(8) Listing {
  int first, count;
};

// What a block adds up of a key tile: of the queries that see it, segment after segment in steps of `step_rows` packed rows, those of the steps
// [first, end).
struct alignas(16) KeyShare {
  int tile, first, end, unused;
};

// How tiles are cut.
struct TileSizes {
  int rows, keys;            // of a tile; no keys: no key tiles
  int merged = 1;            // at most so many segments share a key tile
  int step_rows = 1;         // of a share
  int least_steps = 1 << 30; // shares have no more steps than these, or, where there would be more shares than one for each tile and ...
  int shares = 0;            // ... so many besides, than make that many
};

struct AttentionTiles {
  int *counts; // query tiles, key tiles, rows of all segments, entries in use, shares, slots in `several`
  QueryTile *queries;
  KeyTile *keys;
  KeySpan *spans;
  Listing *parts; // each tile's shares
  KeyShare *shares;
  // Where each slot is listed: entries[...] hold share * keys of a tile + place in the tile, in order.
  Listing *listings;
  int *entries;
  int *several; // the slots that are not listed once, in any order
  int query_bound, key_bound, share_bound;
  TileSizes sizes;
};

constexpr int kPlanScratch = 2, kPartialScratch = 3, kDeltaScratch = 4, kTablesScratch = 6; // the last: tables with key tiles

// Launches what fills the tables; not where they are those of the call before, for `same_plan` (arbor_ops.h) and the same sizes.
int32_t plan_attention(arbor_stream *stream, const char *op, const AttentionShape &shape, bool same_plan, const TileSizes &sizes,
                       AttentionTiles &tiles);
// Its last part: listings and entries, from keys, spans and parts.
void list_slots(cudaStream_t on, const AttentionShape &shape, const AttentionTiles &tiles);

} // namespace arbor
