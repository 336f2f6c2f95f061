// The CUDA runtime's streams: each a thread of the processor with a queue, so the host runs ahead of it as it does of a GPU; a graph is a list of what
// was enqueued.

#include "runtime.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "fibers.h"

namespace emulator {

typedef std::function<void()> Work;

struct Graph {
  std::vector<Work> works;
  std::set<Stream *> unjoined; // streams beside the one captured whose last work it has not waited for
  Stream *origin = nullptr;
};

struct Event {
  std::atomic<int64_t> asked{0}, done{0};
  std::atomic<int64_t> nanoseconds{0};
  Graph *graph = nullptr; // recorded while this one was captured, after work of `on`
  Stream *on = nullptr;
};

struct Stream {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Work> queue;
  bool busy = false, ending = false;
  Graph *capture = nullptr;
  std::thread worker;

  Stream() : worker([this] { run(); }) {}

  void run() {
    std::unique_lock<std::mutex> lock(mutex);
    for (;;) {
      changed.wait(lock, [&] { return ending || !queue.empty(); });
      if (queue.empty()) return;
      Work work = std::move(queue.front());
      queue.pop_front();
      busy = true;
      lock.unlock();
      work();
      lock.lock();
      busy = false;
      changed.notify_all();
    }
  }

  void add(Work work) {
    std::lock_guard<std::mutex> lock(mutex);
    queue.push_back(std::move(work));
    changed.notify_all();
  }

  void wait() {
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [&] { return queue.empty() && !busy; });
  }

  void end() {
    {
      std::lock_guard<std::mutex> lock(mutex);
      ending = true;
      changed.notify_all();
    }
    worker.join();
  }
};

namespace {

std::mutex mutex; // of streams
// One that another thread waits for outlives its end; those that are open when the process ends are left to it.
auto &streams = *new std::map<Stream *, std::shared_ptr<Stream>>();
std::condition_variable event_done;
std::mutex event_mutex;

int64_t now() { return std::chrono::steady_clock::now().time_since_epoch().count(); }

bool fits(dim3 grid, dim3 block, size_t shared) {
  const uint64_t threads = uint64_t(block.x) * block.y * block.z;
  return threads >= 1 && threads <= 1024 && grid.x >= 1 && grid.x <= 0x7fffffff && grid.y >= 1 && grid.y <= 65535 && grid.z >= 1 && grid.z <= 65535 &&
         shared <= kMostShared;
}

} // namespace

void wait_for_streams() {
  std::unique_lock<std::mutex> lock(mutex);
  const auto all = streams;
  lock.unlock();
  for (const auto &[_, stream] : all) stream->wait();
}

void enqueue(Stream *stream, Work work) {
  if (Graph *graph = stream->capture) {
    graph->works.push_back(std::move(work));
    if (stream != graph->origin) graph->unjoined.insert(stream);
    return;
  }
  stream->add(std::move(work));
}

void enqueue_grid(dim3 grid, dim3 block, size_t shared, cudaStream_t stream, std::function<void()> thread) {
  if (!fits(grid, block, shared)) {
    result(cudaErrorInvalidConfiguration);
    return;
  }
  enqueue(stream, [grid, block, thread = std::move(thread)] { run_grid(grid, block, thread); });
}

} // namespace emulator

using namespace emulator;

// What is not pinned the driver copies before it returns, in both directions.
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  if (kind == cudaMemcpyHostToDevice && !is_known(from)) {
    const auto *bytes_of = static_cast<const char *>(from);
    enqueue(stream, [to, copy = std::vector<char>(bytes_of, bytes_of + bytes)] { std::memcpy(to, copy.data(), copy.size()); });
    return cudaSuccess;
  }
  enqueue(stream, [=] { std::memmove(to, from, bytes); });
  if (kind == cudaMemcpyDeviceToHost && !is_known(to)) {
    if (stream->capture) return result(cudaErrorStreamCaptureUnsupported);
    stream->wait();
  }
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream) {
  enqueue(stream, [=] { std::memset(to, value, bytes); });
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) {
  auto made = std::make_shared<Stream>();
  *stream = made.get();
  std::lock_guard<std::mutex> lock(mutex);
  streams[*stream] = std::move(made);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  std::shared_ptr<Stream> kept;
  {
    std::lock_guard<std::mutex> lock(mutex);
    kept = std::move(streams[stream]);
    streams.erase(stream);
  }
  kept->end();
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (stream->capture) return result(cudaErrorStreamCaptureUnsupported);
  return stream->wait(), cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (stream->capture) return result(cudaErrorInvalidValue);
  stream->capture = new Graph();
  stream->capture->origin = stream;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
  *graph = stream->capture;
  if (!*graph) return result(cudaErrorInvalidValue);
  std::lock_guard<std::mutex> lock(mutex);
  for (const auto &[one, _] : streams)
    if (one->capture == *graph) one->capture = nullptr;
  return (*graph)->unjoined.empty() ? cudaSuccess : result(cudaErrorStreamCaptureUnjoined);
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *ready, cudaGraph_t graph, unsigned long long) { return *ready = new Graph(*graph), cudaSuccess; }
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
  enqueue(stream, [graph] {
    for (const Work &work : graph->works) work();
  });
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return delete graph, cudaSuccess; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) { return delete graph, cudaSuccess; }

cudaError_t cudaEventCreate(cudaEvent_t *event) { return *event = new Event(), cudaSuccess; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned) { return cudaEventCreate(event); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  cudaEventSynchronize(event);
  return delete event, cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  event->graph = stream->capture, event->on = stream;
  if (stream->capture) return cudaSuccess; // orders works that the graph runs in order anyway
  const int64_t ticket = ++event->asked;
  enqueue(stream, [=] {
    event->nanoseconds = now();
    std::lock_guard<std::mutex> lock(event_mutex);
    event->done = ticket;
    event_done.notify_all();
  });
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) { return event->done >= event->asked ? cudaSuccess : cudaErrorNotReady; }
static void wait_for(Event *event, int64_t ticket) {
  std::unique_lock<std::mutex> lock(event_mutex);
  event_done.wait(lock, [&] { return event->done >= ticket; });
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) { return wait_for(event, event->asked), cudaSuccess; }
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  return *milliseconds = float(end->nanoseconds - begin->nanoseconds) * 1e-6f, cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (Graph *graph = event->graph) {
    if (stream == graph->origin)
      graph->unjoined.erase(event->on);
    else
      stream->capture = graph;
    return cudaSuccess;
  }
  enqueue(stream, [event, ticket = event->asked.load()] { wait_for(event, ticket); });
  return cudaSuccess;
}
