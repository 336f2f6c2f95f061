// LoRA adapters on runs of rows of a linear, as work beside its products. A fused weight has several parts: `a` stacks their A's, `b` their B's, and
// part p reads its own `rank` columns of xa.
#pragma once

#include <memory>
#include <vector>

#include "gemm.h"

namespace arbor {

struct Adapter {
  struct Part {
    int64_t first, out; // rows of b, columns of y
  };
  int64_t row, rows, rank;
  float scale;
  std::vector<Part> parts;
  const float *a, *b;
  float *xa, *da, *db;

  int64_t width() const { return int64_t(parts.size()) * rank; } // columns of xa
};
using Adapters = std::vector<Adapter>;

// The packed argument `loras` of arbor_ops.h; false when something in it is out of range.
bool read_adapters(Adapters &to, const double *loras, int64_t count, int64_t tokens, int64_t out, bool backward);

// xa = x aᵀ; y += scale xa bᵀ.
Beside adapters_forward(const Adapters &adapters, float *y, const float *x, int64_t in, int64_t out);
// dx += scale (dy b) a, unless dx is null; da += scale (dy b)ᵀ x; db += scale dyᵀ xa.
Beside adapters_backward(const Adapters &adapters, float *dx, const float *dy, const float *x, int64_t in, int64_t out);

} // namespace arbor
