// What the parts of the runtime, and the stand-ins for cuBLASLt and NCCL, have of each other.
#pragma once

#include <cuda_runtime.h>

#include <functional>

namespace emulator {

// In the stream's turn, on the stream's own thread; recorded where the stream is being captured.
void enqueue(Stream *stream, std::function<void()> work);
// Returns once every stream has done what it was given.
void wait_for_streams();

// Keeps an error for cudaGetLastError and returns it.
cudaError_t result(cudaError_t error);
// Whether this is the GPU's memory, or pinned.
bool is_known(const void *memory);

} // namespace emulator
