// Blocked f32 matrix product after Goto and van de Geijn (ACM TOMS 34, 2008): a block of A, packed in tiles of a few rows, stays in the
// second-level cache; panels of 16 columns of B pass by; the micro-kernel keeps a tile of C in registers (6x16 with AVX2, 14x32
// with AVX-512). With few rows a wider tile of columns keeps enough multiply-adds in flight.

#include "gemm.h"

#include <atomic>
#include <thread>

#include "../arbor_ops.h"
#include "external.h"
#include "gemm_bf16.h"
#include "pool.h"
#include "simd.h"

namespace arbor {
namespace {

constexpr int kVectors = kPanel / kLanes; // per panel
#if defined(__AVX512F__)
constexpr int kTileRows = 14, kTilePanels = 2, kRegisters = 28;
#else
constexpr int kTileRows = 6, kTilePanels = 1, kRegisters = 12;
#endif
constexpr int kWidest = 4;           // panels side by side when rows are few
constexpr int64_t kBlockRows = 192;  // rows of A packed at a time
constexpr int64_t kBlockInner = 256; // k's packed at a time: a panel of B is then 16 KiB, half of the first-level cache
constexpr int64_t kBefore = 48, kFewBefore = 12; // rows of a task that comes before the blocks, of many rows and of a decode's
constexpr int64_t kPiece = 1024;     // least k of a piece of gemm_long: its sums are then 3 % of its work at 128 columns
constexpr int64_t kPackedFloats = 16 << 20; // most of a B that is packed as a whole: 64 MiB
constexpr int64_t kPieceFloats = 4 << 20; // most floats that wait to be added

constexpr int panels_for(int rows) {
  const int fit = kRegisters / (rows * kVectors);
  return fit > kWidest ? kWidest : fit < kTilePanels ? kTilePanels : fit;
}

// What a tile reads and writes: C [rows, panels * 16] = init + A (packed [k][rows]) B (panels packed [k][16]); `init` null means zero.
// On the way the tile fetches its share of the panels that come next: `share` floats for each k.
struct Operands {
  int64_t k;
  const float *a, *b;
  int64_t panel_stride;
  const float *init;
  int64_t init_row;
  float *c;
  int64_t c_row;
  const float *next;
  int64_t share;
};
using Tile = void (*)(const Operands &);

template <int Rows, int Panels> void tile(const Operands &o) {
  constexpr int kColumns = Panels * kVectors;
  const float *a = o.a, *b = o.b, *next = o.next;
  vf sum[Rows][kColumns];
#pragma GCC unroll 16
  for (int r = 0; r < Rows; r++)
#pragma GCC unroll 8
    for (int j = 0; j < kColumns; j++) sum[r][j] = o.init ? load(o.init + r * o.init_row + j * kLanes) : vf{};
  for (int64_t i = 0; i < o.k; i++, a += Rows, b += kPanel, next += o.share) {
    vf column[kColumns];
#pragma GCC unroll 4
    for (int p = 0; p < Panels; p++) __builtin_prefetch(next + p * o.panel_stride, 0, 2);
#pragma GCC unroll 8
    for (int j = 0; j < kColumns; j++) column[j] = load(b + (j / kVectors) * o.panel_stride + (j % kVectors) * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < Rows; r++) {
      const vf value = splat(a[r]);
#pragma GCC unroll 8
      for (int j = 0; j < kColumns; j++) sum[r][j] = fma(value, column[j], sum[r][j]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < Rows; r++)
#pragma GCC unroll 8
    for (int j = 0; j < kColumns; j++) store(o.c + r * o.c_row + j * kLanes, sum[r][j]);
}

struct Tiles {
  Tile one, usual, wide;
};
template <int Rows> constexpr Tiles tiles() { return {tile<Rows, 1>, tile<Rows, kTilePanels>, tile<Rows, panels_for(Rows)>}; }

constexpr Tiles kTiles[] = {
    {},         tiles<1>(), tiles<2>(), tiles<3>(),  tiles<4>(),  tiles<5>(),  tiles<6>(),
#if defined(__AVX512F__)
    tiles<7>(), tiles<8>(), tiles<9>(), tiles<10>(), tiles<11>(), tiles<12>(), tiles<13>(), tiles<14>(),
#endif
};

// [k][rows] from A.
void pack_a(float *to, const MatrixA &a, int64_t m0, int64_t rows, int64_t k0, int64_t k) {
  const float *from = a.data + m0 * a.row + k0 * a.column;
  if (a.column == 1) return transpose(to, rows, from, a.row, rows, k, a.scale);
  int64_t i = 0;
  // Eight at a time: what is written past `rows` the next k overwrites, what is read past them lies in the next k's row.
  if (a.row == 1 && a.column >= 16)
    for (; i + 1 < k; i++)
      for (int64_t r = 0; r < rows; r += 8) {
        typedef float eight __attribute__((vector_size(32), aligned(4), may_alias));
        *reinterpret_cast<eight *>(to + i * rows + r) = *reinterpret_cast<const eight *>(from + i * a.column + r) * a.scale;
      }
  for (; i < k; i++)
    for (int64_t r = 0; r < rows; r++) to[i * rows + r] = from[r * a.row + i * a.column] * a.scale;
}

// [k][16] from columns n0 … of B, zeros past `columns`. Prepared panels are used where they lie.
const float *pack_b(float *to, const MatrixB &b, int64_t n0, int64_t columns, int64_t k0, int64_t k) {
  const int64_t width = columns < kPanel ? columns : kPanel;
  if (b.kind == MatrixB::Panels) return b.data + (n0 * b.inner) + k0 * kPanel;
  if (b.kind == MatrixB::PanelsTransposed) {
    // Stored [out / 16][in][16]; k runs over out, n over in: 16x16 blocks, transposed.
    for (int64_t i = 0; i < k; i += kPanel)
      transpose(to + i * kPanel, kPanel, b.data + (k0 + i) * b.inner + n0 * kPanel, kPanel, width, k - i < kPanel ? k - i : kPanel, 1);
    if (width <= 8)
      for (int64_t i = 0; i < k; i++) std::memset(to + i * kPanel + 8, 0, 8 * sizeof(float));
    return to;
  }
  const float *from = b.data + k0 * b.k_stride + n0 * b.n_stride;
  if (b.n_stride == 1) {
    for (int64_t i = 0; i < k; i++) {
      std::memcpy(to + i * kPanel, from + i * b.k_stride, size_t(width) * sizeof(float));
      if (width < kPanel) std::memset(to + i * kPanel + width, 0, size_t(kPanel - width) * sizeof(float));
    }
    return to;
  }
  transpose(to, kPanel, from, b.n_stride, width, k, 1);
  if (width <= 8)
    for (int64_t i = 0; i < k; i++) std::memset(to + i * kPanel + 8, 0, 8 * sizeof(float));
  return to;
}

// A tile that sticks out on the right goes through a buffer.
void edge_tile(Tile run, int64_t rows, int64_t columns, Operands o) {
  constexpr int64_t kRow = kWidest * kPanel;
  alignas(64) float buffer[kTileRows * kRow] = {};
  if (o.init)
    for (int64_t r = 0; r < rows; r++) std::memcpy(buffer + r * kRow, o.init + r * o.init_row, size_t(columns) * sizeof(float));
  float *to = o.c;
  const int64_t to_row = o.c_row;
  o.init = o.c = buffer, o.init_row = o.c_row = kRow;
  run(o);
  for (int64_t r = 0; r < rows; r++) std::memcpy(to + r * to_row, buffer + r * kRow, size_t(columns) * sizeof(float));
}

} // namespace

MatrixB MatrixB::weight(const void *data, int32_t type, int64_t in, int64_t first) {
  if (type == ARBOR_BF16_PANELS)
    return {Bf16Panels, nullptr, 0, 0, in, static_cast<const uint32_t *>(data) + first * bf16_pairs(in)};
  const float *values = static_cast<const float *>(data) + first * in;
  return type == ARBOR_F32_PANELS ? panels(values, in) : strided(values, 1, in);
}

MatrixB MatrixB::weight_transposed(const void *data, int32_t type, int64_t in, int64_t first) {
  MatrixB b = weight(data, type, in, first);
  if (type == ARBOR_BF16_PANELS) b.kind = Bf16PanelsTransposed;
  return type == ARBOR_F32_PANELS ? panels_transposed(b.data, in) : type == ARBOR_F32 ? strided(b.data, in, 1) : b;
}

void gemm_block(const Gemm &g, int64_t m0, int64_t rows, int64_t n0, int64_t columns, const AfterBlock &after) {
  if (g.b.is_bf16()) return gemm_bf16_block(g, m0, rows, n0, columns, after);
  const int64_t tile_count = (rows + kTileRows - 1) / kTileRows;
  const bool few = tile_count == 1;
  const int64_t group = few ? panels_for(int(rows)) : kTilePanels;
  // With prepared panels and few rows, whole panels stream from memory in one go.
  const bool whole = g.b.kind == MatrixB::Panels && rows * g.k <= kBlockRows * kBlockInner / 2;
  const int64_t k_step = whole ? g.k : kBlockInner;
  const int64_t k_most = g.k < k_step ? g.k : k_step;
  float *packed_a = scratch(0, rows * k_most + 8);
  float *packed_b = g.b.kind == MatrixB::Panels ? nullptr : scratch(1, group * k_most * kPanel + 8);

  int64_t k0 = 0;
  do {
    const int64_t k = g.k - k0 < k_step ? g.k - k0 : k_step;
    // Tiles of near-equal height: tile t starts at row t * rows / tile_count.
    for (int64_t t = 0; t < tile_count; t++) {
      const int64_t first = t * rows / tile_count, next = (t + 1) * rows / tile_count;
      pack_a(packed_a + first * k, g.a, m0 + first, next - first, k0, k);
    }
    const float *init = k0 > 0 ? g.c.data : g.c.init;
    const int64_t init_row = k0 > 0 ? g.c.row : g.c.init_row;
    for (int64_t n = n0; n < n0 + columns;) {
      const int64_t left = n0 + columns - n;
      const int64_t panels = left > (group - 1) * kPanel ? group : 1;
      const int64_t width = left < panels * kPanel ? left : panels * kPanel;
      const float *b = nullptr;
      for (int64_t p = 0; p < panels; p++) {
        const float *panel = pack_b(packed_b + p * k * kPanel, g.b, n + p * kPanel, left - p * kPanel, k0, k);
        if (p == 0) b = panel;
      }
      const int64_t panel_stride = (packed_b ? k : g.k) * kPanel;
      for (int64_t t = 0; t < tile_count; t++) {
        const int64_t first = t * rows / tile_count, height = (t + 1) * rows / tile_count - first;
        const Tiles &kinds = kTiles[height];
        const Tile run = panels == 1 ? kinds.one : few ? kinds.wide : kinds.usual;
        // Measured: fetching ahead helps a narrow tile (8 rows: 45 → 70 GFLOP/s) and hinders a wide one, which reads several streams.
        const bool ahead = !packed_b && panels <= kTilePanels;
        const int64_t share = ahead ? kPanel / (tile_count < kPanel ? tile_count : kPanel) : 0;
        const Operands operands = {k,
                                   packed_a + first * k,
                                   b,
                                   panel_stride,
                                   init ? init + (m0 + first) * init_row + n : nullptr,
                                   init_row,
                                   g.c.data + (m0 + first) * g.c.row + n,
                                   g.c.row,
                                   ahead ? b + panels * panel_stride + t * k * share : b,
                                   share};
        if (width == panels * kPanel)
          run(operands);
        else
          edge_tile(run, height, width, operands);
      }
      if (after && k0 + k >= g.k) after(m0, rows, n, width);
      n += width;
    }
    k0 += k;
  } while (k0 < g.k);
}

namespace {

// B in the order in which tiles read it. Worth it, and worth the memory, where several blocks of rows would each pack it again.
MatrixB packed_once(const Gemm &g) {
  const int64_t panels = (g.n + kPanel - 1) / kPanel;
  const int64_t words = g.b.is_bf16() ? panels * kPanel * bf16_pairs(g.k) : panels * kPanel * g.k;
  if (g.b.kind == MatrixB::Panels || g.b.kind == MatrixB::Bf16Panels || g.m <= kBlockRows || words > kPackedFloats) return g.b;
  float *to = scratch(2, words + kPanel);
  if (g.b.is_bf16()) return bf16_transposed(reinterpret_cast<uint32_t *>(to), g.b, g.k, g.n);
  parallel_for(panels, [&](int64_t p) { pack_b(to + p * kPanel * g.k, g.b, p * kPanel, g.n - p * kPanel, 0, g.k); });
  return MatrixB::panels(to, g.k);
}

} // namespace

void gemm(const Gemm &given, const Beside &beside) {
  if (given.m <= 0 || given.n <= 0) return;
  const bool done = external_gemm(given);
  Gemm g = given;
  if (!done) g.b = packed_once(given);
  const auto [unit, block_rows] = g.b.is_bf16() ? bf16_blocks() : Bf16Blocks{1, kBlockRows};
  const int64_t units = (g.m + unit - 1) / unit;
  const int64_t threads = thread_count();
  const int64_t m_blocks = (g.m + block_rows - 1) / block_rows;
  constexpr int64_t kGroup = 2 * kPanel; // columns that a tile takes together
  const int64_t groups = (g.n + kGroup - 1) / kGroup;
  // Enough tasks to share out evenly, none below some microseconds: a million operations, or 256 KiB of B to read when rows are few.
  const int64_t worth = (g.m < 8 ? 8 : g.m) * g.n * g.k / (1 << 19) / m_blocks;
  int64_t n_blocks = (4 * threads + m_blocks - 1) / m_blocks;
  if (n_blocks > worth) n_blocks = worth;
  if (n_blocks > groups / 2) n_blocks = groups / 2;
  if (n_blocks < 1 || threads == 1) n_blocks = 1;
  const int64_t blocks = m_blocks * n_blocks;
  if (!beside.before && done) return;
  // What comes before a block is done by the block itself where no other shares its rows: they are in the cache then. Else by tasks of its own.
  const bool apart = beside.before && n_blocks > 1;
  const int64_t step = g.m <= 64 ? kFewBefore : kBefore, firsts = apart ? (g.m + step - 1) / step : 0;
  const int64_t befores = !beside.before ? 0 : apart ? firsts : blocks;
  std::atomic<int64_t> next{0}, ended{0};
  const auto before = [&](int64_t m0, int64_t rows) {
    struct End {
      std::atomic<int64_t> &count;
      ~End() { count.fetch_add(1, std::memory_order_release); }
    } end{ended};
    beside.before(m0, rows);
  };
  const auto ready = [&] { return ended.load(std::memory_order_acquire) == befores; };
  const auto wait = [&] {
    while (!ready()) std::this_thread::yield();
  };
  const auto block = [&](int64_t m0, int64_t rows, int64_t nb) {
    const int64_t n0 = nb * groups / n_blocks * kGroup, last = (nb + 1) * groups / n_blocks * kGroup, n1 = last < g.n ? last : g.n;
    if (beside.before && !apart) before(m0, rows);
    const bool on_the_way = !done && (!apart || ready());
    if (!done) gemm_block(g, m0, rows, n0, n1 - n0, on_the_way ? beside.after : AfterBlock());
    if (on_the_way || !beside.after) return;
    if (apart) wait();
    beside.after(m0, rows, n0, n1 - n0);
  };
  // The pool may take indexes in any order: tasks number themselves, so that the first ones are under way before anything waits for them.
  parallel_for(firsts + blocks + beside.last_count, [&](int64_t) {
    const int64_t mine = next.fetch_add(1), task = mine - firsts;
    if (task < 0) return before(mine * step, g.m - mine * step < step ? g.m - mine * step : step);
    if (task >= blocks) {
      wait();
      return beside.last(task - blocks);
    }
    const int64_t mb = task / n_blocks, m0 = mb * units / m_blocks * unit, end = (mb + 1) * units / m_blocks * unit, m1 = end < g.m ? end : g.m;
    block(m0, m1 - m0, task % n_blocks);
  });
}

void gemm_long(const Gemm &g) {
  const int64_t most = kPieceFloats / (g.m * g.n), wanted = g.k / kPiece;
  const int64_t pieces = wanted < most ? wanted : most;
  if (pieces < 2 || external_in_use()) return gemm(g);
  const int64_t threads = thread_count(), size = g.m * g.n;
  float *partial = scratch(3, (pieces - 1) * size);
  // How C is shared out never changes a sum: a few blocks a thread, rows of whole tiles.
  const int64_t m_least = (g.m + kBlockRows - 1) / kBlockRows;
  int64_t m_blocks = (2 * threads + pieces - 1) / pieces;
  if (m_blocks > g.m / (4 * kTileRows)) m_blocks = g.m / (4 * kTileRows);
  if (m_blocks < m_least) m_blocks = m_least;
  parallel_for(pieces * m_blocks, [&](int64_t task) {
    const int64_t piece = task / m_blocks, block = task % m_blocks;
    const int64_t k0 = piece * g.k / pieces, k1 = (piece + 1) * g.k / pieces;
    const int64_t m0 = block * g.m / m_blocks, m1 = (block + 1) * g.m / m_blocks;
    Gemm part = g; // the first piece goes on from C
    part.k = k1 - k0;
    part.a.data += k0 * g.a.column;
    part.b.data += k0 * g.b.k_stride;
    if (piece > 0) part.c = MatrixC::overwrite(partial + (piece - 1) * size, g.n);
    gemm_block(part, m0, m1 - m0, 0, g.n);
  });
  parallel_ranges(g.m, g.n * pieces, [&](int64_t begin, int64_t end) {
    for (int64_t m = begin; m < end; m++)
      for (int64_t piece = 1; piece < pieces; piece++) {
        const float *from = partial + (piece - 1) * size + m * g.n;
        for (int64_t n = 0; n < g.n; n++) g.c.data[m * g.c.row + n] += from[n];
      }
  });
}

} // namespace arbor
