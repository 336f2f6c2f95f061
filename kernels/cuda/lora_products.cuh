// Adapters by small products, each on its own: for types, ranks and widths that the kernels for all of them don't take.
#pragma once

#include "lora.cuh"

namespace arbor {

// xa of each.
int32_t down_by_products(arbor_stream *stream, int32_t type, const void *x, int64_t in, const Adapters &adapters);

// y += scale xa bᵀ, of xa and b rounded to bf16, member by member.
int32_t add_by_products(arbor_stream *stream, void *y, int32_t y_type, int64_t out, const Adapter &adapter, const bf16 *xa);

// What add_adapter_gradients does, for one.
int32_t add_gradients_by_products(arbor_stream *stream, int32_t type, void *dx, const void *dy, const void *x, int64_t in, int64_t out,
                                  const Adapter &adapter);

} // namespace arbor
