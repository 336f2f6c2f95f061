// y = x Wᵀ + bias and its adapters, and the gradients. The sums of a row run over k in order, so a row never depends on its neighbours (gemm.h).

#include "add_rows.h"
#include "gemm.h"
#include "lora.h"
#include "stream.h"

int32_t arbor_linear(arbor_stream *stream, int32_t type, void *y, int32_t y_type, const void *x, const void *weight, int32_t weight_type,
                     const float *bias, int64_t tokens, int64_t in, int64_t out, const double *loras, int64_t lora_count, int32_t) {
  using namespace arbor;
  Adapters adapters;
  const bool valid = given(y, x, weight) && y_type == type && tokens >= 0 && in > 0 && out > 0 &&
                     read_adapters(adapters, loras, lora_count, tokens, out, false);
  return enqueue(stream, "arbor_linear", type, valid, [=] {
    float *ys = static_cast<float *>(y);
    const float *xs = static_cast<const float *>(x);
    gemm({tokens, out, in, {xs, in, 1}, MatrixB::weight(weight, weight_type, in), {ys, out, bias, 0}}, adapters_forward(adapters, ys, xs, in, out));
  });
}

// Nothing to be gained here: reading a weight is not what decoding waits for.
int32_t arbor_lay_adapters(arbor_stream *, int32_t, const double *, int64_t, const double *, int64_t) { return ARBOR_OK; }

int32_t arbor_linear_backward(arbor_stream *stream, int32_t type, void *dx, const void *dy, const void *x, const void *weight,
                              int32_t weight_type, float *d_weight, float *d_bias, int64_t tokens, int64_t in, int64_t out, const double *loras,
                              int64_t lora_count) {
  using namespace arbor;
  Adapters adapters;
  const bool valid = given(dy) && (!dx || weight) && (!d_weight || x) && tokens >= 0 && in > 0 && out > 0 && (lora_count == 0 || x || dx) &&
                     read_adapters(adapters, loras, lora_count, tokens, out, true);
  return enqueue(stream, "arbor_linear_backward", type, valid, [=] {
    const float *dys = static_cast<const float *>(dy), *xs = static_cast<const float *>(x);
    float *dxs = static_cast<float *>(dx);
    const Beside beside = adapters_backward(adapters, dxs, dys, xs, in, out);
    if (dxs)
      gemm({tokens, in, out, {dys, out, 1}, MatrixB::weight_transposed(weight, weight_type, in), MatrixC::overwrite(dxs, in)}, beside);
    else if (beside.before) {
      constexpr int64_t kRows = 48;
      parallel_for((tokens + kRows - 1) / kRows, [&](int64_t i) { beside.before(i * kRows, tokens - i * kRows < kRows ? tokens - i * kRows : kRows); });
      parallel_for(beside.last_count, [&](int64_t i) { beside.last(i); });
    }
    if (d_weight)
      gemm_long({out, in, tokens, {dys, 1, out}, MatrixB::strided(xs, in, 1), MatrixC::accumulate(d_weight, in)});
    if (d_bias)
      add_rows(d_bias, tokens, out, [=](float *sum, int64_t t) {
        for (int64_t i = 0; i < out; i++) sum[i] += dys[t * out + i];
      });
  });
}
