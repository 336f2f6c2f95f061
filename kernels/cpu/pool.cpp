// The thread pool. One job at a time; a 64-bit word (job number, tasks left) is claimed by compare-and-swap, so that a worker that
// wakes late can never touch a job that has ended. Workers look for work for some microseconds, then sleep: on a few cores a thread
// that spins longer takes the time of the one that works.

#include "pool.h"

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <new>
#include <thread>

#include "simd.h"

namespace arbor {
namespace {

constexpr uint64_t kCountMask = 0xffffffffu;
constexpr int kSpins = 400;

inline void relax() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

class Pool {
public:
  explicit Pool(int threads) {
    for (int i = 1; i < threads; i++) std::thread([this] { work(); }).detach();
  }

  bool try_run(int64_t count, void (*task)(void *, int64_t), void *context) {
    if (!callers_.try_lock()) return false;
    std::lock_guard<std::mutex> held(callers_, std::adopt_lock);
    task_ = task, context_ = context, failure_ = nullptr;
    pending_.store(count);
    state_.store((++job_ << 32) | uint64_t(count));
    if (sleepers_.load() > 0) {
      std::lock_guard<std::mutex> lock(sleep_);
      wake_.notify_all();
    }
    while (claim_and_run()) {}
    for (int spin = 0; pending_.load(std::memory_order_acquire) > 0; spin++) spin < 2000 ? relax() : std::this_thread::yield();
    if (failure_) std::rethrow_exception(failure_);
    return true;
  }

private:
  bool claim_and_run() {
    uint64_t seen = state_.load();
    while ((seen & kCountMask) > 0) {
      if (!state_.compare_exchange_weak(seen, seen - 1)) continue;
      const int64_t index = int64_t(seen & kCountMask) - 1;
      try {
        task_(context_, index);
      } catch (...) {
        std::lock_guard<std::mutex> lock(failure_mutex_);
        if (!failure_) failure_ = std::current_exception();
      }
      pending_.fetch_sub(1, std::memory_order_release);
      return true;
    }
    return false;
  }

  void work() {
    for (;;) {
      int spin = 0;
      while (!claim_and_run() && spin < kSpins) spin++, relax();
      if (spin < kSpins) continue;
      std::unique_lock<std::mutex> lock(sleep_);
      sleepers_++;
      wake_.wait(lock, [this] { return (state_.load() & kCountMask) > 0; });
      sleepers_--;
    }
  }

  std::mutex callers_, sleep_, failure_mutex_;
  std::condition_variable wake_;
  std::atomic<uint64_t> state_{0};
  std::atomic<int64_t> pending_{0};
  std::atomic<int> sleepers_{0};
  uint64_t job_ = 0;
  void (*task_)(void *, int64_t) = nullptr;
  void *context_ = nullptr;
  std::exception_ptr failure_;
};

// Never destroyed: workers may still sleep in it when the process ends.
Pool &pool() {
  static Pool *shared = new Pool(thread_count());
  return *shared;
}

thread_local bool inside_pool = false;

struct Scratch {
  float *memory[5] = {};
  int64_t size[5] = {};
  ~Scratch() {
    for (float *m : memory) std::free(m);
  }
};

} // namespace

int thread_count() {
  static const int count = [] {
    const char *wish = std::getenv("ARBOR_THREADS");
    const int wished = wish ? std::atoi(wish) : 0;
    const int cores = int(std::thread::hardware_concurrency());
    const int chosen = wished > 0 ? wished : cores;
    return chosen < 1 ? 1 : chosen > 256 ? 256 : chosen;
  }();
  return count;
}

void run_tasks(int64_t count, void (*task)(void *, int64_t), void *context) {
  if (count > 1 && !inside_pool && thread_count() > 1) {
    inside_pool = true;
    struct Leave {
      ~Leave() { inside_pool = false; }
    } leave;
    if (pool().try_run(count, task, context)) return;
  }
  for (int64_t i = 0; i < count; i++) task(context, i);
}

float *scratch(int slot, int64_t floats) {
  static thread_local Scratch mine;
  if (mine.size[slot] < floats) {
    std::free(mine.memory[slot]);
    mine.size[slot] = 0;
    const int64_t rounded = (floats * 4 + 4095) / 4096 * 4096;
    mine.memory[slot] = static_cast<float *>(std::aligned_alloc(64, size_t(rounded)));
    if (!mine.memory[slot]) throw std::bad_alloc();
    mine.size[slot] = rounded / 4;
  }
  return mine.memory[slot];
}

} // namespace arbor
