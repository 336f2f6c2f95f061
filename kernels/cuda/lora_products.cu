// An adapter as products of cuBLASLt: x aᵀ, xa bᵀ, and the gradients, member by member.

#include "lora_products.cuh"

#include <array>

#include "convert.cuh"
#include "products.cuh"

namespace arbor {
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

// dyb = scale dy b and, with xa, db += scale dyᵀ xa, member by member. xa, b and dyb are of the activations' type.
int32_t back_through_b(arbor_stream *stream, int32_t type, char *dyb, const char *dy, const char *b, const char *xa, int64_t out, const Adapter &g) {
  const int64_t width = g.width(), rows = g.row_count, size = element(type);
  int64_t first = 0; // output row of the member
  for (int32_t p = 0; p < g.part_count; first += g.parts[p++]) {
    const int64_t part = g.parts[p], place = p * g.rank;
    if (part == 0) continue;
    Product down{rows, g.rank, part};
    down.a = {dy + first * size, type, out};
    down.b = {b + first * g.rank * size, type, g.rank};
    down.out = dyb + place * size, down.out_type = type, down.out_ld = width, down.alpha = g.scale, down.by_row = true;
    int32_t code = product(stream, "arbor_linear_backward", down);
    if (code != ARBOR_OK) return code;
    if (!xa) continue;
    Product db{part, g.rank, rows};
    db.a = {dy + first * size, type, out, true};
    db.b = {xa + place * size, type, width};
    db.out = g.db + first * g.rank, db.out_type = ARBOR_F32, db.out_ld = g.rank, db.alpha = g.scale, db.beta = 1;
    code = product(stream, "arbor_linear_backward", db);
    if (code != ARBOR_OK) return code;
  }
  return ARBOR_OK;
}

} // namespace

int32_t down_by_products(arbor_stream *stream, int32_t type, const void *x, int64_t in, const Adapters &adapters) {
  for (int32_t i = 0; i < adapters.count; i++) {
    const Adapter &adapter = adapters.at[i];
    if (adapter.row_count == 0) continue;
    const int64_t width = adapter.width();
    Pieces pieces{static_cast<char *>(scratch(stream, 1, padded(width * in * 2)))};
    if (!pieces.at) return ARBOR_OUT_OF_MEMORY;
    Product xa{adapter.row_count, width, in};
    xa.a = {static_cast<const char *>(x) + adapter.row_start * in * element(type), type, in};
    xa.b = {in_type(stream, type, adapter.a, width * in, pieces), type, in, true};
    xa.out = adapter.xa, xa.out_type = ARBOR_F32, xa.out_ld = width, xa.by_row = true;
    const int32_t code = product(stream, "arbor_linear", xa);
    if (code != ARBOR_OK) return code;
  }
  return ARBOR_OK;
}

int32_t add_by_products(arbor_stream *stream, void *y, int32_t y_type, int64_t out, const Adapter &adapter, const bf16 *xa) {
  bf16 *b = static_cast<bf16 *>(scratch(stream, 1, out * adapter.rank * 2));
  if (!b) return ARBOR_OUT_OF_MEMORY;
  to_bf16(stream, b, adapter.b, out * adapter.rank);
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

int32_t add_gradients_by_products(arbor_stream *stream, int32_t type, void *dx, const void *dy, const void *x, int64_t in, int64_t out,
                                  const Adapter &g) {
  const int64_t width = g.width(), rows = g.row_count, size = element(type);
  Pieces pieces{static_cast<char *>(
      scratch(stream, 1, padded(width * in * 2) + padded(out * g.rank * 2) + padded(rows * width * 2) + padded(rows * width * size)))};
  if (!pieces.at) return ARBOR_OUT_OF_MEMORY;
  const char *dys = static_cast<const char *>(dy) + g.row_start * out * size;
  const Three three = in_types(stream, type, {g.a, g.b, g.xa}, {width * in, out * g.rank, rows * width}, pieces);
  const char *b = static_cast<const char *>(three.at[1]), *xa = x ? static_cast<const char *>(three.at[2]) : nullptr;
  char *dyb = static_cast<char *>(pieces.take(rows * width * size)); // [rows, width]
  int32_t code = back_through_b(stream, type, dyb, dys, b, xa, out, g);
  if (code != ARBOR_OK) return code;
  if (x) {
    Product da{width, in, rows};
    da.a = {dyb, type, width, true}, da.b = {static_cast<const char *>(x) + g.row_start * in * size, type, in};
    da.out = g.da, da.out_type = ARBOR_F32, da.out_ld = in, da.beta = 1;
    code = product(stream, "arbor_linear_backward", da);
  }
  if (code != ARBOR_OK || !dx) return code;
  Product up{rows, in, width};
  up.a = {dyb, type, width}, up.b = {three.at[0], type, in};
  up.out = static_cast<char *>(dx) + g.row_start * in * size, up.out_type = type, up.out_ld = in, up.beta = 1, up.by_row = true;
  return product(stream, "arbor_linear_backward", up);
}

} // namespace arbor
