// y = silu(gate) · up, silu(g) = g σ(g), and its gradient.

#include "pool.h"
#include "simd.h"
#include "stream.h"

namespace arbor {
namespace {

ARBOR_INLINE vf sigmoid(vf x) { return 1.0f / (1.0f + exp(-x)); }

// Calls body(offset, count) over a row; the last piece may be shorter than a vector.
template <class Body> ARBOR_INLINE void by_vectors(int64_t count, const Body &body) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) body(i, int64_t(kLanes));
  if (i < count) body(i, count - i);
}
ARBOR_INLINE vf load_some(const float *p, int64_t count) {
  if (count == kLanes) return load(p);
  float t[kLanes] = {};
  std::memcpy(t, p, size_t(count) * sizeof(float));
  return load(t);
}
ARBOR_INLINE void store_some(float *p, vf v, int64_t count) {
  if (count == kLanes) return store(p, v);
  std::memcpy(p, &v, size_t(count) * sizeof(float));
}

void swiglu_row(float *y, const float *gate, const float *up, int64_t inner) {
  by_vectors(inner, [=](int64_t i, int64_t n) {
    const vf g = load_some(gate + i, n);
    store_some(y + i, g * sigmoid(g) * load_some(up + i, n), n);
  });
}

// dup = dy silu(g); dgate = dy up σ(g) (1 + g (1 − σ(g)))
void swiglu_row_backward(float *d_gate, float *d_up, float *y, const float *dy, const float *gate, const float *up, int64_t inner) {
  by_vectors(inner, [=](int64_t i, int64_t n) {
    const vf g = load_some(gate + i, n), u = load_some(up + i, n), d = load_some(dy + i, n);
    const vf s = sigmoid(g);
    if (y) store_some(y + i, g * s * u, n);
    store_some(d_up + i, d * g * s, n);
    store_some(d_gate + i, d * u * s * (1.0f + g * (1.0f - s)), n);
  });
}

} // namespace
} // namespace arbor

int32_t arbor_swiglu(arbor_stream *stream, int32_t type, void *y, const void *gate_up, int64_t tokens, int64_t inner) {
  using namespace arbor;
  return enqueue(stream, "arbor_swiglu", type, given(y, gate_up) && tokens >= 0 && inner > 0, [=] {
    parallel_ranges(tokens, 4 * inner, [=](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; t++) {
        const float *gate = static_cast<const float *>(gate_up) + t * 2 * inner;
        swiglu_row(static_cast<float *>(y) + t * inner, gate, gate + inner, inner);
      }
    });
  });
}

int32_t arbor_swiglu_backward(arbor_stream *stream, int32_t type, void *d_gate_up, void *y, const void *dy, const void *gate_up, int64_t tokens,
                              int64_t inner) {
  using namespace arbor;
  return enqueue(stream, "arbor_swiglu_backward", type, given(d_gate_up, dy, gate_up) && tokens >= 0 && inner > 0, [=] {
    parallel_ranges(tokens, 7 * inner, [=](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; t++) {
        const float *gate = static_cast<const float *>(gate_up) + t * 2 * inner;
        float *d_gate = static_cast<float *>(d_gate_up) + t * 2 * inner;
        float *const out = y ? static_cast<float *>(y) + t * inner : nullptr;
        swiglu_row_backward(d_gate, d_gate + inner, out, static_cast<const float *>(dy) + t * inner, gate, gate + inner, inner);
      }
    });
  });
}
