// An in-order stream on a GPU. Ops launch and return; arbor_wait is the only call that waits. Host data goes through pinned memory, so that an
// upload may return at once; a capture is a CUDA graph.

#include "stream.cuh"

#include <chrono>
#include <cstdio>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "memory.cuh"
#include "products.cuh"

namespace {

thread_local std::string last_error;
thread_local int current_device = -1;

constexpr int64_t kRingSector = 4 << 20; // of pinned memory that uploads pass through
constexpr int kRingSectors = 4;
constexpr int64_t kSlot = 256 << 10; // a download up to this size has a pinned slot and does not hold the caller up

struct Download {
  int64_t ticket;
  cudaEvent_t done;
  void *slot; // null: the bytes are at `to` already
  void *to;
  size_t bytes;
};

} // namespace

struct arbor_capture {
  cudaGraphExec_t graph = nullptr;
};

struct arbor_stream {
  int device = 0;
  int processors = 0;
  cudaStream_t stream = nullptr, beside = nullptr;
  cudaEvent_t forked = nullptr, joined = nullptr;
  arbor::Fault *fault = nullptr;
  arbor::StreamMemory memory;
  std::unique_ptr<arbor::Products, arbor::DeleteProducts> products;
  bool recording = false;

  std::mutex mutex; // of what follows: arbor_wait may run on another thread
  char *ring = nullptr;
  int64_t ring_at = 0, ring_sector = 0;
  cudaEvent_t left[kRingSectors] = {}; // recorded when uploads leave a sector
  std::deque<Download> downloads;
  std::vector<void *> free_slots;
  std::vector<cudaEvent_t> free_events;
  int64_t asked = 0, finished = 0;
  std::string failure;
};

namespace arbor {

bool programmatic_launches = true;

int32_t fail(arbor_code code, const std::string &text) {
  last_error = text;
  return code;
}

int32_t bad_argument(const char *op) { return fail(ARBOR_BAD_ARGUMENT, std::string(op) + ": a pointer is null or a size is out of range"); }

int32_t unsupported(const char *op, const char *what) { return fail(ARBOR_UNSUPPORTED, std::string(op) + ": " + what); }

int32_t enter(arbor_stream *stream, const char *op) {
  if (!stream) return fail(ARBOR_BAD_ARGUMENT, std::string(op) + ": no stream");
  if (current_device == stream->device) return ARBOR_OK;
  if (cudaSetDevice(stream->device) != cudaSuccess) return fail(ARBOR_FAILED, std::string(op) + ": the device is gone");
  current_device = stream->device;
  return ARBOR_OK;
}

// What a person can do about an error of the driver.
static std::string explain(cudaError_t error) {
  std::string text = cudaGetErrorString(error);
  switch (error) {
  case cudaErrorIllegalAddress:
  case cudaErrorLaunchFailure:
  case cudaErrorAssert:
  case cudaErrorECCUncorrectable:
  case cudaErrorUnknown:
    return text + ". The device can't go on in this process: start the server again; runs resume from their checkpoints.";
  case cudaErrorNoKernelImageForDevice:
    return text + ". The library was built for other GPUs: delete ~/.arbor/native and start again.";
  case cudaErrorInsufficientDriver:
    return text + ". Update the NVIDIA driver, or build with an older CUDA toolkit.";
  default:
    return text;
  }
}

static int32_t failed(const char *op, cudaError_t error) {
  return fail(error == cudaErrorMemoryAllocation ? ARBOR_OUT_OF_MEMORY : ARBOR_FAILED, std::string(op) + ": " + explain(error));
}

int32_t launched(arbor_stream *, const char *op) {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? int32_t(ARBOR_OK) : failed(op, error);
}

cudaStream_t cuda_stream(arbor_stream *stream) { return stream->stream; }
Fault *fault_of(arbor_stream *stream) { return stream->fault; }
int32_t multiprocessors(arbor_stream *stream) { return stream->processors; }
Products &products_of(arbor_stream *stream) { return *stream->products; }
bool is_recording(arbor_stream *stream) { return stream->recording; }

void *scratch(arbor_stream *stream, int number, int64_t bytes) {
  if (stream->recording) stream->memory.keep(); // outgrown blocks may be part of this very capture
  return stream->memory.take(number, bytes);
}

int32_t *zeroed_counters(arbor_stream *stream, int64_t count) { return stream->memory.counters(count); }

cudaStream_t fork(arbor_stream *stream) {
  cudaEventRecord(stream->forked, stream->stream);
  cudaStreamWaitEvent(stream->beside, stream->forked, 0);
  return stream->beside;
}

void join(arbor_stream *stream) {
  cudaEventRecord(stream->joined, stream->beside);
  cudaStreamWaitEvent(stream->stream, stream->joined, 0);
}

static const char *fault_text(const Fault &fault, char *text, size_t size) {
  const char *what = "";
  switch (fault.op) {
  case kFaultEmbed: what = "arbor_embed: token id"; break;
  case kFaultGather: what = "arbor_gather_rows: row"; break;
  case kFaultRope: what = "arbor_rope_store_kv: position or slot"; break;
  case kFaultAttention: what = "arbor_attention: a slot or segment's end"; break;
  case kFaultLogprob: what = "arbor_logprob: row or target"; break;
  case kFaultSample: what = "arbor_sample: place or token of the history"; break;
  }
  std::snprintf(text, size, "%s %lld is outside 0 to %lld", what, fault.value, fault.limit - 1);
  return text;
}

} // namespace arbor

