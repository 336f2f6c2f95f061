// Which accesses of a block's threads are ordered. Only in a library built to watch (-DWATCH=ON).
#pragma once

#include <cstddef>
#include <cstdint>

namespace emulator {

// The thread that runs now, as an access is judged by: barriers and warp barriers that it has passed, and where its own stack lies.
struct Watched {
  uint32_t thread, warp;
  int64_t barriers, warp_barriers;
  uintptr_t stack, stack_end;
};

// Null outside of kernels:
extern thread_local const Watched *watched; // the host runs beside

// A new block runs: nothing before it counts.
void forget_accesses();
// `from`: the place in the code.
void note_access(const void *place, size_t bytes, bool writes, const void *from);

} // namespace emulator
