// cuBLASLt's functions that kernels/cuda/products.cu looks up, with three algorithms: sums over k in order; the same bits by another name, which
// refuses an odd number of rows; sums over the halves of k, added, which has other bits. A choice by the clock alone would show.

#include <cstdint>
#include <cstring>
#include <vector>

#include <cuda_bf16.h>

#include "runtime.h"

namespace {

constexpr int32_t kNotSupported = 15, kBf16 = 14;
constexpr int kInOrder = 0, kOther = 1, kHalves = 2;

struct Desc {
  bool transposed_a = false, transposed_b = false;
};
struct Layout {
  int32_t type;
  uint64_t rows, columns;
  int64_t ld;
  int32_t batches = 1;
  int64_t stride = 0; // from one to the next
};
struct Preference {
  uint32_t reductions = 7;
};
struct Algo {
  uint64_t data[8];
};
struct Heuristic {
  Algo algo;
  size_t workspace;
  int32_t state;
  float waves;
  int32_t reserved[4];
};

float number(const void *data, int32_t type, int64_t at) {
  return type == kBf16 ? __bfloat162float(static_cast<const __nv_bfloat16 *>(data)[at]) : static_cast<const float *>(data)[at];
}

// A column-major matrix as rows of f32: row j holds element (·, j) of op(matrix), or with `along_rows` element (j, ·).
std::vector<float> unpack(const void *data, const Layout &layout, bool transposed, bool along_rows, int64_t rows, int64_t columns) {
  std::vector<float> out(size_t(rows * columns));
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < columns; c++) {
      const int64_t i = along_rows ? r : c, j = along_rows ? c : r;
      out[size_t(r * columns + c)] = number(data, layout.type, transposed ? j + i * layout.ld : i + j * layout.ld);
    }
  return out;
}

void add_products(std::vector<float> &sums, const float *left, const std::vector<float> &right, int64_t first, int64_t end) {
  const size_t width = sums.size();
  for (int64_t k = first; k < end; k++) {
    const float factor = left[k];
    const float *row = right.data() + size_t(k) * width;
    for (size_t i = 0; i < width; i++) sums[i] += factor * row[i];
  }
}

struct Call {
  Desc desc;
  Layout a, b, d;
  const void *a_data, *b_data;
  void *out;
  float alpha, beta;
  int algorithm;

  void run() const {
    for (int32_t i = 0; i < d.batches; i++) {
      Call one = *this;
      one.a_data = behind(a_data, a, i), one.b_data = behind(b_data, b, i), one.out = const_cast<void *>(behind(out, d, i));
      one.run_one();
    }
  }

  static const void *behind(const void *data, const Layout &layout, int64_t batches) {
    return static_cast<const char *>(data) + batches * layout.stride * (layout.type == kBf16 ? 2 : 4);
  }

  void run_one() const {
    const int64_t m = int64_t(d.rows), n = int64_t(d.columns), depth = int64_t(desc.transposed_a ? a.rows : a.columns);
    const std::vector<float> weights = unpack(a_data, a, desc.transposed_a, false, depth, m); // row k: element (·, k)
    const std::vector<float> rows = unpack(b_data, b, desc.transposed_b, false, n, depth);    // row j: element (·, j)
    for (int64_t j = 0; j < n; j++) {
      std::vector<float> sums(size_t(m), 0.0f);
      const float *left = rows.data() + j * depth;
      if (algorithm == kHalves) {
        std::vector<float> second(size_t(m), 0.0f);
        add_products(sums, left, weights, 0, depth / 2);
        add_products(second, left, weights, depth / 2, depth);
        for (int64_t i = 0; i < m; i++) sums[size_t(i)] += second[size_t(i)];
      } else
        add_products(sums, left, weights, 0, depth);
      for (int64_t i = 0; i < m; i++) store(j * d.ld + i, sums[size_t(i)]);
    }
  }

