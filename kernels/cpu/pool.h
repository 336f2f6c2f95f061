// Threads that all streams of the process share: parallel_for spreads tasks over them. A second caller at the same time, or a nested
// one, simply runs its tasks alone. Which thread runs a task never changes what it computes.
#pragma once

#include <cstdint>

namespace arbor {

// ARBOR_THREADS, else the hardware's number.
int thread_count();

void run_tasks(int64_t count, void (*task)(void *context, int64_t index), void *context);

// task(index) for index in [0, count), in any order. The first exception is rethrown here.
template <class Task> void parallel_for(int64_t count, const Task &task) {
  run_tasks(
      count, [](void *context, int64_t index) { (*static_cast<const Task *>(context))(index); }, const_cast<Task *>(&task));
}

// task(begin, end) over ranges of [0, count) that are worth a thread: about `floats_each` numbers are touched per item.
template <class Task> void parallel_ranges(int64_t count, int64_t floats_each, const Task &task) {
  constexpr int64_t kWorthwhile = 1 << 14;
  const int64_t wanted = count * floats_each / kWorthwhile;
  const int64_t most = 4 * int64_t(thread_count());
  const int64_t parts = wanted < 2 ? 1 : wanted < most ? wanted : most;
  if (parts <= 1 || count <= 1) return task(int64_t(0), count);
  const int64_t step = (count + parts - 1) / parts;
  parallel_for((count + step - 1) / step,
               [&](int64_t i) { task(i * step, (i + 1) * step < count ? (i + 1) * step : count); });
}

// Working memory of this thread, grown and kept; `slot` 0 to 4. The next call with the same slot on the same thread ends its use.
float *scratch(int slot, int64_t floats);

} // namespace arbor
