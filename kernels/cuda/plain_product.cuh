// Products in bf16 of odd shapes, which cuBLASLt reads no 16 bytes of at a time: one thread a sum, in order.
#pragma once

#include "products.cuh"

namespace arbor {

struct PlainShape {
  int64_t columns, depth, a_row, a_step, b_row, b_step, out_ld;
  float alpha, beta;
};

template <class Out> __global__ void plain_product_kernel(Out *out, const bf16 *a, const bf16 *b, PlainShape p) {
  const int64_t column = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, row = blockIdx.y;
  if (column >= p.columns) return;
  float sum = 0;
  for (int64_t k = 0; k < p.depth; k++) sum += to_float(a[row * p.a_row + k * p.a_step]) * to_float(b[k * p.b_step + column * p.b_row]);
  Out *place = out + row * p.out_ld + column;
  *place = from_float<Out>(p.alpha * sum + (p.beta == 0 ? 0.0f : p.beta * to_float(*place)));
}

inline int32_t plain_product(arbor_stream *stream, const char *op, const Product &p) {
  PlainShape shape{p.columns, p.depth, p.a.ld, 1, 1, p.b.ld, p.out_ld, p.alpha, p.beta};
  if (p.a.transposed) shape.a_row = 1, shape.a_step = p.a.ld;
  if (p.b.transposed) shape.b_row = p.b.ld, shape.b_step = 1;
  if (p.rows > 65535) return unsupported(op, "a product of more than 65,535 rows needs widths that are multiples of 8");
  const dim3 grid(unsigned(ceil_div(p.columns, 128)), unsigned(p.rows));
  const auto *a = static_cast<const bf16 *>(p.a.data), *b = static_cast<const bf16 *>(p.b.data);
  if (p.out_type == ARBOR_BF16)
    plain_product_kernel<<<grid, 128, 0, cuda_stream(stream)>>>(static_cast<bf16 *>(p.out), a, b, shape);
  else
    plain_product_kernel<<<grid, 128, 0, cuda_stream(stream)>>>(static_cast<float *>(p.out), a, b, shape);
  return launched(stream, op);
}

} // namespace arbor
