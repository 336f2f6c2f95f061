// Products of many rows with the bits of rows that decode where the sum of these is divided even in training's order (terms_in_order): cuBLASLt adds term
// after term in f32.

#include "convert.cuh"
#include "products.cuh"

namespace arbor {
namespace {

constexpr int kSums = 8; // scratch memory

const void *behind(const void *data, int32_t type, int64_t count) { return static_cast<const char *>(data) + count * (type == ARBOR_BF16 ? 2 : 4); }

} // namespace

int32_t product_in_terms(arbor_stream *stream, const char *op, const Product &wanted, int32_t terms) {
  if (terms <= 1) return product(stream, op, wanted);
  const bool rounded = wanted.out_type == ARBOR_BF16;
  Product term = wanted;
  term.depth = wanted.depth / terms;
  if (rounded) {
    term.out = scratch(stream, kSums, wanted.rows * wanted.columns * 4);
    if (!term.out) return ARBOR_OUT_OF_MEMORY;
    term.out_type = ARBOR_F32, term.out_ld = wanted.columns;
  }
  for (int32_t t = 0; t < terms; t++) {
    term.a.data = behind(wanted.a.data, wanted.a.type, t * term.depth);
    term.b.data = behind(wanted.b.data, wanted.b.type, t * term.depth);
    term.beta = t == 0 ? wanted.beta : 1;
    const int32_t code = product(stream, op, term);
    if (code != ARBOR_OK) return code;
  }
  if (rounded) to_bf16(stream, wanted.out, static_cast<const float *>(term.out), wanted.rows * wanted.columns);
  return launched(stream, op);
}

} // namespace arbor
