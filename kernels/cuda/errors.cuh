// Errors of the driver and of kernels, in words.
#pragma once

#include "stream.cuh"

namespace arbor {

// With what a person can do about it.
std::string explain(cudaError_t error);
// Keeps the text for arbor_last_error; out of memory has a code of its own.
int32_t failed(const char *op, cudaError_t error);
std::string text_of(const Fault &fault);

} // namespace arbor
