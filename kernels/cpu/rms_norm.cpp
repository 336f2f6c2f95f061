// y = x / sqrt(mean(x²) + eps) · weight, with the residual addition fused, and its gradient.

#include <cmath>

#include "add_rows.h"
#include "pool.h"
#include "simd.h"
#include "stream.h"

namespace arbor {
namespace {

// Σ term(i): lane sums in four chains, then the lanes, then what is left over one by one (`one`).
template <class Term, class One> ARBOR_INLINE float sum_over(int64_t count, const Term &term, const One &one) {
  vf sum[4] = {};
  int64_t i = 0;
  for (; i + 4 * kLanes <= count; i += 4 * kLanes)
    for (int c = 0; c < 4; c++) sum[c] = term(i + c * kLanes, sum[c]);
  for (; i + kLanes <= count; i += kLanes) sum[0] = term(i, sum[0]);
  float total = sum_lanes((sum[0] + sum[1]) + (sum[2] + sum[3]));
  for (; i < count; i++) total = one(i, total);
  return total;
}

// One row. `sum` may be `x`.
float norm_row(float *y, float *sum, const float *x, const float *delta, const float *weight, int64_t hidden, float eps) {
  if (delta) {
    for (int64_t i = 0; i < hidden; i++) sum[i] = x[i] + delta[i];
    x = sum;
  }
  const float squares = sum_over(
      hidden, [=](int64_t i, vf sum) { return fma(load(x + i), load(x + i), sum); },
      [=](int64_t i, float sum) { return fma(x[i], x[i], sum); });
  const float rstd = 1 / std::sqrt(squares / float(hidden) + eps);
  for (int64_t i = 0; i < hidden; i++) y[i] = x[i] * rstd * weight[i];
  return rstd;
}

// dx = residual + rstd (g − x rstd² mean(g x)), g = dy · weight.
void norm_row_backward(float *dx, const float *dy, const float *x, const float *weight, float rstd, const float *residual,
                       int64_t hidden) {
  const float total = sum_over(
      hidden, [=](int64_t i, vf sum) { return fma(load(dy + i) * load(weight + i), load(x + i), sum); },
      [=](int64_t i, float sum) { return fma(dy[i] * weight[i], x[i], sum); });
  const float pull = total * rstd * rstd / float(hidden);
  for (int64_t j = 0; j < hidden; j++) {
    const float own = rstd * (dy[j] * weight[j] - x[j] * pull);
    dx[j] = residual ? residual[j] + own : own;
  }
}

} // namespace
} // namespace arbor

int32_t arbor_rms_norm(arbor_stream *stream, int32_t type, void *y, float *rstd, void *sum, const void *x, const void *delta,
                       const float *weight, int64_t tokens, int64_t hidden, double eps) {
  using namespace arbor;
  const bool valid = given(y, rstd, x, weight) && (!delta || sum) && tokens >= 0 && hidden > 0;
  return enqueue(stream, "arbor_rms_norm", type, valid, [=] {
    parallel_ranges(tokens, 3 * hidden, [=](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; t++) {
        const int64_t at = t * hidden;
        rstd[t] = norm_row(static_cast<float *>(y) + at, static_cast<float *>(sum) + at, static_cast<const float *>(x) + at,
                           delta ? static_cast<const float *>(delta) + at : nullptr, weight, hidden, float(eps));
      }
    });
  });
}

int32_t arbor_rms_norm_backward(arbor_stream *stream, int32_t type, void *dx, const void *dy, const void *x, const float *weight,
                                const float *rstd, const void *d_residual, float *d_weight, int64_t tokens, int64_t hidden) {
  using namespace arbor;
  const bool valid = given(dx, dy, x, weight, rstd) && tokens >= 0 && hidden > 0;
  return enqueue(stream, "arbor_rms_norm_backward", type, valid, [=] {
    const float *dys = static_cast<const float *>(dy), *xs = static_cast<const float *>(x);
    const float *residual = static_cast<const float *>(d_residual);
    // Before dx, which may lie where the residual or dy lies.
    if (d_weight)
      add_rows(d_weight, tokens, hidden, [=](float *sum, int64_t t) {
        for (int64_t i = 0; i < hidden; i++) sum[i] += dys[t * hidden + i] * xs[t * hidden + i] * rstd[t];
      });
    parallel_ranges(tokens, 3 * hidden, [=](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; t++)
        norm_row_backward(static_cast<float *>(dx) + t * hidden, dys + t * hidden, xs + t * hidden, weight, rstd[t],
                          residual ? residual + t * hidden : nullptr, hidden);
    });
  });
}
