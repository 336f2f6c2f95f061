// An in-order stream on a GPU. Ops launch and return; arbor_wait is the only call that waits. Host data goes through pinned memory, so that an
// upload may return at once; a capture is a CUDA graph.

#include "stream.cuh"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>

#include "errors.cuh"
#include "lora_up.cuh"
#include "memory.cuh"
#include "products.cuh"
#include "transfers.cuh"

namespace {

thread_local int current_device = -1;

} // namespace

struct arbor_capture {
  cudaGraphExec_t graph = nullptr;
};

struct arbor_stream {
  int device = 0;
  int processors = 0;
  bool warpgroups = false, in_order = false;
  cudaStream_t stream = nullptr, beside = nullptr;
  cudaEvent_t forked = nullptr, joined = nullptr;
  arbor::Fault *fault = nullptr;
  arbor::StreamMemory memory;
  std::unique_ptr<arbor::Products, arbor::DeleteProducts> products;
  arbor::Pending pending;
  bool recording = false;
  arbor::Transfers transfers;
};

namespace arbor {

bool programmatic_launches = true;

int32_t on_device(arbor_stream *stream, const char *op) {
  if (!stream) return fail(ARBOR_BAD_ARGUMENT, std::string(op) + ": no stream");
  if (current_device == stream->device) return ARBOR_OK;
  if (cudaSetDevice(stream->device) != cudaSuccess) return fail(ARBOR_FAILED, std::string(op) + ": the device is gone");
  current_device = stream->device;
  return ARBOR_OK;
}

int32_t enter(arbor_stream *stream, const char *op) {
  const int32_t code = on_device(stream, op);
  if (code == ARBOR_OK) finish_pending(stream);
  return code;
}

Pending &pending_of(arbor_stream *stream) { return stream->pending; }

int32_t launched(arbor_stream *, const char *op) {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? int32_t(ARBOR_OK) : failed(op, error);
}

cudaStream_t cuda_stream(arbor_stream *stream) { return stream->stream; }
Fault *fault_of(arbor_stream *stream) { return stream->fault; }
int32_t multiprocessors(arbor_stream *stream) { return stream->processors; }
bool has_warpgroups(arbor_stream *stream) { return stream->warpgroups; }
bool decodes_in_order(arbor_stream *stream) { return stream->in_order; }
Products &products_of(arbor_stream *stream) { return *stream->products; }
bool is_recording(arbor_stream *stream) { return stream->recording; }

void *scratch(arbor_stream *stream, int number, int64_t bytes) {
  return stream->memory.take(number, bytes, stream->recording);
}

ScratchNote &scratch_note(arbor_stream *stream, int number) { return stream->memory.note(number); }

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
  stream->transfers.close();
  if (stream->fault) cudaFreeHost(stream->fault);
  stream->products.reset();
  stream->memory.close();
  for (cudaEvent_t event : {stream->forked, stream->joined})
    if (event) cudaEventDestroy(event);
  for (cudaStream_t one : {stream->stream, stream->beside})
    if (one) cudaStreamDestroy(one);
  delete stream;
}

} // namespace

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
  const char *exact = std::getenv("ARBOR_CUDA_EXACT");
  const std::string order = exact ? exact : "";
  if (exact && order != "0" && order != "1") return not_opened("ARBOR_CUDA_EXACT is '" + order + "'; it may be 0 or 1, or not set: 1 where it costs next to nothing");
  if (cudaSetDevice(device) != cudaSuccess) return not_opened(arbor::explain(cudaGetLastError()) + " Is another process holding the GPU?");
  current_device = device;
  auto *stream = new arbor_stream();
  stream->device = device;
  cudaDeviceProp properties{};
  cudaError_t error = cudaGetDeviceProperties(&properties, device);
  stream->processors = properties.multiProcessorCount;
#ifdef ARBOR_WARPGROUPS
  stream->warpgroups = properties.major == 9 && properties.minor == 0;
#endif
  stream->in_order = exact ? order == "1" : stream->warpgroups; // measured there alone
  if (error == cudaSuccess && properties.major < 9) arbor::programmatic_launches = false;
  if (error == cudaSuccess) error = cudaStreamCreateWithFlags(&stream->stream, cudaStreamNonBlocking);
  if (error == cudaSuccess) error = cudaStreamCreateWithFlags(&stream->beside, cudaStreamNonBlocking);
  for (cudaEvent_t *event : {&stream->forked, &stream->joined})
    if (error == cudaSuccess) error = cudaEventCreateWithFlags(event, cudaEventDisableTiming);
  if (error == cudaSuccess) error = cudaHostAlloc(reinterpret_cast<void **>(&stream->fault), sizeof(arbor::Fault), cudaHostAllocMapped);
  if (error == cudaSuccess) error = stream->transfers.open();
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
  const cudaError_t error = stream->transfers.upload(to, from, bytes, stream->stream);
  return error == cudaSuccess ? int32_t(ARBOR_OK) : failed("arbor_upload", error);
}

int64_t arbor_download(arbor_stream *stream, void *to, const void *from, int64_t bytes) {
  if (stream && stream->recording) return fail(ARBOR_UNSUPPORTED, "arbor_download: a capture can't wait");
  ARBOR_ENTER(stream, "arbor_download", given(to, from) && bytes >= 0);
  int64_t ticket = 0;
  const cudaError_t error = stream->transfers.download(to, from, bytes, stream->stream, ticket);
  return error == cudaSuccess ? ticket : failed("arbor_download", error);
}

int32_t arbor_wait(arbor_stream *stream, int64_t ticket, int64_t microseconds) {
  const int32_t entered = arbor::on_device(stream, "arbor_wait"); // perhaps on another thread than ops
  if (entered != ARBOR_OK) return entered;
  using Clock = std::chrono::steady_clock;
  const auto started = Clock::now();
  for (;;) {
    if (stream->transfers.delivered() >= ticket) return ARBOR_OK;
    const auto waited = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - started).count();
    if (microseconds >= 0 && waited >= microseconds) return ARBOR_BUSY;
    if (microseconds < 0 && waited > 200) std::this_thread::sleep_for(std::chrono::microseconds(30));
  }
}

int32_t arbor_status(arbor_stream *stream, int64_t) {
  ARBOR_ENTER(stream, "arbor_status", true);
  const cudaError_t error = stream->transfers.failure();
  if (error != cudaSuccess) return fail(ARBOR_FAILED, arbor::explain(error));
  volatile arbor::Fault *fault = stream->fault;
  if (fault->set == 0) return ARBOR_OK;
  const arbor::Fault copy{1, fault->op, fault->value, fault->limit};
  fault->set = 0;
  return fail(ARBOR_FAILED, arbor::text_of(copy));
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
