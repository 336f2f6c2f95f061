// Runs every thread of a grid on this thread of the processor.
#pragma once

#include <cuda_runtime.h>

namespace emulator {

void run_grid(dim3 grid, dim3 block, const std::function<void()> &thread);

} // namespace emulator
