// Streams, as the stand-ins for cuBLASLt and NCCL see them.
#pragma once

#include <cuda_runtime.h>

#include <functional>

namespace emulator {

// In the stream's turn, on the stream's own thread; recorded where the stream is being captured.
void enqueue(Stream *stream, std::function<void()> work);

} // namespace emulator