using arbor::fail;
using arbor::failed;
using arbor::given;

namespace {

// A null stream that could not be opened.
arbor_stream *not_opened(const std::string &text) {
  fail(ARBOR_FAILED, "arbor_open: " + text);
  return nullptr;
}

void release(arbor_stream *stream) {
  for (Download &download : stream->downloads) {
    stream->free_events.push_back(download.done);
    if (download.slot) stream->free_slots.push_back(download.slot);
  }
  for (void *slot : stream->free_slots) cudaFreeHost(slot);
  for (cudaEvent_t event : stream->free_events) cudaEventDestroy(event);
  for (cudaEvent_t event : stream->left)
    if (event) cudaEventDestroy(event);
  if (stream->ring) cudaFreeHost(stream->ring);
  if (stream->fault) cudaFreeHost(stream->fault);
  stream->products.reset();
  stream->memory.close();
  for (cudaEvent_t event : {stream->forked, stream->joined})
    if (event) cudaEventDestroy(event);
  for (cudaStream_t one : {stream->stream, stream->beside})
    if (one) cudaStreamDestroy(one);
  delete stream;
}

// A place in the ring for the next upload. Entering a sector again waits until the copies that were last made from it are through.
char *ring_place(arbor_stream *stream, int64_t bytes) {
  const int64_t aligned = (bytes + 63) / 64 * 64;
  if (stream->ring_at + aligned > kRingSector) {
    cudaEventRecord(stream->left[stream->ring_sector], stream->stream);
    stream->ring_sector = (stream->ring_sector + 1) % kRingSectors;
    cudaEventSynchronize(stream->left[stream->ring_sector]);
    stream->ring_at = 0;
  }
  char *place = stream->ring + stream->ring_sector * kRingSector + stream->ring_at;
  stream->ring_at += aligned;
  return place;
}

cudaEvent_t take_event(arbor_stream *stream) {
  cudaEvent_t event = nullptr;
  if (!stream->free_events.empty()) {
    event = stream->free_events.back();
    stream->free_events.pop_back();
  } else
    cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
  return event;
}

void *take_slot(arbor_stream *stream) {
  void *slot = nullptr;
  if (!stream->free_slots.empty()) {
    slot = stream->free_slots.back();
    stream->free_slots.pop_back();
  } else if (cudaMallocHost(&slot, kSlot) != cudaSuccess)
    slot = nullptr;
  return slot;
}

// Hands out every download that has arrived, in order. Holds the mutex.
void deliver(arbor_stream *stream) {
  while (!stream->downloads.empty()) {
    Download &next = stream->downloads.front();
    const cudaError_t state = cudaEventQuery(next.done);
    if (state == cudaErrorNotReady) return;
    if (state != cudaSuccess && stream->failure.empty()) stream->failure = arbor::explain(state);
    if (next.slot) {
      std::memcpy(next.to, next.slot, next.bytes);
      stream->free_slots.push_back(next.slot);
    }
    stream->free_events.push_back(next.done);
    stream->finished = next.ticket;
    stream->downloads.pop_front();
  }
}

} // namespace

const char *arbor_last_error(void) { return last_error.c_str(); }

const char *arbor_description(void) {
  static thread_local std::string text;
  int device = 0, driver = 0;
  cudaDeviceProp properties{};
  const cudaError_t error = cudaGetDevice(&device) == cudaSuccess ? cudaGetDeviceProperties(&properties, device) : cudaGetLastError();
  if (error != cudaSuccess) {
    text = "CUDA without a device: " + arbor::explain(error);
    return text.c_str();
  }
  cudaDriverGetVersion(&driver);
  char line[256];
  std::snprintf(line, sizeof line, "%s, %d multiprocessors, %.0f GiB, CUDA %d.%d, %s", properties.name, properties.multiProcessorCount,
                double(properties.totalGlobalMem) / (1 << 30), driver / 1000, driver % 1000 / 10, arbor::products_name().c_str());
  text = line;
  return text.c_str();
}

int32_t arbor_device_count(void) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  return error == cudaSuccess ? count : failed("arbor_device_count", error);
}

