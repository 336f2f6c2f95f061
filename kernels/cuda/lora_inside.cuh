// Adapters inside the base's product, whose sum over k is lengthened for them: y = [x | scale xa] [W | b]ᵀ and dx = [dy | scale dy b] [W; a]. So large
// outputs are written once, and x or dy, where they are smaller, are copied once to have room behind each row.
#pragma once

#include "lora_gradients.cuh"

namespace arbor {

// Adapters of rows that there are, by where they are computed.
struct DividedAdapters {
  Adapters inside, beside;
};
// Inside are those that project down and add rounded, or go by passes, where the weight is roomy and its shape says that it pays: what is copied must not
// be much larger than what would be read and written again.
DividedAdapters divide_forward(int32_t type, const void *x, int32_t weight_type, int64_t in, int64_t out, const Adapters &adapters);
DividedAdapters divide_backward(int32_t type, const void *dx, const void *dy, const void *x, int32_t weight_type, int64_t in, int64_t out,
                                const Adapters &adapters);

// Whether an adapter that has its rows for itself goes inside, forward.
bool inside_forward(int32_t type, const void *x, int32_t weight_type, int64_t in, int64_t out, const Adapter &adapter);

// y = x Wᵀ + Σ scale (x aᵀ) bᵀ, and xa, of adapters inside.
int32_t multiply_inside(arbor_stream *stream, void *y, int32_t y_type, const void *x, const void *weight, int64_t tokens, int64_t in, int64_t out,
                        const Adapters &adapters);
// dx = dy W + Σ dyb a, and dyb, of the sums of the pass over dy.
int32_t multiply_back_inside(arbor_stream *stream, void *dx, const void *dy, const void *weight, int64_t tokens, const Gradients &gradients);

} // namespace arbor
