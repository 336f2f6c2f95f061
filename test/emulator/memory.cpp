// The CUDA runtime's devices, errors and memory. Device memory is the host's, counted; fresh memory is not zero.

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

#include "runtime.h"

namespace emulator {
namespace {

constexpr size_t kTotal = size_t(4) << 30; // of device memory, each GPU's
constexpr size_t kFilled = 1 << 20;        // of a fresh allocation, with bytes that are no numbers

thread_local cudaError_t last = cudaSuccess;
thread_local int device = 0;

struct Allocation {
  size_t bytes;
  int device;
  bool host;
};
std::mutex mutex; // of what follows
std::map<const char *, Allocation> allocations;
std::map<int, size_t> used; // by each GPU

int device_count() {
  const char *wanted = std::getenv("ARBOR_EMULATED_GPUS");
  return wanted ? std::atoi(wanted) : 2;
}

cudaError_t allocate(void **memory, size_t bytes, bool host) {
  std::lock_guard<std::mutex> lock(mutex);
  if (!host && used[device] + bytes > kTotal) return result(cudaErrorMemoryAllocation);
  void *place = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (place == MAP_FAILED) return result(cudaErrorMemoryAllocation);
  std::memset(place, 0xff, std::min(bytes, kFilled));
  allocations[static_cast<char *>(place)] = {bytes, device, host};
  if (!host) used[device] += bytes;
  *memory = place;
  return cudaSuccess;
}

cudaError_t release(void *memory) {
  if (!memory) return cudaSuccess;
  wait_for_streams(); // as cudaFree does
  std::lock_guard<std::mutex> lock(mutex);
  const auto found = allocations.find(static_cast<char *>(memory));
  if (found == allocations.end()) return result(cudaErrorInvalidValue);
  if (!found->second.host) used[found->second.device] -= found->second.bytes;
  munmap(memory, found->second.bytes);
  allocations.erase(found);
  return cudaSuccess;
}

} // namespace

cudaError_t result(cudaError_t error) {
  if (error != cudaSuccess) last = error;
  return error;
}

bool is_known(const void *memory) { // the GPU's, or pinned
  std::lock_guard<std::mutex> lock(mutex);
  auto after = allocations.upper_bound(static_cast<const char *>(memory));
  if (after == allocations.begin()) return false;
  --after;
  return static_cast<const char *>(memory) < after->first + after->second.bytes;
}

} // namespace emulator

using namespace emulator;

const char *cudaGetErrorString(cudaError_t error) {
  switch (error) {
  case cudaSuccess: return "no error";
  case cudaErrorInvalidValue: return "invalid argument";
  case cudaErrorMemoryAllocation: return "out of memory";
  case cudaErrorInvalidConfiguration: return "invalid configuration argument";
  case cudaErrorInvalidDevice: return "invalid device ordinal";
  case cudaErrorStreamCaptureUnjoined: return "capture was not ended: a stream beside it was not joined";
  default: return "an error of the emulated GPU";
  }
}
cudaError_t cudaGetLastError() { return std::exchange(last, cudaSuccess); }
cudaError_t cudaGetDeviceCount(int *count) { return *count = device_count(), cudaSuccess; }
cudaError_t cudaGetDevice(int *current) { return *current = device, cudaSuccess; }
cudaError_t cudaSetDevice(int wanted) {
  if (wanted < 0 || wanted >= device_count()) return result(cudaErrorInvalidDevice);
  return device = wanted, cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int) {
  const char *const older = std::getenv("ARBOR_EMULATOR_CAPABILITY"); // 80: what Hopper alone can is not asked for
  const int capability = older ? std::atoi(older) : 90;
  *properties = {"emulated GPU", kTotal, capability / 10, capability % 10, 6, 1 << 20};
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int *version) { return *version = CUDART_VERSION, cudaSuccess; }

cudaError_t cudaMalloc(void **memory, size_t bytes) { return allocate(memory, bytes, false); }
cudaError_t cudaFree(void *memory) { return release(memory); }
cudaError_t cudaMallocHost(void **memory, size_t bytes) { return allocate(memory, bytes, true); }
cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned) { return allocate(memory, bytes, true); }
cudaError_t cudaFreeHost(void *memory) { return release(memory); }
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
  std::lock_guard<std::mutex> lock(mutex);
  *total = kTotal, *free_bytes = kTotal - used[device];
  return cudaSuccess;
}
