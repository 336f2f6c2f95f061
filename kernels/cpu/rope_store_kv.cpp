// Rotary positions: halves rotate as in Hugging Face, (a, b) → (a cos − b sin, b cos + a sin); keys and values go to their slots. The gradient is
// the same rotation with the angle negated.

#include <cstring>

#include "pool.h"
#include "stream.h"

namespace arbor {
namespace {

// One token's heads. `rope` is cos[half] | sin[half]; `sign` −1 turns back.
void rotate(float *__restrict to, const float *__restrict from, const float *__restrict rope, int64_t heads, int64_t head_dim, float sign) {
  const int64_t half = head_dim / 2;
  for (int64_t h = 0; h < heads; h++, to += head_dim, from += head_dim)
    for (int64_t i = 0; i < half; i++) {
      const float cosine = rope[i], sine = sign * rope[half + i];
      to[i] = from[i] * cosine - from[half + i] * sine;
      to[half + i] = from[half + i] * cosine + from[i] * sine;
    }
}

void check(const int32_t *positions, const int32_t *slots, int64_t tokens, int64_t slot_count, int64_t position_count) {
  for (int64_t t = 0; t < tokens; t++) {
    require_index(positions[t], position_count, "position");
    require_index(slots[t], slot_count, "slot");
  }
}

bool sizes_valid(int64_t tokens, int64_t heads, int64_t kv_heads, int64_t head_dim) {
  return tokens >= 0 && kv_heads > 0 && heads > 0 && head_dim > 0 && head_dim % 2 == 0;
}

} // namespace
} // namespace arbor

int32_t arbor_rope_store_kv(arbor_stream *stream, int32_t type, const void *qkv, void *q, void *k, void *v, const int32_t *positions,
                            const int32_t *slots, const float *rope, int64_t tokens, int64_t slot_count, int64_t position_count,
                            int64_t heads, int64_t kv_heads, int64_t head_dim) {
  using namespace arbor;
  const bool valid = given(qkv, q, k, v, positions, slots, rope) && sizes_valid(tokens, heads, kv_heads, head_dim);
  return enqueue(stream, "arbor_rope_store_kv", type, valid, [=] {
    check(positions, slots, tokens, slot_count, position_count);
    const int64_t q_width = heads * head_dim, kv_width = kv_heads * head_dim;
    parallel_ranges(tokens, 2 * (q_width + 2 * kv_width), [=](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; t++) {
        const float *from = static_cast<const float *>(qkv) + t * (q_width + 2 * kv_width);
        const float *angles = rope + positions[t] * head_dim;
        rotate(static_cast<float *>(q) + t * q_width, from, angles, heads, head_dim, 1);
        rotate(static_cast<float *>(k) + slots[t] * kv_width, from + q_width, angles, kv_heads, head_dim, 1);
        std::memcpy(static_cast<float *>(v) + slots[t] * kv_width, from + q_width + kv_width, size_t(kv_width) * sizeof(float));
      }
    });
  });
}

int32_t arbor_rope_store_kv_backward(arbor_stream *stream, int32_t type, void *dqkv, const void *dq, const void *dk, const void *dv,
                                     const int32_t *positions, const int32_t *slots, const float *rope, int64_t tokens,
                                     int64_t slot_count, int64_t position_count, int64_t heads, int64_t kv_heads, int64_t head_dim) {
  using namespace arbor;
  const bool valid = given(dqkv, dq, dk, dv, positions, slots, rope) && sizes_valid(tokens, heads, kv_heads, head_dim);
  return enqueue(stream, "arbor_rope_store_kv_backward", type, valid, [=] {
    check(positions, slots, tokens, slot_count, position_count);
    const int64_t q_width = heads * head_dim, kv_width = kv_heads * head_dim;
    parallel_ranges(tokens, 2 * (q_width + 2 * kv_width), [=](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; t++) {
        float *to = static_cast<float *>(dqkv) + t * (q_width + 2 * kv_width);
        const float *angles = rope + positions[t] * head_dim;
        rotate(to, static_cast<const float *>(dq) + t * q_width, angles, heads, head_dim, -1);
        rotate(to + q_width, static_cast<const float *>(dk) + slots[t] * kv_width, angles, kv_heads, head_dim, -1);
        std::memcpy(to + q_width + kv_width, static_cast<const float *>(dv) + slots[t] * kv_width, size_t(kv_width) * sizeof(float));
      }
    });
  });
}
