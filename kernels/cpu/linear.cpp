// y = x Wᵀ + bias, and its gradients. The sums of a row run over k in order, so a row never depends on its neighbours (gemm.h).

#include "add_rows.h"
#include "gemm.h"
#include "stream.h"

int32_t arbor_linear(arbor_stream *stream, int32_t type, void *y, const void *x, const void *weight, int32_t weight_type,
                     const float *bias, int64_t tokens, int64_t in, int64_t out) {
  using namespace arbor;
  return enqueue(stream, "arbor_linear", type, given(y, x, weight) && tokens >= 0 && in > 0 && out > 0, [=] {
    const MatrixC c = {static_cast<float *>(y), out, bias, 0};
    gemm({tokens, out, in, {static_cast<const float *>(x), in, 1}, MatrixB::weight(weight, weight_type, in), c});
  });
}

int32_t arbor_linear_backward(arbor_stream *stream, int32_t type, void *dx, const void *dy, const void *x, const void *weight,
                              int32_t weight_type, float *d_weight, float *d_bias, int64_t tokens, int64_t in, int64_t out) {
  using namespace arbor;
  const bool valid = given(dy) && (!dx || weight) && (!d_weight || x) && tokens >= 0 && in > 0 && out > 0;
  return enqueue(stream, "arbor_linear_backward", type, valid, [=] {
    const float *dys = static_cast<const float *>(dy), *xs = static_cast<const float *>(x);
    if (dx)
      gemm({tokens, in, out, {dys, out, 1}, MatrixB::weight_transposed(weight, weight_type, in),
            MatrixC::overwrite(static_cast<float *>(dx), in)});
    if (d_weight)
      gemm_long({out, in, tokens, {dys, 1, out}, MatrixB::strided(xs, in, 1), MatrixC::accumulate(d_weight, in)});
    if (d_bias)
      add_rows(d_bias, tokens, out, [=](float *sum, int64_t t) {
        for (int64_t i = 0; i < out; i++) sum[i] += dys[t * out + i];
      });
  });
}
