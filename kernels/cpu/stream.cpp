// An in-order stream on the CPU: a thread with a queue. Ops enqueue and return; arbor_wait is the only call that waits. A capture is a
// recorded list of commands. An op that fails stops the ones behind it until arbor_status has reported it.

#include "stream.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include <sys/mman.h>

#include "external.h"
#include "pool.h"

namespace {

struct Command {
  const char *op;
  std::function<void()> work;
  bool cleanup = false; // runs after a failure too
};

thread_local std::string last_error;

} // namespace

struct arbor_capture {
  std::vector<Command> commands;
};

struct arbor_stream {
  std::mutex mutex;
  std::condition_variable work, done;
  std::vector<Command> queue;
  std::atomic<int64_t> submitted{0}, finished{0};
  int64_t wanted = INT64_MAX;        // the nearest ticket somebody waits for
  std::atomic<int64_t> failed_at{0}; // ticket of the first failure, 0 = none
  std::string failure;
  bool closing = false;
  std::unique_ptr<arbor_capture> recording;
  std::thread thread;

  void run() {
    std::vector<Command> batch;
    for (;;) {
      {
        std::unique_lock<std::mutex> lock(mutex);
        work.wait(lock, [this] { return closing || !queue.empty(); });
        if (queue.empty()) return;
        batch.swap(queue);
      }
      for (Command &command : batch) {
        const int64_t ticket = finished.load(std::memory_order_relaxed) + 1;
        if (failed_at == 0 || command.cleanup) execute(command, ticket);
        command.work = nullptr;
        std::lock_guard<std::mutex> lock(mutex);
        finished.store(ticket, std::memory_order_release);
        if (ticket < wanted) continue;
        wanted = INT64_MAX;
        done.notify_all();
      }
      batch.clear();
    }
  }

  void execute(const Command &command, int64_t ticket) {
    try {
      command.work();
    } catch (const std::exception &error) {
      std::lock_guard<std::mutex> lock(mutex);
      failed_at = ticket;
      failure = std::string(command.op) + ": " + error.what();
    }
  }
};

namespace arbor {

int32_t fail(arbor_code code, const std::string &text) {
  last_error = text;
  return code;
}

void submit(arbor_stream *stream, const char *op, std::function<void()> work, bool cleanup) {
  if (stream->recording && !cleanup) {
    stream->recording->commands.push_back({op, std::move(work)});
    return;
  }
  std::lock_guard<std::mutex> lock(stream->mutex);
  stream->queue.push_back({op, std::move(work), cleanup});
  stream->submitted.fetch_add(1, std::memory_order_relaxed);
  if (stream->queue.size() == 1) stream->work.notify_one();
}

} // namespace arbor

using arbor::enqueue;
using arbor::fail;
using arbor::given;

namespace {

// Frees something behind the work that may still use it.
int32_t cleanup(arbor_stream *stream, const char *op, std::function<void()> work) {
  try {
    arbor::submit(stream, op, std::move(work), true);
    return ARBOR_OK;
  } catch (const std::bad_alloc &) {
    return ARBOR_OUT_OF_MEMORY;
  }
}

} // namespace

const char *arbor_last_error(void) { return last_error.c_str(); }

const char *arbor_description(void) {
  static const std::string text = std::string(ARBOR_BUILD_ISA) + ", " + arbor::gemm_name() + ", " +
                                  std::to_string(arbor::thread_count()) +
                                  (arbor::thread_count() == 1 ? " thread" : " threads");
  return text.c_str();
}

arbor_stream *arbor_open(int32_t device) {
  if (device != 0) {
    fail(ARBOR_BAD_ARGUMENT, "arbor_open: the CPU is device 0, not " + std::to_string(device));
    return nullptr;
  }
  if (!arbor::gemm_problem().empty()) {
    fail(ARBOR_UNSUPPORTED, arbor::gemm_problem());
    return nullptr;
  }
  try {
    auto stream = std::make_unique<arbor_stream>();
    stream->thread = std::thread([s = stream.get()] { s->run(); });
    return stream.release();
  } catch (const std::exception &error) {
    fail(ARBOR_OUT_OF_MEMORY, std::string("arbor_open: ") + error.what());
    return nullptr;
  }
}

int32_t arbor_close(arbor_stream *stream) {
  if (!stream) return fail(ARBOR_BAD_ARGUMENT, "arbor_close: no stream");
  {
    std::lock_guard<std::mutex> lock(stream->mutex);
    stream->closing = true;
    stream->work.notify_one();
  }
  stream->thread.join();
  delete stream;
  return ARBOR_OK;
}

int32_t arbor_device_count(void) { return 1; }

int64_t arbor_memory(arbor_stream *, int32_t) { return 0; }

