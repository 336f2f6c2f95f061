// AdamW (Loshchilov and Hutter, 2019) in place, in the order of PyTorch: decay, moments, bias-corrected step.

#include <cmath>

#include "pool.h"
#include "stream.h"

int32_t arbor_adamw(arbor_stream *stream, float *param, const float *grad, float *m, float *v, int64_t count, double learning_rate,
                    double beta1, double beta2, double eps, double weight_decay, double grad_scale, int64_t step) {
  using namespace arbor;
  return enqueue(stream, "arbor_adamw", ARBOR_F32, given(param, grad, m, v) && count >= 0 && step >= 1, [=] {
    const float keep = float(1 - learning_rate * weight_decay);
    const float rate = float(learning_rate / (1 - std::pow(beta1, double(step))));
    const float root = float(1 / std::sqrt(1 - std::pow(beta2, double(step)))); // of the second moment's correction
    const float b1 = float(beta1), b2 = float(beta2), c1 = float(1 - beta1), c2 = float(1 - beta2);
    const float scale = float(grad_scale), tiny = float(eps);
    parallel_ranges(count, 4, [=](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        const float g = grad[i] * scale;
        m[i] = b1 * m[i] + c1 * g;
        v[i] = b2 * v[i] + c2 * g * g;
        param[i] = param[i] * keep - rate * m[i] / (std::sqrt(v[i]) * root + tiny);
      }
    });
  });
}
