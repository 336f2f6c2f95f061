// A linear of few rows, one per sequence that decodes: bound by reading the weight once.
#pragma once

#include "lora.cuh"

namespace arbor {

// Whether decode_linear takes these: bf16 activations and weights, widths that 16-byte loads can read.
bool decode_linear_fits(int32_t type, int32_t weight_type, int64_t in, const void *x, const void *weight, const Adapters &adapters);

// y = x Wᵀ + bias + Σ scale (x aᵀ) bᵀ and xa, in one launch. A row's bits depend on no other row. `y_type` is bf16 or f32.
int32_t decode_linear(arbor_stream *stream, void *y, int32_t y_type, const void *x, const void *weight, const float *bias, int64_t tokens, int64_t in,
                      int64_t out, const Adapters &adapters);

} // namespace arbor
