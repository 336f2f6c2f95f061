// Races within a block. The compiler calls a function at each memory access of device code (-fsanitize=thread, without its runtime); two accesses of one
// word by two threads, one of them a write, must have a barrier between: __syncthreads, or __syncwarp within a warp. Shuffles, votes and the tensor
// cores' instructions order nothing, as in CUDA's memory model. Atomics are not looked at. A race ends the process with a line that says where.

#include "races.h"

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <unordered_map>

#include <cuda_runtime.h>

namespace emulator {

thread_local const Watched *watched = nullptr;

namespace {

struct Access {
  uint32_t thread = ~0u, warp = 0;
  int64_t barriers = -1, warp_barriers = -1;
};

// Of a byte: its last write, and the last reads since by one thread of each of up to two warps (more are found by another's order).
struct Record {
  Access write, reads[2];
};

std::unordered_map<uintptr_t, Record> records;

bool ordered(const Access &before, const Watched &now) {
  if (before.thread == ~0u || before.thread == now.thread || before.barriers < now.barriers) return true;
  return before.warp == now.warp && before.warp_barriers < now.warp_barriers;
}

// `from`: where in the code, for addr2line.
[[noreturn]] void stop(const char *one, const char *other, const Access &before, const void *from) {
  Dl_info library{};
  dladdr(from, &library);
  std::fprintf(stderr,
               "emulated GPU: a race: thread %u %s what thread %u %s before, without a barrier between (block %u %u %u)\n"
               "  addr2line -Cfipe %s 0x%zx\n",
               watched->thread, one, before.thread, other, blockIdx.x, blockIdx.y, blockIdx.z, library.dli_fname,
               size_t(static_cast<const char *>(from) - static_cast<const char *>(library.dli_fbase)) - 1);
  std::abort();
}

void read(uintptr_t place, const void *from) {
  Record &record = records[place];
  if (!ordered(record.write, *watched)) stop("reads", "wrote", record.write, from);
  const Access now{watched->thread, watched->warp, watched->barriers, watched->warp_barriers};
  Access &slot = record.reads[0].thread == ~0u || record.reads[0].warp == now.warp || ordered(record.reads[0], *watched) ? record.reads[0] : record.reads[1];
  slot = now;
}

void write(uintptr_t place, const void *from) {
  Record &record = records[place];
  if (!ordered(record.write, *watched)) stop("writes", "wrote", record.write, from);
  for (const Access &before : record.reads)
    if (!ordered(before, *watched)) stop("writes", "read", before, from);
  record = {};
  record.write = {watched->thread, watched->warp, watched->barriers, watched->warp_barriers};
}

} // namespace

void forget_accesses() { records.clear(); }

void note_access(const void *at, size_t bytes, bool writes, const void *from) {
  const auto place = reinterpret_cast<uintptr_t>(at);
  if (!watched || (place >= watched->stack && place < watched->stack_end)) return;
  for (uintptr_t byte = place & ~uintptr_t(1); byte < place + bytes; byte += 2) writes ? write(byte, from) : read(byte, from); // nothing is narrower than bf16
}

} // namespace emulator

// What the compiler calls.
#define HIDDEN extern "C" __attribute__((visibility("hidden")))
#define SEEN(bytes, writes) emulator::note_access(place, bytes, writes, __builtin_return_address(0))
#define ACCESSES(bytes)                                                                                                          \
  HIDDEN void __tsan_read##bytes(void *place) { SEEN(bytes, false); }                                    \
  HIDDEN void __tsan_write##bytes(void *place) { SEEN(bytes, true); }                                    \
  HIDDEN void __tsan_unaligned_read##bytes(void *place) { SEEN(bytes, false); }                          \
  HIDDEN void __tsan_unaligned_write##bytes(void *place) { SEEN(bytes, true); }                          \
  HIDDEN void __tsan_volatile_read##bytes(void *place) { SEEN(bytes, false); }                           \
  HIDDEN void __tsan_volatile_write##bytes(void *place) { SEEN(bytes, true); }
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)
HIDDEN void __tsan_read_range(void *place, size_t bytes) { SEEN(bytes, false); }
HIDDEN void __tsan_write_range(void *place, size_t bytes) { SEEN(bytes, true); }
HIDDEN void __tsan_vptr_read(void **) {}
HIDDEN void __tsan_vptr_update(void **, void *) {}
HIDDEN void __tsan_init() {}
HIDDEN void __tsan_func_entry(void *) {}
HIDDEN void __tsan_func_exit() {}
HIDDEN void __tsan_atomic_thread_fence(int) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

#define ATOMICS(bits, type)                                                                                                      \
  HIDDEN type __tsan_atomic##bits##_load(const type *place, int) { return __atomic_load_n(place, __ATOMIC_SEQ_CST); }            \
  HIDDEN void __tsan_atomic##bits##_store(type *place, type value, int) { __atomic_store_n(place, value, __ATOMIC_SEQ_CST); }    \
  HIDDEN type __tsan_atomic##bits##_exchange(type *place, type value, int) { return __atomic_exchange_n(place, value, __ATOMIC_SEQ_CST); } \
  HIDDEN type __tsan_atomic##bits##_fetch_add(type *place, type value, int) { return __atomic_fetch_add(place, value, __ATOMIC_SEQ_CST); } \
  HIDDEN type __tsan_atomic##bits##_fetch_sub(type *place, type value, int) { return __atomic_fetch_sub(place, value, __ATOMIC_SEQ_CST); } \
  HIDDEN int __tsan_atomic##bits##_compare_exchange_strong(type *place, type *expected, type value, int, int) {                  \
    return __atomic_compare_exchange_n(place, expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                       \
  }                                                                                                                              \
  HIDDEN int __tsan_atomic##bits##_compare_exchange_weak(type *place, type *expected, type value, int, int) {                    \
    return __atomic_compare_exchange_n(place, expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                       \
  }
ATOMICS(8, unsigned char)
ATOMICS(32, unsigned)
ATOMICS(64, unsigned long long)
