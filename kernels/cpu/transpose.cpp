// Transposes small blocks while packing matrices.

#include "simd.h"

namespace arbor {
namespace {

#if defined(__AVX__)
ARBOR_INLINE void transpose_8x8(float *dst, int64_t dst_stride, const float *src, int64_t src_stride, int64_t rows, __m256 scale) {
  __m256 r[8], t[8];
  for (int i = 0; i < 8; i++) r[i] = i < rows ? _mm256_mul_ps(_mm256_loadu_ps(src + i * src_stride), scale) : _mm256_setzero_ps();
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
    r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  for (int i = 0; i < 4; i++) _mm256_storeu_ps(dst + i * dst_stride, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
  for (int i = 0; i < 4; i++) _mm256_storeu_ps(dst + (i + 4) * dst_stride, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
}
#endif

void transpose_scalar(float *dst, int64_t dst_stride, const float *src, int64_t src_stride, int64_t rows, int64_t cols, float scale) {
  for (int64_t c = 0; c < cols; c++)
    for (int i = 0; i < 8; i++) dst[c * dst_stride + i] = i < rows ? src[i * src_stride + c] * scale : 0;
}

} // namespace

void transpose(float *dst, int64_t dst_stride, const float *src, int64_t src_stride, int64_t rows, int64_t cols, float scale) {
  const int64_t last = (rows - 1) / 8 * 8;
  for (int64_t c = 0; c < cols; c += 8) {
    const int64_t width = cols - c < 8 ? cols - c : 8;
    // The last group of rows first: what it writes past `rows` belongs to the next column, whose first group overwrites it.
    for (int64_t r = last; r >= 0; r -= 8) {
      const int64_t height = rows - r < 8 ? rows - r : 8;
#if defined(__AVX__)
      if (width == 8) {
        transpose_8x8(dst + c * dst_stride + r, dst_stride, src + r * src_stride + c, src_stride, height, _mm256_set1_ps(scale));
        continue;
      }
#endif
      transpose_scalar(dst + c * dst_stride + r, dst_stride, src + r * src_stride + c, src_stride, height, width, scale);
    }
  }
}

} // namespace arbor
