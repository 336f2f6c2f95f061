// Matrix products by cuBLASLt: out = alpha A B + beta out, all row-major.
#pragma once

#include <memory>

#include "stream.cuh"

namespace arbor {

struct Operand {
  const void *data;
  int32_t type; // ARBOR_F32 or ARBOR_BF16, the same for both operands
  int64_t ld;   // elements from a row as stored to the next
  bool transposed = false;
};

struct Product {
  int64_t rows, columns, depth;
  Operand a; // [rows, depth], stored [depth, rows] when transposed
  Operand b; // [depth, columns], stored [columns, depth] when transposed
  void *out; // [rows, columns]
  int32_t out_type;
  int64_t out_ld;
  float alpha = 1, beta = 0;
  // The rows are tokens: whatever their number, each row's bits must be the same. Without it the library's first proposal is taken.
  bool by_row = false;
  // Of rows that decode: the reference may divide the sum over k, which fills the device when rows are few.
  bool few_rows = false;
  // By row: products of one family share a reference, so a column has the same bits however many stand beside it. Usually `columns`.
  int64_t family = 0;
  // By row: of the depth, what isn't room behind: a row with zeros there has the bits of the product without. 0: all.
  int64_t usual_depth = 0;
  // By row: the sum over k in so many equal terms, each with outputs of its own, [terms, rows, out_ld] (decode_product.cuh, whose bits they have). 0: one
  // sum, as cuBLASLt likes it.
  int32_t terms = 0;
};

class Products;
struct DeleteProducts {
  void operator()(Products *) const;
};
// For the current device, whose level-2 cache holds so much. Null, with `problem` set, when cuBLASLt can't be had.
std::unique_ptr<Products, DeleteProducts> open_products(int64_t level_2_bytes, std::string &problem);
std::string products_name();
Products &products_of(arbor_stream *stream);

int32_t product(arbor_stream *stream, const char *op, const Product &wanted);
// All in bf16, outputs side by side, the weight transposed: the sum over k in so many equal terms, added in order in f32.
int32_t product_in_terms(arbor_stream *stream, const char *op, const Product &wanted, int32_t terms);

} // namespace arbor
