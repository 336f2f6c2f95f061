// How the copy engine of Hopper's multiprocessors reads tiles of a matrix (a "tensor map"), made by the driver.
#pragma once

#include <cstdint>

#include "dynamic_library.h"

namespace arbor {

// As the driver lays it out (CUtensorMap).
struct alignas(64) TileMap {
  uint64_t data[16];
};

constexpr int kTileColumns = 64; // of bf16: 128 bytes, the longest row that is swizzled

// Of a bf16 matrix [rows, columns], columns a multiple of 8 and rows `ld` apart: tiles of `tile_rows` rows and 64 columns. In shared memory a tile lies as
// `tile_at<64>` says (mma.cuh); what lies beyond the matrix arrives as zeros. False where the driver has no such maps.
inline bool map_tiles(TileMap &map, const void *matrix, int64_t rows, int64_t columns, int64_t ld, int tile_rows) {
  typedef int32_t (*Encode)(TileMap *, int32_t type, uint32_t rank, void *, const uint64_t *sizes, const uint64_t *strides, const uint32_t *box,
                            const uint32_t *steps, int32_t interleave, int32_t swizzle, int32_t promotion, int32_t fill);
  static const Encode encode = [] {
    Encode found = nullptr;
    DynamicLibrary driver("ARBOR_DRIVER", {"libcuda.so.1"});
    if (driver) driver.find(found, "cuTensorMapEncodeTiled");
    return found;
  }();
  constexpr int32_t kBf16 = 9, kSwizzle128 = 3, kPromote256 = 3;
  const uint64_t sizes[] = {uint64_t(columns), uint64_t(rows)}, strides[] = {uint64_t(ld) * 2};
  const uint32_t box[] = {kTileColumns, uint32_t(tile_rows)}, steps[] = {1, 1};
  return encode && encode(&map, kBf16, 2, const_cast<void *>(matrix), sizes, strides, box, steps, 0, kSwizzle128, kPromote256, 0) == 0;
}

} // namespace arbor
