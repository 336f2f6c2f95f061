// Adapters beside a product of many rows: x aᵀ by cuBLASLt, its product with b where y is touched anyway; gradients as small products.

#include "lora.cuh"

#include <array>

#include "convert.cuh"
#include "lora_add.cuh"
#include "products.cuh"

namespace arbor {

bool read_adapters(Adapters &to, const double *loras, int64_t count, int64_t tokens, int64_t out, bool backward) {
  if (count < 0 || count > kMostAdapters || (count > 0 && !loras)) return false;
  to.count = int32_t(count);
  const auto pointer = [](double number) { return reinterpret_cast<float *>(uint64_t(number)); };
  for (int64_t i = 0; i < count; i++) {
    const double *n = loras + i * kLoraNumbers;
    Adapter &a = to.at[i];
    a.row_start = int32_t(n[0]), a.row_count = int32_t(n[1]), a.rank = int32_t(n[2]), a.scale = float(n[3]);
    int64_t rows = 0;
    a.part_count = 0;
    for (int p = 0; p < kParts; p++) {
      a.parts[p] = int32_t(n[4 + p]);
      rows += a.parts[p];
      if (a.parts[p] > 0) a.part_count = p + 1;
    }
    a.a = pointer(n[8]), a.b = pointer(n[9]), a.xa = pointer(n[10]), a.da = pointer(n[11]), a.db = pointer(n[12]);
    if (a.row_start < 0 || a.row_count < 0 || int64_t(a.row_start) + a.row_count > tokens || a.rank < 1 || rows != out) return false;
    if (!given(a.a, a.b, a.xa) || (backward && !given(a.da, a.db))) return false;
  }
  return true;
}

namespace {

// Pieces of the stream's scratch memory, taken one after the other.
struct Pieces {
  char *at;
  void *take(int64_t bytes) {
    void *piece = at;
    at += ceil_div(bytes, 256) * 256;
    return piece;
  }
};

int64_t padded(int64_t bytes) { return ceil_div(bytes, 256) * 256; }

// `values` in the type of the activations: themselves, or a copy.
const void *in_type(arbor_stream *stream, int32_t type, const float *values, int64_t count, Pieces &pieces) {
  if (type == ARBOR_F32) return values;
  void *copy = pieces.take(count * 2);
  to_bf16(stream, copy, values, count);
  return copy;
}

struct Three {
  const void *at[3];
};

// Three arrays in the type of the activations, converted by one launch.
Three in_types(arbor_stream *stream, int32_t type, std::array<const float *, 3> values, std::array<int64_t, 3> counts, Pieces &pieces) {
  if (type == ARBOR_F32) return {{values[0], values[1], values[2]}};
  void *copies[3];
  for (int i = 0; i < 3; i++) copies[i] = pieces.take(counts[size_t(i)] * 2);
  to_bf16_three(stream, copies, values.data(), counts.data());
  return {{copies[0], copies[1], copies[2]}};
}

int64_t element(int32_t type) { return type == ARBOR_BF16 ? 2 : 4; }

} // namespace

namespace {

// xa by small products, for types and widths that the kernels don't take.
int32_t down_by_products(arbor_stream *stream, int32_t type, const void *x, int64_t in, const Adapters &adapters) {
  for (int32_t i = 0; i < adapters.count; i++) {
    const Adapter &adapter = adapters.at[i];
    if (adapter.row_count == 0) continue;
    const int64_t width = adapter.width();
    char *memory = static_cast<char *>(scratch(stream, 1, padded(width * in * 2)));
    if (!memory) return ARBOR_OUT_OF_MEMORY;
    Pieces pieces{memory};
    Product xa{adapter.row_count, width, in};
    xa.a = {static_cast<const char *>(x) + adapter.row_start * in * element(type), type, in};
    xa.b = {in_type(stream, type, adapter.a, width * in, pieces), type, in, true};
    xa.out = adapter.xa, xa.out_type = ARBOR_F32, xa.out_ld = width, xa.by_row = true;
    const int32_t code = product(stream, "arbor_linear", xa);
    if (code != ARBOR_OK) return code;
  }
  return ARBOR_OK;
}

// y += scale xa bᵀ, member by member, on the tensor cores: y is read and written once.
int32_t add_by_products(arbor_stream *stream, void *y, int32_t y_type, int64_t out, const Adapter &adapter, const bf16 *xa, const bf16 *b) {
  int64_t first = 0;
  for (int32_t p = 0; p < adapter.part_count; first += adapter.parts[p++]) {
    if (adapter.parts[p] == 0) continue;
    Product up{adapter.row_count, adapter.parts[p], adapter.rank};
    up.a = {xa + p * adapter.rank, ARBOR_BF16, adapter.width()};
    up.b = {b + first * adapter.rank, ARBOR_BF16, adapter.rank, true};
    up.out = static_cast<char *>(y) + (adapter.row_start * out + first) * element(y_type);
    up.out_type = y_type, up.out_ld = out, up.alpha = adapter.scale, up.beta = 1, up.by_row = true;
    const int32_t code = product(stream, "arbor_linear", up);
    if (code != ARBOR_OK) return code;
  }
  return ARBOR_OK;
}

} // namespace

bool up_by_products(const Adapters &adapters, int64_t out) {
  bool all = out % 8 == 0;
  for (int32_t i = 0; i < adapters.count; i++) {
    all = all && adapters.at[i].rank % 8 == 0;
    for (int32_t p = 0; p < adapters.at[i].part_count; p++) all = all && adapters.at[i].parts[p] % 8 == 0;
  }
  return all;
}

int32_t add_adapters(arbor_stream *stream, int32_t type, void *y, int32_t y_type, const void *x, const float *bias, int64_t tokens, int64_t in,
                     int64_t out, const Adapters &adapters) {
  if (adapters.count == 0 || !projects_down(type, x, in, adapters) || !up_by_products(adapters, out)) {
    const int32_t code = down_by_products(stream, type, x, in, adapters);
    if (code != ARBOR_OK) return code;
    add_all(stream, y, y_type, bias, tokens, out, adapters, kManyRows);
    return launched(stream, "arbor_linear");
  }
  int64_t bytes = 0;
  for (int32_t i = 0; i < adapters.count; i++)
    bytes += padded(int64_t(adapters.at[i].row_count) * adapters.at[i].width() * 2) + padded(out * adapters.at[i].rank * 2);
  char *memory = static_cast<char *>(scratch(stream, 3, bytes));
  if (!memory) return ARBOR_OUT_OF_MEMORY;
  Pieces pieces{memory};
  bf16 *rounded[kMostAdapters];
  for (int32_t i = 0; i < adapters.count; i++)
    rounded[i] = static_cast<bf16 *>(pieces.take(int64_t(adapters.at[i].row_count) * adapters.at[i].width() * 2));
  int32_t code = project_down_rounded(stream, x, tokens, in, adapters, rounded);
  for (int32_t i = 0; i < adapters.count && code == ARBOR_OK; i++) {
    if (adapters.at[i].row_count == 0) continue;
    const auto *b = static_cast<const bf16 *>(in_type(stream, type, adapters.at[i].b, out * adapters.at[i].rank, pieces));
    code = add_by_products(stream, y, y_type, out, adapters.at[i], rounded[i], b);
  }
  if (code == ARBOR_OK && bias) add_all(stream, y, y_type, bias, tokens, out, Adapters{}, kManyRows);
  return code == ARBOR_OK ? launched(stream, "arbor_linear") : code;
}

int32_t add_adapter_gradients(arbor_stream *stream, int32_t type, void *dx, const void *dy, const void *x, int64_t in, int64_t out,
                              const Adapters &adapters) {
  const char *op = "arbor_linear_backward";
  if (adapters.count > 0 && gradients_by_passes(type, dx, dy, x, in, out, adapters))
    return add_gradients_by_passes(stream, static_cast<bf16 *>(dx), static_cast<const bf16 *>(dy), static_cast<const bf16 *>(x), in, out, adapters);
  for (int32_t i = 0; i < adapters.count; i++) {
    const Adapter &g = adapters.at[i];
    if (g.row_count == 0) continue;
    const int64_t width = g.width(), rows = g.row_count, size = element(type);
    char *memory = static_cast<char *>(
        scratch(stream, 1, padded(width * in * 2) + padded(out * g.rank * 2) + padded(rows * width * 2) + padded(rows * width * size)));
    if (!memory) return ARBOR_OUT_OF_MEMORY;
    Pieces pieces{memory};
    const char *dys = static_cast<const char *>(dy) + g.row_start * out * size, *xs = static_cast<const char *>(x) + g.row_start * in * size;
    const Three three = in_types(stream, type, {g.a, g.b, g.xa}, {width * in, out * g.rank, rows * width}, pieces);
    const void *a = three.at[0], *b = three.at[1];
    const char *xa = static_cast<const char *>(three.at[2]);
    char *dyb = static_cast<char *>(pieces.take(rows * width * size)); // scale dy b, [rows, width]
    int32_t code = ARBOR_OK;
    int64_t first = 0; // output row of the part
    for (int32_t p = 0; p < g.part_count && code == ARBOR_OK; first += g.parts[p++]) {
      const int64_t part = g.parts[p], place = p * g.rank;
      if (part == 0) continue;
      Product down{rows, g.rank, part};
      down.a = {dys + first * size, type, out};
      down.b = {static_cast<const char *>(b) + first * g.rank * size, type, g.rank};
      down.out = dyb + place * size, down.out_type = type, down.out_ld = width, down.alpha = g.scale;
      code = product(stream, op, down);
      if (code != ARBOR_OK) break;
      Product db{part, g.rank, rows};
      db.a = {dys + first * size, type, out, true};
      db.b = {xa + place * size, type, width};
      db.out = g.db + first * g.rank, db.out_type = ARBOR_F32, db.out_ld = g.rank, db.alpha = g.scale, db.beta = 1;
      code = product(stream, op, db);
    }
    if (code != ARBOR_OK) return code;
    Product da{width, in, rows};
    da.a = {dyb, type, width, true}, da.b = {xs, type, in};
    da.out = g.da, da.out_type = ARBOR_F32, da.out_ld = in, da.beta = 1;
    code = product(stream, op, da);
    if (code != ARBOR_OK || !dx) {
      if (code != ARBOR_OK) return code;
      continue;
    }
    Product up{rows, in, width};
    up.a = {dyb, type, width}, up.b = {a, type, in};
    up.out = static_cast<char *>(dx) + g.row_start * in * size, up.out_type = type, up.out_ld = in, up.beta = 1;
    code = product(stream, op, up);
    if (code != ARBOR_OK) return code;
  }
  return ARBOR_OK;
}

} // namespace arbor
