// Low-rank products, cut into tasks that run beside the product with the weight (gemm.h). Every sum keeps the order it has in a product of its own.

#include "lora.h"

#include <algorithm>

namespace arbor {
namespace {

// A block of one product.
struct Task {
  Gemm gemm;
  int64_t m0, rows, n0, columns;

  void operator()() const { gemm_block(gemm, m0, rows, n0, columns); }
};

// Cuts a product into tasks of at most `rows` x `columns`.
void cut(std::vector<Task> &tasks, const Gemm &g, int64_t rows, int64_t columns) {
  for (int64_t m0 = 0; m0 < g.m; m0 += rows)
    for (int64_t n0 = 0; n0 < g.n; n0 += columns) tasks.push_back({g, m0, std::min(rows, g.m - m0), n0, std::min(columns, g.n - n0)});
}

// A decode's few rows are shared out too.
int64_t rows_of_task(int64_t rows) { return rows <= 64 ? 16 : 96; }

// The part of a product that lies in rows [m0, m0 + rows) and columns [n0, n0 + columns) of the whole, where it begins at (row, column).
void overlap(const Gemm &g, int64_t row, int64_t column, const int64_t (&block)[4]) {
  const int64_t m0 = std::max<int64_t>(block[0] - row, 0), m1 = std::min(block[0] + block[1] - row, g.m);
  const int64_t n0 = std::max<int64_t>(block[2] - column, 0), n1 = std::min(block[2] + block[3] - column, g.n);
  if (m0 < m1 && n0 < n1) gemm_block(g, m0, m1 - m0, n0, n1 - n0);
}

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
  auto tasks = std::make_shared<std::vector<Task>>();
  for (const Adapter &one : adapters) {
    const Gemm xa = {one.rows, one.width(), in, {x + one.row * in, in, 1}, MatrixB::strided(one.a, 1, in), MatrixC::overwrite(one.xa, one.width())};
    cut(*tasks, xa, rows_of_task(one.rows), xa.n);
  }
  Beside beside;
  beside.first_count = int64_t(tasks->size());
  beside.first = [tasks](int64_t i) { (*tasks)[size_t(i)](); };
  beside.after = [=](int64_t m0, int64_t rows, int64_t n0, int64_t columns) {
    for (const Adapter &one : adapters)
      for (size_t p = 0; p < one.parts.size(); p++) {
        const auto [first, part] = one.parts[p];
        overlap({one.rows, part, one.rank, {one.xa + int64_t(p) * one.rank, one.width(), 1, one.scale},
                 MatrixB::strided(one.b + first * one.rank, 1, one.rank), MatrixC::accumulate(y + one.row * out + first, out)},
                one.row, first, {m0, rows, n0, columns});
      }
  };
  return beside;
}

Beside adapters_backward(const Adapters &adapters, float *dx, const float *dy, const float *x, int64_t in, int64_t out) {
  constexpr int64_t kRows = 192, kColumns = 128;
  if (adapters.empty()) return {};
  struct Work {
    std::vector<Task> first, last;
    std::vector<std::vector<float>> dxa; // scale · dy b of each adapter
  };
  auto work = std::make_shared<Work>();
  for (const Adapter &one : adapters) {
    const int64_t width = one.width();
    float *dxa = work->dxa.emplace_back(size_t(one.rows * width)).data();
    const float *dys = dy + one.row * out;
    for (size_t p = 0; p < one.parts.size(); p++) {
      const auto [first, part] = one.parts[p];
      const int64_t at = int64_t(p) * one.rank;
      cut(work->first, {one.rows, one.rank, part, {dys + first, out, 1, one.scale}, MatrixB::strided(one.b + first * one.rank, one.rank, 1),
                        MatrixC::overwrite(dxa + at, width)},
          rows_of_task(one.rows), one.rank);
      cut(work->last, {part, one.rank, one.rows, {dys + first, 1, out, one.scale}, MatrixB::strided(one.xa + at, width, 1),
                       MatrixC::accumulate(one.db + first * one.rank, one.rank)},
          kRows, one.rank);
    }
    cut(work->last, {width, in, one.rows, {dxa, 1, width}, MatrixB::strided(x + one.row * in, in, 1), MatrixC::accumulate(one.da, in)}, kRows,
        kColumns);
  }
  Beside beside;
  beside.first_count = int64_t(work->first.size()), beside.last_count = int64_t(work->last.size());
  beside.first = [work](int64_t i) { work->first[size_t(i)](); };
  beside.last = [work](int64_t i) { work->last[size_t(i)](); };
  if (dx)
    beside.after = [=](int64_t m0, int64_t rows, int64_t n0, int64_t columns) {
      for (size_t i = 0; i < adapters.size(); i++) {
        const Adapter &one = adapters[i];
        overlap({one.rows, in, one.width(), {work->dxa[i].data(), one.width(), 1}, MatrixB::strided(one.a, in, 1),
                 MatrixC::accumulate(dx + one.row * in, in)},
                one.row, 0, {m0, rows, n0, columns});
      }
    };
  return beside;
}

} // namespace arbor
