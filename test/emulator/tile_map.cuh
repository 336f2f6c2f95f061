// kernels/cuda/tile_map.cuh without a driver: what instructions.cuh needs to copy a tile.
#pragma once

#include <cstdint>

namespace arbor {

struct alignas(64) TileMap {
  const uint16_t *matrix;
  int64_t rows, columns, ld;
  int tile_rows;
};

constexpr int kTileColumns = 64;

inline bool map_tiles(TileMap &map, const void *matrix, int64_t rows, int64_t columns, int64_t ld, int tile_rows) {
  map = {static_cast<const uint16_t *>(matrix), rows, columns, ld, tile_rows};
  return true;
}

} // namespace arbor
