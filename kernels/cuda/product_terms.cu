// Products of many rows with the bits of rows that decode where the sum of these is divided even in training's order (terms_in_order): cuBLASLt adds term
// after term in f32.

#include "convert.cuh"
#include "products.cuh"

namespace arbor {

constexpr int kSums = 8; // scratch memory

int32_t product_in_terms(arbor_stream *stream, const char *op, const Product &wanted, int32_t terms) {
  if (terms <= 1) return product(stream, op, wanted);
  Product term = wanted;
  term.depth = wanted.depth / terms;
  term.out = scratch(stream, kSums, wanted.rows * wanted.columns * 4), term.out_type = ARBOR_F32, term.out_ld = wanted.columns;
  if (!term.out) return ARBOR_OUT_OF_MEMORY;
  for (int32_t t = 0; t < terms; t++) {
    term.a.data = static_cast<const bf16 *>(wanted.a.data) + t * term.depth;
    term.b.data = static_cast<const bf16 *>(wanted.b.data) + t * term.depth;
    term.beta = t > 0;
    const int32_t code = product(stream, op, term);
    if (code != ARBOR_OK) return code;
  }
  to_bf16(stream, wanted.out, static_cast<const float *>(term.out), wanted.rows * wanted.columns);
  return launched(stream, op);
}

} // namespace arbor
