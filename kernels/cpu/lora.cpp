// Low-rank products beside the product with the weight (gemm.h), by the kernels of narrow.h.

#include "lora.h"

#include <algorithm>
#include <vector>

#include "narrow.h"
#include "pool.h"

namespace arbor {
namespace {

constexpr int kSlot = 4;            // of the working memory of the thread that calls
constexpr int64_t kFewRows = 64;    // up to here packing the narrow operand costs more than it saves
constexpr int64_t kRowsAtOnce = 48;

// Inner products of an adapter's rows.
struct Dots {
  int64_t first, count; // rows
  DotRows rows;
  DotColumns columns;
};

// Those of rows [m0, m0 + rows): a few at a time, so that they stay in the cache.
void dot(const std::vector<Dots> &all, int64_t m0, int64_t rows) {
  for (const Dots &one : all) {
    const int64_t end = std::min(m0 + rows, one.first + one.count);
    for (int64_t r = std::max(m0, one.first); r < end; r += kRowsAtOnce) {
      DotRows part = one.rows;
      part.x += (r - one.first) * part.x_row, part.to += (r - one.first) * part.to_row;
      dot_rows(part, std::min(kRowsAtOnce, end - r), one.columns);
    }
  }
}

struct Outer {
  OuterSum sum;
  int64_t columns;
};

// v's columns are shared out, its rows never: each sum is one task's.
void cut(std::vector<Outer> &tasks, const OuterSum &all, int64_t columns) {
  for (int64_t n = 0; n < columns; n += kOuterColumns) {
    OuterSum part = all;
    part.v += n, part.sum += n * all.sum_n;
    tasks.push_back({part, std::min(kOuterColumns, columns - n)});
  }
}

// The part of an update of [rows, columns] at (row, column) of the whole that lies in rows [m0, m0 + m) and columns [n0, n0 + n).
void overlap(NarrowUpdate g, const int64_t (&whole)[4], const int64_t (&block)[4]) {
  const auto [row, rows, column, columns] = whole;
  const int64_t m0 = std::max(block[0], row), m1 = std::min(block[0] + block[1], row + rows);
  const int64_t n0 = std::max(block[2], column), n1 = std::min(block[2] + block[3], column + columns);
  if (m0 >= m1 || n0 >= n1) return;
  g.u += (m0 - row) * g.u_row, g.b += (n0 - column) * g.b_n, g.c += (m0 - row) * g.c_row + n0 - column;
  narrow_update(g, m1 - m0, n1 - n0);
}

bool packs_a(const Adapter &one, int64_t in) { return one.rows > kFewRows || !DotColumns::in_place(one.width(), in); }

} // namespace

bool read_adapters(Adapters &to, const double *loras, int64_t count, int64_t tokens, int64_t out, bool backward) {
  for (int64_t i = 0; i < count; i++) {
    const double *n = loras + 13 * i;
    const auto address = [&](int k) { return reinterpret_cast<float *>(uintptr_t(n[k])); };
    Adapter one = {int64_t(n[0]), int64_t(n[1]), int64_t(n[2]), float(n[3]), {}, address(8), address(9), address(10), address(11), address(12)};
    int64_t first = 0;
    for (int p = 4; p < 8; p++) {
      const int64_t part = int64_t(n[p]);
      if (part < 0) return false;
      if (part > 0) one.parts.push_back({first, part});
      first += part;
    }
    const bool pointers = one.a && one.b && one.xa && (!backward || (one.da && one.db));
    if (!pointers || first != out || one.rank <= 0 || one.row < 0 || one.rows < 0 || one.row + one.rows > tokens) return false;
    to.push_back(std::move(one));
  }
  return true;
}

Beside adapters_forward(const Adapters &adapters, float *y, const float *x, int64_t in, int64_t out) {
  if (adapters.empty()) return {};
  int64_t floats = 0;
  for (const Adapter &one : adapters) floats += packs_a(one, in) ? DotColumns::packed_floats(one.width(), in) : 0;
  float *packed = scratch(kSlot, floats);
  auto dots = std::make_shared<std::vector<Dots>>();
  for (const Adapter &one : adapters) {
    DotColumns a = {one.a, one.width(), in, in};
    if (packs_a(one, in)) {
      a = DotColumns::packed(packed, one.a, in, 1, one.width(), in);
      packed += DotColumns::packed_floats(one.width(), in);
    }
    dots->push_back({one.row, one.rows, {x + one.row * in, in, one.xa, one.width(), 1}, a});
  }
  Beside beside;
  beside.before = [dots](int64_t m0, int64_t rows) { dot(*dots, m0, rows); };
  beside.after = [=](int64_t m0, int64_t rows, int64_t n0, int64_t columns) {
    for (const Adapter &one : adapters)
      for (size_t p = 0; p < one.parts.size(); p++) {
        const auto [first, part] = one.parts[p];
        overlap({one.xa + int64_t(p) * one.rank, one.width(), one.rank, one.b + first * one.rank, 1, one.rank, one.scale,
                 y + one.row * out + first, out},
                {one.row, one.rows, first, part}, {m0, rows, n0, columns});
      }
  };
  return beside;
}

Beside adapters_backward(const Adapters &adapters, float *dx, const float *dy, const float *x, int64_t in, int64_t out) {
  if (adapters.empty()) return {};
  struct Work {
    std::vector<Dots> dots;
    std::vector<Outer> last;
    std::vector<const float *> dxa; // scale · dy b of each adapter
  };
  auto work = std::make_shared<Work>();
  int64_t floats = 0;
  for (const Adapter &one : adapters) {
    floats += one.rows * one.width();
    for (const Adapter::Part &part : one.parts) floats += DotColumns::packed_floats(one.rank, part.out);
  }
  float *memory = scratch(kSlot, floats);
  for (const Adapter &one : adapters) {
    const int64_t width = one.width();
    const float *dys = dy + one.row * out;
    float *dxa = memory;
    memory += one.rows * width;
    work->dxa.push_back(dxa);
    for (size_t p = 0; p < one.parts.size(); p++) {
      const auto [first, part] = one.parts[p];
      const int64_t at = int64_t(p) * one.rank;
      const DotColumns b = DotColumns::packed(memory, one.b + first * one.rank, 1, one.rank, one.rank, part);
      memory += DotColumns::packed_floats(one.rank, part);
      work->dots.push_back({one.row, one.rows, {dys + first, out, dxa + at, width, one.scale}, b});
      if (x) cut(work->last, {one.xa + at, width, one.rank, dys + first, out, one.rows, one.scale, one.db + first * one.rank, 1, one.rank}, part);
    }
    if (x) cut(work->last, {dxa, width, width, x + one.row * in, in, one.rows, 1, one.da, in, 1}, in);
  }
  Beside beside;
  beside.before = [work](int64_t m0, int64_t rows) { dot(work->dots, m0, rows); };
  beside.last_count = int64_t(work->last.size());
  beside.last = [work](int64_t i) { outer_sum(work->last[size_t(i)].sum, work->last[size_t(i)].columns); };
  if (dx)
    beside.after = [=](int64_t m0, int64_t rows, int64_t n0, int64_t columns) {
      for (size_t i = 0; i < adapters.size(); i++) {
        const Adapter &one = adapters[i];
        overlap({work->dxa[i], one.width(), one.width(), one.a, in, 1, 1, dx + one.row * in, in}, {one.row, one.rows, 0, in},
                {m0, rows, n0, columns});
      }
    };
  return beside;
}

} // namespace arbor