  void store(int64_t at, float sum) const {
    const float value = alpha * sum + (beta == 0 ? 0.0f : beta * number(out, d.type, at));
    if (d.type == kBf16)
      static_cast<__nv_bfloat16 *>(out)[at] = __float2bfloat16_rn(value);
    else
      static_cast<float *>(out)[at] = value;
  }
};

} // namespace

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED size_t cublasLtGetVersion() { return 0; }
EXPORTED int32_t cublasLtCreate(void **handle) { return *handle = new int(0), 0; }
EXPORTED int32_t cublasLtDestroy(void *handle) { return delete static_cast<int *>(handle), 0; }
EXPORTED int32_t cublasLtMatmulDescCreate(void **desc, int32_t, int32_t) { return *desc = new Desc(), 0; }
EXPORTED int32_t cublasLtMatmulDescDestroy(void *desc) { return delete static_cast<Desc *>(desc), 0; }
EXPORTED int32_t cublasLtMatmulDescSetAttribute(void *desc, int32_t attribute, const void *value, size_t) {
  int32_t on = 0;
  std::memcpy(&on, value, sizeof on);
  Desc &one = *static_cast<Desc *>(desc);
  (attribute == 3 ? one.transposed_a : one.transposed_b) = on != 0;
  return 0;
}
EXPORTED int32_t cublasLtMatrixLayoutCreate(void **layout, int32_t type, uint64_t rows, uint64_t columns, int64_t ld) {
  return *layout = new Layout{type, rows, columns, ld}, 0;
}
EXPORTED int32_t cublasLtMatrixLayoutDestroy(void *layout) { return delete static_cast<Layout *>(layout), 0; }
EXPORTED int32_t cublasLtMatrixLayoutSetAttribute(void *layout, int32_t attribute, const void *value, size_t bytes) {
  Layout &one = *static_cast<Layout *>(layout);
  if (attribute == 5) std::memcpy(&one.batches, value, bytes);
  if (attribute == 6) std::memcpy(&one.stride, value, bytes);
  return 0;
}
EXPORTED int32_t cublasLtMatmulPreferenceCreate(void **preference) { return *preference = new Preference(), 0; }
EXPORTED int32_t cublasLtMatmulPreferenceDestroy(void *preference) { return delete static_cast<Preference *>(preference), 0; }
EXPORTED int32_t cublasLtMatmulPreferenceSetAttribute(void *preference, int32_t attribute, const void *value, size_t) {
  if (attribute == 3) std::memcpy(&static_cast<Preference *>(preference)->reductions, value, 4);
  return 0;
}

EXPORTED int32_t cublasLtMatmulAlgoGetHeuristic(void *, void *, void *, void *, void *, void *, void *preference, int wanted, Heuristic *found, int *count) {
  const bool divided = static_cast<Preference *>(preference)->reductions != 0;
  *count = 0;
  for (const int algorithm : divided ? std::vector<int>{kHalves, kOther, kInOrder} : std::vector<int>{kInOrder, kOther})
    if (*count < wanted) {
      found[*count] = {};
      found[(*count)++].algo.data[0] = uint64_t(algorithm);
    }
  return 0;
}

EXPORTED int32_t cublasLtMatmul(void *, void *desc, const void *alpha, const void *a, void *a_layout, const void *b, void *b_layout, const void *beta,
                                const void *, void *, void *d, void *d_layout, const Algo *algo, void *, size_t, cudaStream_t stream) {
  const Call call{*static_cast<Desc *>(desc), *static_cast<Layout *>(a_layout), *static_cast<Layout *>(b_layout), *static_cast<Layout *>(d_layout), a, b, d,
                  *static_cast<const float *>(alpha), *static_cast<const float *>(beta), int(algo->data[0])};
  if (call.algorithm == kOther && call.d.columns % 2 != 0) return kNotSupported;
  emulator::enqueue(stream, [call] { call.run(); });
  return 0;
}
