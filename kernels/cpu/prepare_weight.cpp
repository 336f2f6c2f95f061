// A frozen weight, put once into panels of 16 outputs: the layout our product reads front to back. One copy serves y = x Wᵀ (panels as they
// lie), dx = dy W (panels transposed while packing) and rows of a table.

#include <cstring>

#include "external.h"
#include "gemm.h"
#include "gemm_bf16.h"
#include "pool.h"
#include "simd.h"
#include "stream.h"

namespace arbor {
namespace {

void bf16_panels(uint32_t *to, const float *from, int64_t out, int64_t in) {
  const int64_t pairs = bf16_pairs(in);
  parallel_for((out + kPanel - 1) / kPanel, [=](int64_t panel) {
    uint32_t *pair = to + panel * kPanel * pairs;
    const float *rows = from + panel * kPanel * in;
    const int64_t height = out - panel * kPanel < kPanel ? out - panel * kPanel : kPanel;
    for (int64_t i = 0; i < pairs; i++, pair += kPanel)
      for (int64_t r = 0; r < kPanel; r++) {
        const auto half = [&](int64_t k) { return r < height && k < in ? uint32_t(to_bf16(rows[r * in + k])) : 0u; };
        pair[r] = half(2 * i) | half(2 * i + 1) << 16;
      }
  });
}

} // namespace
} // namespace arbor

int32_t arbor_best_precision(void) { return arbor::bf16_is_fast() ? ARBOR_BF16 : ARBOR_F32; }

int32_t arbor_weight_type(int32_t precision, int32_t) {
  if (precision == ARBOR_BF16) return ARBOR_BF16_PANELS;
  return arbor::external_in_use() ? ARBOR_F32 : ARBOR_F32_PANELS;
}

int64_t arbor_weight_bytes(int32_t weight_type, int64_t out, int64_t in) {
  if (out <= 0 || in <= 0) return 0;
  if (weight_type == ARBOR_F32) return out * in * 4;
  if (weight_type == ARBOR_F32_PANELS) return (out + arbor::kPanel - 1) / arbor::kPanel * arbor::kPanel * in * 4;
  if (weight_type == ARBOR_BF16_PANELS) return (out + arbor::kPanel - 1) / arbor::kPanel * arbor::kPanel * arbor::bf16_pairs(in) * 4;
  return 0;
}

int32_t arbor_prepare_weight(arbor_stream *, void *to, int32_t weight_type, const float *from, int64_t out, int64_t in) {
  using namespace arbor;
  if (!given(to, from) || out <= 0 || in <= 0) return fail(ARBOR_BAD_ARGUMENT, "arbor_prepare_weight: a pointer is null or a size is not positive");
  if (weight_type == ARBOR_F32) {
    std::memcpy(to, from, size_t(out * in) * sizeof(float));
    return ARBOR_OK;
  }
  if (weight_type == ARBOR_BF16_PANELS) {
    bf16_panels(static_cast<uint32_t *>(to), from, out, in);
    return ARBOR_OK;
  }
  if (weight_type != ARBOR_F32_PANELS) return fail(ARBOR_UNSUPPORTED, "arbor_prepare_weight: weight type " + std::to_string(weight_type));
  std::memset(to, 0, size_t(arbor_weight_bytes(weight_type, out, in)));
  for (int64_t o = 0; o < out; o += kPanel)
    transpose(static_cast<float *>(to) + o * in, kPanel, from + o * in, in, out - o < kPanel ? out - o : kPanel, in, 1);
  return ARBOR_OK;
}
