// The innermost loops of a product in bf16: C [rows, panels * 16] = init + A B over chunks of 32 k's. A is packed [chunk][rows][32], B's panels lie
// [chunk][16 pairs][16][2]. One kernel for each instruction set, chosen once for the process.
#pragma once

#include "gemm_bf16.h"
#include "simd.h"

#if defined(__AMX_BF16__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace arbor {

constexpr int64_t kChunkInner = 32; // k's of a chunk
constexpr int64_t kPairs = kChunkInner / 2;

#if defined(__AVX512BF16__)
using PackedHalf = uint16_t;
#else
using PackedHalf = float; // rounded, but wide already
#endif

struct HalfOperands {
  int64_t chunks;
  const PackedHalf *a;
  const uint32_t *b;
  int64_t panel_stride; // in pairs
  const float *init;    // null: zero
  int64_t init_row;
  float *c;
  int64_t c_row;
};

// How C is cut into tiles: at most `rows` rows in multiples of `unit`, `panels` panels, more of them where rows are few.
struct HalfKernel {
  int64_t rows, unit, panels;
  int64_t block_rows, piece; // rows of A whose `piece` chunks stay in the second-level cache, while those of the panels stay in the first
  int64_t (*panels_for)(int64_t rows);
  void (*run)(const HalfOperands &, int64_t rows, int64_t panels);
  const char *name;
};

namespace vectors {

constexpr int kVectors = kPanel / kLanes;
#if defined(__AVX512F__)
constexpr int kTileRows = 14, kTilePanels = 2, kRegisters = 28;
#else
constexpr int kTileRows = 6, kTilePanels = 1, kRegisters = 12;
#endif
constexpr int kWidest = 4;

constexpr int64_t panels_for(int64_t rows) {
  const int64_t fit = kRegisters / (rows * kVectors);
  return fit > kWidest ? kWidest : fit < kTilePanels ? kTilePanels : fit;
}

ARBOR_INLINE vi load_pairs(const uint32_t *p) {
  vi pairs;
  std::memcpy(&pairs, p, sizeof pairs);
  return pairs;
}

template <int Rows, int Columns> ARBOR_INLINE void multiply_pair(vf (&sum)[Rows][Columns], const PackedHalf *a, const uint32_t *b, int64_t panel_stride) {
  vi pairs[Columns];
#pragma GCC unroll 8
  for (int j = 0; j < Columns; j++) pairs[j] = load_pairs(b + (j / kVectors) * panel_stride + (j % kVectors) * kLanes);
#if defined(__AVX512BF16__)
#pragma GCC unroll 16
  for (int r = 0; r < Rows; r++) {
    int32_t pair;
    std::memcpy(&pair, a + r * kChunkInner, sizeof pair);
    const __m512bh value = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 8
    for (int j = 0; j < Columns; j++) sum[r][j] = (vf)_mm512_dpbf16_ps((__m512)sum[r][j], value, (__m512bh)pairs[j]);
  }
#else
#pragma GCC unroll 16
  for (int r = 0; r < Rows; r++) {
    const vf value = splat(a[r * kChunkInner]);
#pragma GCC unroll 8
    for (int j = 0; j < Columns; j++) sum[r][j] = fma(value, (vf)(pairs[j] << 16), sum[r][j]);
  }
#pragma GCC unroll 16
  for (int r = 0; r < Rows; r++) {
    const vf value = splat(a[r * kChunkInner + 1]);
#pragma GCC unroll 8
    for (int j = 0; j < Columns; j++) sum[r][j] = fma(value, (vf)(pairs[j] & int32_t(0xffff0000)), sum[r][j]);
  }
#endif
}

template <int Rows, int Panels> void tile(const HalfOperands &o) {
  constexpr int kColumns = Panels * kVectors;
  const PackedHalf *a = o.a;
  const uint32_t *b = o.b;
  vf sum[Rows][kColumns];
#pragma GCC unroll 16
  for (int r = 0; r < Rows; r++)
#pragma GCC unroll 8
    for (int j = 0; j < kColumns; j++) sum[r][j] = o.init ? load(o.init + r * o.init_row + j * kLanes) : vf{};
  for (int64_t chunk = 0; chunk < o.chunks; chunk++, a += (Rows - 1) * kChunkInner)
    for (int64_t i = 0; i < kPairs; i++, a += 2, b += kPanel) multiply_pair<Rows, kColumns>(sum, a, b, o.panel_stride);
#pragma GCC unroll 16
  for (int r = 0; r < Rows; r++)
#pragma GCC unroll 8
    for (int j = 0; j < kColumns; j++) store(o.c + r * o.c_row + j * kLanes, sum[r][j]);
}

using Tile = void (*)(const HalfOperands &);
struct Tiles {
  Tile one, usual, wide;
};
template <int Rows> constexpr Tiles tiles() { return {tile<Rows, 1>, tile<Rows, kTilePanels>, tile<Rows, int(panels_for(Rows))>}; }

constexpr Tiles kTiles[] = {
    {},         tiles<1>(), tiles<2>(), tiles<3>(),  tiles<4>(),  tiles<5>(),  tiles<6>(),
#if defined(__AVX512F__)
    tiles<7>(), tiles<8>(), tiles<9>(), tiles<10>(), tiles<11>(), tiles<12>(), tiles<13>(), tiles<14>(),
#endif
};

inline void run(const HalfOperands &o, int64_t rows, int64_t panels) {
  const Tiles &kinds = kTiles[rows];
  (panels == 1 ? kinds.one : panels == kTilePanels ? kinds.usual : kinds.wide)(o);
}

constexpr HalfKernel kKernel = {kTileRows, 1, kTilePanels, 192, 512 / kTilePanels / kChunkInner, panels_for, run, ARBOR_BUILD_ISA};

} // namespace vectors