arbor_stream *arbor_open(int32_t device) {
  const int32_t count = arbor_device_count();
  if (count < 0) return nullptr;
  if (device < 0 || device >= count) return not_opened("this machine has GPUs 0 to " + std::to_string(count - 1) + ", not " + std::to_string(device));
  if (cudaSetDevice(device) != cudaSuccess) return not_opened(arbor::explain(cudaGetLastError()) + " Is another process holding the GPU?");
  current_device = device;
  auto *stream = new arbor_stream();
  stream->device = device;
  cudaDeviceProp properties{};
  cudaError_t error = cudaGetDeviceProperties(&properties, device);
  stream->processors = properties.multiProcessorCount;
  if (error == cudaSuccess && properties.major < 9) arbor::programmatic_launches = false;
  if (error == cudaSuccess) error = cudaStreamCreateWithFlags(&stream->stream, cudaStreamNonBlocking);
  if (error == cudaSuccess) error = cudaStreamCreateWithFlags(&stream->beside, cudaStreamNonBlocking);
  for (cudaEvent_t *event : {&stream->forked, &stream->joined})
    if (error == cudaSuccess) error = cudaEventCreateWithFlags(event, cudaEventDisableTiming);
  if (error == cudaSuccess) error = cudaHostAlloc(reinterpret_cast<void **>(&stream->fault), sizeof(arbor::Fault), cudaHostAllocMapped);
  if (error == cudaSuccess) error = cudaMallocHost(reinterpret_cast<void **>(&stream->ring), kRingSectors * kRingSector);
  for (cudaEvent_t &event : stream->left)
    if (error == cudaSuccess) error = cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
  if (error == cudaSuccess && properties.major < 8) {
    release(stream);
    return not_opened(std::string(properties.name) + " has compute capability " + std::to_string(properties.major) + "." +
                      std::to_string(properties.minor) + "; 8.0 or newer is needed (Ampere, Ada, Hopper, Blackwell)");
  }
  if (error != cudaSuccess) {
    release(stream);
    return not_opened(arbor::explain(error));
  }
  *stream->fault = {};
  std::string problem;
  stream->products = arbor::open_products(properties.l2CacheSize, problem);
  if (!stream->products) {
    release(stream);
    return not_opened(problem);
  }
  return stream;
}

int32_t arbor_close(arbor_stream *stream) {
  const int32_t entered = arbor::enter(stream, "arbor_close");
  if (entered != ARBOR_OK) return entered;
  cudaStreamSynchronize(stream->stream);
  release(stream);
  return ARBOR_OK;
}

void *arbor_alloc(arbor_stream *stream, int64_t bytes) {
  if (arbor::enter(stream, "arbor_alloc") != ARBOR_OK) return nullptr;
  void *memory = nullptr;
  const cudaError_t error = bytes > 0 ? cudaMalloc(&memory, size_t(bytes)) : cudaErrorMemoryAllocation;
  if (error == cudaSuccess) return memory;
  cudaGetLastError(); // an allocation that failed leaves the context well
  size_t free_bytes = 0, total = 0;
  cudaMemGetInfo(&free_bytes, &total);
  char text[160];
  std::snprintf(text, sizeof text, "arbor_alloc: no device memory for %.2f GiB; %.2f of %.2f GiB are free", double(bytes) / (1 << 30),
                double(free_bytes) / (1 << 30), double(total) / (1 << 30));
  fail(ARBOR_OUT_OF_MEMORY, text);
  return nullptr;
}

int32_t arbor_free(arbor_stream *stream, void *memory) {
  if (stream && arbor::enter(stream, "arbor_free") == ARBOR_OK) cudaStreamSynchronize(stream->stream);
  const cudaError_t error = cudaFree(memory);
  return error == cudaSuccess ? int32_t(ARBOR_OK) : failed("arbor_free", error);
}

int64_t arbor_memory(arbor_stream *stream, int32_t what) {
  ARBOR_ENTER(stream, "arbor_memory", what == 0 || what == 1);
  size_t free_bytes = 0, total = 0;
  const cudaError_t error = cudaMemGetInfo(&free_bytes, &total);
  if (error != cudaSuccess) return failed("arbor_memory", error);
  return int64_t(what == 0 ? free_bytes : total);
}

int32_t arbor_upload(arbor_stream *stream, void *to, const void *from, int64_t bytes) {
  if (!stream || !given(to, from) || bytes < 0) return fail(ARBOR_BAD_ARGUMENT, "arbor_upload: a pointer is null or a size is negative");
  if (stream->recording) return fail(ARBOR_UNSUPPORTED, "arbor_upload: host data can't be part of a capture; upload before the replay");
  ARBOR_ENTER(stream, "arbor_upload", true);
  if (bytes == 0) return ARBOR_OK;
  std::lock_guard<std::mutex> lock(stream->mutex);
  const void *source = from;
  // What is too large for the ring is staged by the driver, which returns when it has its own copy.
  if (bytes <= kRingSector / 4) source = std::memcpy(ring_place(stream, bytes), from, size_t(bytes));
  const cudaError_t error = cudaMemcpyAsync(to, source, size_t(bytes), cudaMemcpyHostToDevice, stream->stream);
  return error == cudaSuccess ? int32_t(ARBOR_OK) : failed("arbor_upload", error);
}

