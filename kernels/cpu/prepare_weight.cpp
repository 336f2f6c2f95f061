// A frozen weight, put once into panels of 16 outputs: the layout our product reads front to back. One copy serves y = x Wᵀ (panels as they
// lie), dx = dy W (panels transposed while packing) and rows of a table.

#include <cstring>

#include "external.h"
#include "gemm.h"
#include "simd.h"
#include "stream.h"

int32_t arbor_weight_type(void) { return arbor::external_in_use() ? ARBOR_F32 : ARBOR_F32_PANELS; }

int64_t arbor_weight_bytes(int32_t weight_type, int64_t out, int64_t in) {
  if (out <= 0 || in <= 0) return 0;
  if (weight_type == ARBOR_F32) return out * in * 4;
  if (weight_type == ARBOR_F32_PANELS) return (out + arbor::kPanel - 1) / arbor::kPanel * arbor::kPanel * in * 4;
  return 0;
}

int32_t arbor_prepare_weight(void *to, int32_t weight_type, const float *from, int64_t out, int64_t in) {
  using namespace arbor;
  if (!given(to, from) || out <= 0 || in <= 0) return fail(ARBOR_BAD_ARGUMENT, "arbor_prepare_weight: a pointer is null or a size is not positive");
  if (weight_type == ARBOR_F32) {
    std::memcpy(to, from, size_t(out * in) * sizeof(float));
    return ARBOR_OK;
  }
  if (weight_type != ARBOR_F32_PANELS) return fail(ARBOR_UNSUPPORTED, "arbor_prepare_weight: weight type " + std::to_string(weight_type));
  std::memset(to, 0, size_t(arbor_weight_bytes(weight_type, out, in)));
  for (int64_t o = 0; o < out; o += kPanel)
    transpose(static_cast<float *>(to) + o * in, kPanel, from + o * in, in, out - o < kPanel ? out - o : kPanel, in, 1);
  return ARBOR_OK;
}