#if defined(__AMX_BF16__)
namespace amx {

// Eight tiles of 16 rows x 64 bytes: 0 to 3 sums, 4 and 5 of A, 6 and 7 of B.
inline void configure() {
  struct alignas(64) {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } const config;
  _tile_loadconfig(&config);
}

// Linux gives a process the tiles' registers when it asks for them; all its threads have them then.
inline bool permitted() {
  constexpr long kRequest = 0x1023, kTileData = 18; // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static const bool answer = syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
  return answer;
}

constexpr int64_t kTile = 16; // rows of a tile
constexpr int64_t kChunkWords = kPairs * kPanel;

// The numbers of tiles must be literals.
#define ARBOR_SUM(number, row, panel)                                                                                                  \
  (o.init ? (void)__extension__({ _tile_loadd(number, o.init + row * kTile * o.init_row + panel * kPanel, o.init_row * 4); })          \
          : (void)__extension__({ _tile_zero(number); }))
#define ARBOR_STORE(number, row, panel) _tile_stored(number, o.c + row * kTile * o.c_row + panel * kPanel, o.c_row * 4)

template <bool TwoRows, bool TwoPanels> void tile(const HalfOperands &o) {
  constexpr int64_t kRows = TwoRows ? 2 : 1;
  const PackedHalf *a = o.a;
  const uint32_t *b = o.b;
  ARBOR_SUM(0, 0, 0);
  if (TwoPanels) ARBOR_SUM(1, 0, 1);
  if (TwoRows) ARBOR_SUM(2, 1, 0);
  if (TwoRows && TwoPanels) ARBOR_SUM(3, 1, 1);
  for (int64_t chunk = 0; chunk < o.chunks; chunk++, a += kRows * kTile * kChunkInner, b += kChunkWords) {
    _tile_loadd(4, a, 64);
    _tile_loadd(6, b, 64);
    _tile_dpbf16ps(0, 4, 6);
    if (TwoPanels) {
      _tile_loadd(7, b + o.panel_stride, 64);
      _tile_dpbf16ps(1, 4, 7);
    }
    if (TwoRows) {
      _tile_loadd(5, a + kTile * kChunkInner, 64);
      _tile_dpbf16ps(2, 5, 6);
    }
    if (TwoRows && TwoPanels) _tile_dpbf16ps(3, 5, 7);
  }
  ARBOR_STORE(0, 0, 0);
  if (TwoPanels) ARBOR_STORE(1, 0, 1);
  if (TwoRows) ARBOR_STORE(2, 1, 0);
  if (TwoRows && TwoPanels) ARBOR_STORE(3, 1, 1);
}

#undef ARBOR_SUM
#undef ARBOR_STORE

inline void run(const HalfOperands &o, int64_t rows, int64_t panels) {
  if (rows > kTile)
    panels == 2 ? tile<true, true>(o) : tile<true, false>(o);
  else
    panels == 2 ? tile<false, true>(o) : tile<false, false>(o);
}

constexpr HalfKernel kKernel = {2 * kTile, kTile, 2, 384, 640 / kChunkInner, [](int64_t) -> int64_t { return 2; }, run, "amx"};

} // namespace amx
#endif

inline const HalfKernel &half_kernel() {
#if defined(__AMX_BF16__)
  return amx::permitted() ? amx::kKernel : vectors::kKernel;
#else
  return vectors::kKernel;
#endif
}

} // namespace arbor
