// The blocks of a product in bf16: rows of A are rounded and packed once for a block, panels of B pass by (gemm.cpp says more of the order of loops).

#include "gemm_bf16.h"

#include "gemm_bf16_tile.h"
#include "pool.h"

namespace arbor {
namespace {

constexpr int64_t kMostPanels = 4, kMostRows = 32; // of any kernel's tile

// Rows [m0, m0 + rows) and chunks from c0 on, as [chunk][height][32]; rows and k's that don't exist are zero.
void pack_a(PackedHalf *to, const Gemm &g, int64_t m0, int64_t rows, int64_t height, int64_t c0, int64_t chunks) {
  for (int64_t c = 0; c < chunks; c++)
    for (int64_t r = 0; r < height; r++, to += kChunkInner) {
      const int64_t k0 = (c0 + c) * kChunkInner, left = g.k - k0, k = r < rows ? left < kChunkInner ? left : kChunkInner : 0;
      const float *from = g.a.data + (m0 + r) * g.a.row + k0;
#if defined(__AVX512BF16__)
      const __m512 scale = _mm512_set1_ps(g.a.scale);
      const uint32_t mask = k <= 0 ? 0 : k == kChunkInner ? ~0u : (1u << k) - 1;
      const __m512 low = _mm512_maskz_loadu_ps(__mmask16(mask), from) * scale;
      const __m512 high = _mm512_maskz_loadu_ps(__mmask16(mask >> 16), from + 16) * scale;
      const __m512bh both = _mm512_cvtne2ps_pbh(high, low);
      std::memcpy(to, &both, sizeof both);
#else
      if (k == kChunkInner)
        for (int64_t i = 0; i < kChunkInner; i++) to[i] = from_bf16(to_bf16(from[i] * g.a.scale));
      else
        for (int64_t i = 0; i < kChunkInner; i++) to[i] = i < k ? from_bf16(to_bf16(from[i] * g.a.scale)) : 0;
#endif
    }
}

// 16 outputs x 16 inputs of a panel, [8 pairs of inputs][16 outputs][2], as [8 pairs of outputs][16 inputs][2]: within 64 bits the two inputs of two
// outputs change places, then it is a transpose of 8 x 8 such squares.
void transpose_square(uint64_t *to, const uint64_t *from) {
#if defined(__AVX512F__)
  const __m512i swap = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
  __m512i r[8], t[8];
  for (int i = 0; i < 8; i++) r[i] = _mm512_shuffle_epi8(_mm512_loadu_si512(from + 8 * i), swap);
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm512_unpacklo_epi64(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi64(r[i], r[i + 1]);
  }
  // t[i], t[i + 1] hold columns 0 2 4 6 and 1 3 5 7 of rows i, i + 1, 128 bits each.
  for (int i = 0; i < 2; i++) {
    const __m512i a = _mm512_shuffle_i64x2(t[i], t[i + 2], 0x88), b = _mm512_shuffle_i64x2(t[i], t[i + 2], 0xdd);
    const __m512i c = _mm512_shuffle_i64x2(t[i + 4], t[i + 6], 0x88), d = _mm512_shuffle_i64x2(t[i + 4], t[i + 6], 0xdd);
    _mm512_storeu_si512(to + 8 * i, _mm512_shuffle_i64x2(a, c, 0x88));
    _mm512_storeu_si512(to + 8 * (i + 2), _mm512_shuffle_i64x2(b, d, 0x88));
    _mm512_storeu_si512(to + 8 * (i + 4), _mm512_shuffle_i64x2(a, c, 0xdd));
    _mm512_storeu_si512(to + 8 * (i + 6), _mm512_shuffle_i64x2(b, d, 0xdd));
  }
#else
  for (int i = 0; i < 8; i++)
    for (int j = 0; j < 8; j++) {
      const uint64_t square = from[8 * j + i];
      to[8 * i + j] = (square & 0xffff00000000ffff) | (square & 0xffff0000) << 16 | (square >> 16 & 0xffff0000);
    }
#endif
}

// A panel of 16 columns n0 … of B = W, chunks of k (W's outputs) from c0 on; W is stored by outputs.
void pack_transposed(uint32_t *to, const MatrixB &b, int64_t outputs, int64_t n0, int64_t c0, int64_t chunks) {
  constexpr int64_t kSquare = 8 * kPanel;
  const int64_t panels = (outputs + kPanel - 1) / kPanel, panel_words = bf16_pairs(b.inner) * kPanel;
  for (int64_t p = 2 * c0; p < 2 * (c0 + chunks); p++, to += kSquare)
    if (p < panels)
      transpose_square(reinterpret_cast<uint64_t *>(to), reinterpret_cast<const uint64_t *>(b.halves + p * panel_words + n0 / 2 * kPanel));
    else
      std::memset(to, 0, kSquare * sizeof(uint32_t));
}

// A tile that sticks out goes through a buffer; `height` rows of it are computed.
void edge_tile(const HalfKernel &kernel, HalfOperands o, int64_t rows, int64_t columns, int64_t height, int64_t panels) {
  constexpr int64_t kRow = kMostPanels * kPanel;
  alignas(64) float buffer[kMostRows * kRow];
  std::memset(buffer, 0, size_t(height * kRow) * sizeof(float));
  if (o.init)
    for (int64_t r = 0; r < rows; r++) std::memcpy(buffer + r * kRow, o.init + r * o.init_row, size_t(columns) * sizeof(float));
  float *to = o.c;
  const int64_t to_row = o.c_row;
  o.init = o.c = buffer, o.init_row = o.c_row = kRow;
  kernel.run(o, height, panels);
  for (int64_t r = 0; r < rows; r++) std::memcpy(to + r * to_row, buffer + r * kRow, size_t(columns) * sizeof(float));
}

} // namespace

bool bf16_is_fast() {
#if defined(__AVX512BF16__)
  return true;
#else
  return false;
#endif
}

Bf16Blocks bf16_blocks() { return {half_kernel().unit, half_kernel().block_rows}; }

MatrixB bf16_transposed(uint32_t *to, const MatrixB &b, int64_t k, int64_t n) {
  const int64_t panel_words = bf16_pairs(k) * kPanel;
  parallel_for((n + kPanel - 1) / kPanel, [&](int64_t panel) {
    pack_transposed(to + panel * panel_words, b, k, panel * kPanel, 0, bf16_pairs(k) / kPairs);
  });
  return {MatrixB::Bf16Panels, nullptr, 0, 0, k, to};
}

void gemm_bf16_block(const Gemm &g, int64_t m0, int64_t rows, int64_t n0, int64_t columns, const AfterBlock &after) {
  const HalfKernel &kernel = half_kernel();
#if defined(__AMX_BF16__)
  if (&kernel == &amx::kKernel) amx::configure(); // each time: others may use the tiles of this thread too
#endif
  const int64_t units = (rows + kernel.unit - 1) / kernel.unit;
  const int64_t tile_count = (units * kernel.unit + kernel.rows - 1) / kernel.rows;
  const auto tile_start = [&](int64_t t) { return t * units / tile_count * kernel.unit; };
  const int64_t group = tile_count == 1 ? kernel.panels_for(units * kernel.unit) : kernel.panels;
  const int64_t all = bf16_pairs(g.k) / kPairs;
  const int64_t pieces = tile_count == 1 ? 1 : (all + kernel.piece - 1) / kernel.piece;
  const int64_t most = (all + pieces - 1) / pieces;
  const bool transposed = g.b.kind == MatrixB::Bf16PanelsTransposed;
  PackedHalf *packed_a = reinterpret_cast<PackedHalf *>(scratch(0, units * kernel.unit * most * kChunkInner));
  uint32_t *packed_b = transposed ? reinterpret_cast<uint32_t *>(scratch(1, group * most * kPairs * kPanel)) : nullptr;

  for (int64_t piece = 0; piece < pieces; piece++) {
    const int64_t c0 = piece * all / pieces, chunks = (piece + 1) * all / pieces - c0;
    for (int64_t t = 0; t < tile_count; t++) {
      const int64_t first = tile_start(t), height = tile_start(t + 1) - first;
      pack_a(packed_a + first * chunks * kChunkInner, g, m0 + first, rows - first, height, c0, chunks);
    }
    const float *init = piece > 0 ? g.c.data : g.c.init;
    const int64_t init_row = piece > 0 ? g.c.row : g.c.init_row;
    for (int64_t n = n0; n < n0 + columns;) {
      const int64_t left = n0 + columns - n;
      const int64_t panels = left > (group - 1) * kPanel ? group : 1;
      const int64_t width = left < panels * kPanel ? left : panels * kPanel;
      const int64_t panel_stride = (transposed ? chunks * kPairs : bf16_pairs(g.k)) * kPanel;
      if (transposed)
        for (int64_t p = 0; p < panels; p++) pack_transposed(packed_b + p * panel_stride, g.b, g.k, n + p * kPanel, c0, chunks);
      const uint32_t *b = transposed ? packed_b : g.b.halves + n / kPanel * panel_stride + c0 * kPairs * kPanel;
      for (int64_t t = 0; t < tile_count; t++) {
        const int64_t first = tile_start(t), height = tile_start(t + 1) - first, real = rows - first < height ? rows - first : height;
        const HalfOperands operands = {chunks, packed_a + first * chunks * kChunkInner,
                                       b,      panel_stride,
                                       init ? init + (m0 + first) * init_row + n : nullptr, init_row,
                                       g.c.data + (m0 + first) * g.c.row + n, g.c.row};
        if (width == panels * kPanel && real == height)
          kernel.run(operands, height, panels);
        else
          edge_tile(kernel, operands, real, width, height, panels);
      }
      if (after && piece == pieces - 1) after(m0, rows, n, width);
      n += width;
    }
  }
}

} // namespace arbor