void *arbor_alloc(arbor_stream *, int64_t bytes) {
  constexpr int64_t kHuge = 2 << 20;
  const int64_t align = bytes >= 2 * kHuge ? kHuge : 64;
  void *memory = bytes > 0 ? std::aligned_alloc(size_t(align), size_t((bytes + align - 1) / align * align)) : nullptr;
  if (!memory) {
    fail(ARBOR_OUT_OF_MEMORY, "arbor_alloc: no memory for " + std::to_string(bytes) + " bytes");
    return nullptr;
  }
#if defined(MADV_HUGEPAGE)
  if (align == kHuge) madvise(memory, size_t(bytes), MADV_HUGEPAGE);
#endif
  return memory;
}

int32_t arbor_free(arbor_stream *stream, void *memory) {
  if (!stream) std::free(memory);
  return stream ? cleanup(stream, "arbor_free", [=] { std::free(memory); }) : int32_t(ARBOR_OK);
}

int32_t arbor_upload(arbor_stream *stream, void *to, const void *from, int64_t bytes) {
  if (!stream || !given(to, from) || bytes < 0) return fail(ARBOR_BAD_ARGUMENT, "arbor_upload: a pointer is null or a size is negative");
  if (stream->recording) return fail(ARBOR_UNSUPPORTED, "arbor_upload: host data can't be part of a capture; upload before the replay");
  // Nothing is in flight: no need for a copy in between.
  if (stream->failed_at == 0 && stream->finished.load(std::memory_order_acquire) == stream->submitted.load(std::memory_order_relaxed)) {
    std::memcpy(to, from, size_t(bytes));
    return ARBOR_OK;
  }
  std::shared_ptr<void> kept(std::malloc(size_t(bytes)), std::free);
  if (!kept && bytes > 0) return fail(ARBOR_OUT_OF_MEMORY, "arbor_upload: no memory for " + std::to_string(bytes) + " bytes");
  std::memcpy(kept.get(), from, size_t(bytes));
  return enqueue(stream, "arbor_upload", ARBOR_F32, true, [=] { std::memcpy(to, kept.get(), size_t(bytes)); });
}

int64_t arbor_download(arbor_stream *stream, void *to, const void *from, int64_t bytes) {
  if (stream && stream->recording) return fail(ARBOR_UNSUPPORTED, "arbor_download: a capture can't wait");
  const int32_t code = enqueue(stream, "arbor_download", ARBOR_F32, given(to, from) && bytes >= 0,
                               [=] { std::memcpy(to, from, size_t(bytes)); });
  return code == ARBOR_OK ? stream->submitted.load() : code;
}

int32_t arbor_wait(arbor_stream *stream, int64_t ticket, int64_t microseconds) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::microseconds(microseconds);
  std::unique_lock<std::mutex> lock(stream->mutex);
  while (stream->finished.load(std::memory_order_acquire) < ticket) {
    if (ticket < stream->wanted) stream->wanted = ticket;
    if (microseconds < 0)
      stream->done.wait(lock);
    else if (stream->done.wait_until(lock, deadline) == std::cv_status::timeout)
      return stream->finished.load(std::memory_order_acquire) < ticket ? ARBOR_BUSY : ARBOR_OK;
  }
  return ARBOR_OK;
}

int32_t arbor_status(arbor_stream *stream, int64_t ticket) {
  std::lock_guard<std::mutex> lock(stream->mutex);
  if (stream->failed_at == 0 || stream->failed_at > ticket) return ARBOR_OK;
  stream->failed_at = 0;
  return fail(ARBOR_FAILED, std::exchange(stream->failure, {}));
}

int32_t arbor_capture_begin(arbor_stream *stream) {
  if (!stream || stream->recording) return fail(ARBOR_BAD_ARGUMENT, "arbor_capture_begin: no stream, or one that is recording already");
  stream->recording = std::make_unique<arbor_capture>();
  return ARBOR_OK;
}

arbor_capture *arbor_capture_end(arbor_stream *stream) {
  if (stream && stream->recording) return stream->recording.release();
  fail(ARBOR_BAD_ARGUMENT, "arbor_capture_end: nothing is being recorded");
  return nullptr;
}

int32_t arbor_replay(arbor_stream *stream, arbor_capture *capture) {
  return enqueue(stream, "arbor_replay", ARBOR_F32, given(capture), [=] {
    for (const Command &command : capture->commands) {
      try {
        command.work();
      } catch (const std::exception &error) {
        throw std::runtime_error(std::string(command.op) + ": " + error.what());
      }
    }
  });
}

int32_t arbor_capture_free(arbor_stream *stream, arbor_capture *capture) {
  if (!stream) delete capture;
  return stream ? cleanup(stream, "arbor_capture_free", [=] { delete capture; }) : int32_t(ARBOR_OK);
}