int64_t arbor_download(arbor_stream *stream, void *to, const void *from, int64_t bytes) {
  if (stream && stream->recording) return fail(ARBOR_UNSUPPORTED, "arbor_download: a capture can't wait");
  ARBOR_ENTER(stream, "arbor_download", given(to, from) && bytes >= 0);
  std::lock_guard<std::mutex> lock(stream->mutex);
  void *slot = bytes <= kSlot ? take_slot(stream) : nullptr;
  const cudaError_t error = cudaMemcpyAsync(slot ? slot : to, from, size_t(bytes), cudaMemcpyDeviceToHost, stream->stream);
  if (error != cudaSuccess) {
    if (slot) stream->free_slots.push_back(slot);
    return failed("arbor_download", error);
  }
  Download download{++stream->asked, take_event(stream), slot, to, size_t(bytes)};
  cudaEventRecord(download.done, stream->stream);
  stream->downloads.push_back(download);
  return download.ticket;
}

int32_t arbor_wait(arbor_stream *stream, int64_t ticket, int64_t microseconds) {
  ARBOR_ENTER(stream, "arbor_wait", true);
  using Clock = std::chrono::steady_clock;
  const auto started = Clock::now();
  for (;;) {
    {
      std::lock_guard<std::mutex> lock(stream->mutex);
      deliver(stream);
      if (stream->finished >= ticket) return ARBOR_OK;
    }
    const auto waited = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - started).count();
    if (microseconds >= 0 && waited >= microseconds) return ARBOR_BUSY;
    if (microseconds < 0 && waited > 200) std::this_thread::sleep_for(std::chrono::microseconds(30));
  }
}

int32_t arbor_status(arbor_stream *stream, int64_t) {
  ARBOR_ENTER(stream, "arbor_status", true);
  std::lock_guard<std::mutex> lock(stream->mutex);
  if (!stream->failure.empty()) return fail(ARBOR_FAILED, std::exchange(stream->failure, {}));
  volatile arbor::Fault *fault = stream->fault;
  if (fault->set == 0) return ARBOR_OK;
  arbor::Fault copy{1, fault->op, fault->value, fault->limit};
  fault->set = 0;
  char text[128];
  return fail(ARBOR_FAILED, arbor::fault_text(copy, text, sizeof text));
}

int32_t arbor_capture_begin(arbor_stream *stream) {
  ARBOR_ENTER(stream, "arbor_capture_begin", !stream->recording);
  // Relaxed: scratch memory may have to grow meanwhile.
  const cudaError_t error = cudaStreamBeginCapture(stream->stream, cudaStreamCaptureModeRelaxed);
  if (error != cudaSuccess) return failed("arbor_capture_begin", error);
  stream->recording = true;
  return ARBOR_OK;
}

arbor_capture *arbor_capture_end(arbor_stream *stream) {
  if (!stream || !stream->recording) {
    fail(ARBOR_BAD_ARGUMENT, "arbor_capture_end: nothing is being recorded");
    return nullptr;
  }
  arbor::enter(stream, "arbor_capture_end");
  stream->recording = false;
  stream->memory.keep(); // what was recorded points into it
  cudaGraph_t graph = nullptr;
  auto capture = std::make_unique<arbor_capture>();
  cudaError_t error = cudaStreamEndCapture(stream->stream, &graph);
  if (error == cudaSuccess) error = cudaGraphInstantiate(&capture->graph, graph, 0);
  if (graph) cudaGraphDestroy(graph);
  if (error == cudaSuccess) return capture.release();
  failed("arbor_capture_end", error);
  return nullptr;
}

int32_t arbor_replay(arbor_stream *stream, arbor_capture *capture) {
  ARBOR_ENTER(stream, "arbor_replay", given(capture));
  const cudaError_t error = cudaGraphLaunch(capture->graph, stream->stream);
  return error == cudaSuccess ? int32_t(ARBOR_OK) : failed("arbor_replay", error);
}

int32_t arbor_capture_free(arbor_stream *stream, arbor_capture *capture) {
  if (stream && arbor::enter(stream, "arbor_capture_free") == ARBOR_OK) cudaStreamSynchronize(stream->stream);
  if (capture && capture->graph) cudaGraphExecDestroy(capture->graph);
  delete capture;
  return ARBOR_OK;
}
