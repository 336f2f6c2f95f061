// Device code's built-in variables and functions. A thread of a block is a fiber (fibers.cpp) that gives way where threads wait for each other.
#pragma once

#include <cstring>
#include <functional>

extern dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {

constexpr size_t kMostShared = 227 << 10; // of a block, on compute capability 9.0
constexpr unsigned kLanes = 32;

void *dynamic_shared();

// Waits for the block's other threads; the or of what they say.
int meet_block(int word);
// What is waited for by many, in shared memory. A use is finished when so many threads have come and no bytes are missing.
struct Arrival {
  uint64_t uses;            // finished
  int64_t missing;          // bytes, of the use under way
  int64_t threads, awaited; // of each use; that have not come to the one under way
};
// So many threads have come, and so many bytes more are missing: in the runtime's code, as what many do at once is no race here.
void come(Arrival *arrival, int threads, int bytes);
// Until the number of finished uses is not of this parity.
void wait_for_use(const uint64_t *uses, uint64_t parity);
void copy_words(uint16_t *to, const uint16_t *from, size_t count);

enum class Meeting { sync, shuffle, vote, reduce, load_matrices, multiply };
struct alignas(16) Slot {
  unsigned char bytes[32];
};
// What every lane of the warp said, and which are there.
struct Answers {
  const Slot *slots;
  uint32_t lanes;
};
// Waits for the warp's other lanes, which must be at the same instruction with the same mask.
Answers meet_warp(Meeting at, uint32_t mask, const void *word, size_t bytes);

// Shared memory's addresses have 32 bits on a GPU; here the upper half is that of the address asked for last.
uint32_t shared_address(const void *place);
const void *at_shared(uint32_t address);

// Copies into shared memory that have not arrived yet.
void copy_later(void *to, const void *from, size_t bytes, bool valid);
void close_copies();
void wait_copies(int open);

// Every thread of the grid runs `thread`, in the stream's turn.
void enqueue_grid(dim3 grid, dim3 block, size_t shared, cudaStream_t stream, std::function<void()> thread);

template <class Body, class... Arguments>
void launch(dim3 grid, dim3 block, size_t shared, cudaStream_t stream, Body body, Arguments... arguments) {
  enqueue_grid(grid, block, shared, stream, [=] { body(arguments...); });
}

template <class T> T word_of(const Slot &slot) {
  T word;
  std::memcpy(&word, slot.bytes, sizeof word);
  return word;
}

inline unsigned lane() {
  return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % kLanes;
}

// The lane's own word where `from` is outside its part of the warp or has ended.
template <class T> T shuffle(uint32_t mask, T word, unsigned from, bool inside) {
  static_assert(sizeof(T) <= sizeof(Slot), "a word is at most 32 bytes");
  const Answers answers = meet_warp(Meeting::shuffle, mask, &word, sizeof word);
  return inside && (answers.lanes >> from & 1) ? word_of<T>(answers.slots[from]) : word;
}

template <class T, class Join> T reduce(uint32_t mask, T word, Join join) {
  const Answers answers = meet_warp(Meeting::reduce, mask, &word, sizeof word);
  for (unsigned i = 0; i < kLanes; i++)
    if (answers.lanes >> i & 1) word = join(word, word_of<T>(answers.slots[i]));
  return word;
}

} // namespace emulator

inline void __syncthreads() { emulator::meet_block(0); }
inline int __syncthreads_or(int word) { return emulator::meet_block(word != 0); }
inline void __syncwarp(uint32_t mask = ~0u) { emulator::meet_warp(emulator::Meeting::sync, mask, nullptr, 0); }

template <class T> T __shfl_sync(uint32_t mask, T word, int from) { return emulator::shuffle(mask, word, unsigned(from) % 32, true); }
template <class T> T __shfl_xor_sync(uint32_t mask, T word, int by) { return emulator::shuffle(mask, word, (emulator::lane() ^ unsigned(by)) % 32, true); }
template <class T> T __shfl_up_sync(uint32_t mask, T word, unsigned by) {
  return emulator::shuffle(mask, word, (emulator::lane() - by) % 32, emulator::lane() >= by);
}
template <class T> T __shfl_down_sync(uint32_t mask, T word, unsigned by) {
  return emulator::shuffle(mask, word, (emulator::lane() + by) % 32, emulator::lane() + by < 32);
}
inline uint32_t __ballot_sync(uint32_t mask, int yes) {
  const emulator::Answers answers = emulator::meet_warp(emulator::Meeting::vote, mask, &yes, sizeof yes);
  uint32_t votes = 0;
  for (unsigned i = 0; i < 32; i++)
    if ((answers.lanes >> i & 1) && emulator::word_of<int>(answers.slots[i])) votes |= 1u << i;
  return votes;
}
inline int __any_sync(uint32_t mask, int yes) { return __ballot_sync(mask, yes) != 0; }
inline int __all_sync(uint32_t mask, int yes) { return __ballot_sync(mask, !yes) == 0; }
template <class T> T __reduce_min_sync(uint32_t mask, T word) {
  return emulator::reduce(mask, word, [](T a, T b) { return a < b ? a : b; });
}
template <class T> T __reduce_max_sync(uint32_t mask, T word) {
  return emulator::reduce(mask, word, [](T a, T b) { return a > b ? a : b; });
}

inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_system() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
template <class T, class Added> T atomicAdd(T *place, Added value) { return __atomic_fetch_add(place, T(value), __ATOMIC_SEQ_CST); }
template <class T> void atomicMin(T *place, T value) {
  for (T there = *place; value < there && !__atomic_compare_exchange_n(place, &there, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);) {}
}
template <class T> void atomicMax(T *place, T value) {
  for (T there = *place; value > there && !__atomic_compare_exchange_n(place, &there, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);) {}
}
inline int atomicCAS_system(int *place, int expected, int wanted) {
  __atomic_compare_exchange_n(place, &expected, wanted, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
  return expected;
}

template <class T> T __ldcg(const T *place) { return *place; }
template <class T> T __ldcs(const T *place) { return *place; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(unsigned(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __float_as_uint(float x) {
  unsigned bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}
inline float __uint_as_float(unsigned bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }

template <class A, class B> constexpr std::common_type_t<A, B> min(A a, B b) {
  using T = std::common_type_t<A, B>;
  return T(b) < T(a) ? T(b) : T(a);
}
template <class A, class B> constexpr std::common_type_t<A, B> max(A a, B b) {
  using T = std::common_type_t<A, B>;
  return T(a) < T(b) ? T(b) : T(a);
}
