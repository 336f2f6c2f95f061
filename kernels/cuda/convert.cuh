// f32 to the type that a product takes.
#pragma once

#include "stream.cuh"

namespace arbor {

// to[i] = scale · from[i], rounded to nearest even.
void to_bf16(arbor_stream *stream, void *to, const float *from, int64_t count, float scale = 1);

// The same for three arrays at once, without a scale.
void to_bf16_three(arbor_stream *stream, void *const *to, const float *const *from, const int64_t *counts);

// A weight of `count` values in the type of the activations: itself, or a copy in scratch memory `number` (weights that are trained are f32). Null
// when there is no such conversion, or no memory.
const void *weight_as(arbor_stream *stream, int32_t type, const void *weight, int32_t weight_type, int64_t count, int number);

} // namespace arbor
