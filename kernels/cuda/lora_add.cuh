// What adapters and the bias add to a product's outputs: y += bias + scale xa bᵀ.
#pragma once

#include "lora.cuh"

namespace arbor {

// Rows that a block takes: many, to keep its rows of b for long; few, to have enough blocks.
constexpr int kManyRows = 32, kFewRows = 4;

// All rows of y; adapters stand in the order of their rows.
void add_all(arbor_stream *stream, void *y, int32_t y_type, const float *bias, int64_t tokens, int64_t out, const Adapters &adapters, int rows);

} // namespace arbor
