// AdamW (Loshchilov and Hutter, 2019) in place, in the order of PyTorch: decay, moments, bias-corrected step.

#include <cmath>

#include "stream.cuh"

namespace arbor {
namespace {

struct Rates {
  float keep, rate, root, b1, b2, c1, c2, scale, tiny;
};

__global__ void adamw(float *param, const float *grad, float *m, float *v, int64_t count, Rates r) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const float g = grad[i] * r.scale;
  const float mean = r.b1 * m[i] + r.c1 * g, square = r.b2 * v[i] + r.c2 * g * g;
  m[i] = mean;
  v[i] = square;
  param[i] = param[i] * r.keep - r.rate * mean / (sqrtf(square) * r.root + r.tiny);
}

} // namespace
} // namespace arbor

int32_t arbor_adamw(arbor_stream *stream, float *param, const float *grad, float *m, float *v, int64_t count, double learning_rate, double beta1,
                    double beta2, double eps, double weight_decay, double grad_scale, int64_t step) {
  using namespace arbor;
  ARBOR_ENTER(stream, "arbor_adamw", given(param, grad, m, v) && count >= 0 && step >= 1);
  if (count == 0) return ARBOR_OK;
  Rates rates;
  rates.keep = float(1 - learning_rate * weight_decay);
  rates.rate = float(learning_rate / (1 - std::pow(beta1, double(step))));
  rates.root = float(1 / std::sqrt(1 - std::pow(beta2, double(step)))); // of the second moment's correction
  rates.b1 = float(beta1), rates.b2 = float(beta2), rates.c1 = float(1 - beta1), rates.c2 = float(1 - beta2);
  rates.scale = float(grad_scale), rates.tiny = float(eps);
  adamw<<<unsigned(ceil_div(count, 256)), 256, 0, cuda_stream(stream)>>>(param, grad, m, v, count, rates);
  return launched(stream, "arbor_adamw");
}
