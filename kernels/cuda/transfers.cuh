// Host data's way to the device and back, through pinned memory: an upload returns at once, a download when it is asked for again by its ticket.
#pragma once

#include <cstring>
#include <deque>
#include <mutex>
#include <utility>
#include <vector>

#include "stream.cuh"

namespace arbor {

// May be used from several threads: one waits while another enqueues.
class Transfers {
public:
  cudaError_t open() {
    cudaError_t error = cudaMallocHost(reinterpret_cast<void **>(&ring_), kSectors * kSector);
    for (cudaEvent_t &event : left_)
      if (error == cudaSuccess) error = cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    return error;
  }

  void close() {
    for (const Download &download : downloads_) recycle(download);
    for (void *slot : free_slots_) cudaFreeHost(slot);
    for (cudaEvent_t event : free_events_) cudaEventDestroy(event);
    for (cudaEvent_t event : left_)
      if (event) cudaEventDestroy(event);
    if (ring_) cudaFreeHost(ring_);
  }

  // `from` may change as soon as this returns.
  cudaError_t upload(void *to, const void *from, int64_t bytes, cudaStream_t stream) {
    std::lock_guard<std::mutex> lock(mutex_);
    const void *source = from;
    // What is too large for the ring is staged by the driver, which returns when it has its own copy.
    if (bytes <= kSector / 4) source = std::memcpy(ring_place(bytes, stream), from, size_t(bytes));
    return cudaMemcpyAsync(to, source, size_t(bytes), cudaMemcpyHostToDevice, stream);
  }

  // `to` is filled once `delivered` has reached the ticket.
  cudaError_t download(void *to, const void *from, int64_t bytes, cudaStream_t stream, int64_t &ticket) {
    std::lock_guard<std::mutex> lock(mutex_);
    void *slot = bytes <= kSlot ? take_slot() : nullptr;
    const cudaError_t error = cudaMemcpyAsync(slot ? slot : to, from, size_t(bytes), cudaMemcpyDeviceToHost, stream);
    if (error != cudaSuccess) {
      if (slot) free_slots_.push_back(slot);
      return error;
    }
    const Download download{++asked_, take_event(), slot, to, size_t(bytes)};
    cudaEventRecord(download.done, stream);
    downloads_.push_back(download);
    ticket = download.ticket;
    return cudaSuccess;
  }

  // Hands out every download that has arrived, in order; the last one's ticket.
  int64_t delivered() {
    std::lock_guard<std::mutex> lock(mutex_);
    while (!downloads_.empty()) {
      const Download &next = downloads_.front();
      const cudaError_t state = cudaEventQuery(next.done);
      if (state == cudaErrorNotReady) break;
      if (state != cudaSuccess && failure_ == cudaSuccess) failure_ = state;
      if (next.slot) std::memcpy(next.to, next.slot, next.bytes);
      recycle(next);
      finished_ = next.ticket;
      downloads_.pop_front();
    }
    return finished_;
  }

  // What went wrong before a download arrived, once.
  cudaError_t failure() {
    std::lock_guard<std::mutex> lock(mutex_);
    return std::exchange(failure_, cudaSuccess);
  }

private:
  static constexpr int64_t kSector = 4 << 20; // of the ring that uploads pass through
  static constexpr int kSectors = 4;
  static constexpr int64_t kSlot = 256 << 10; // a download up to this size has a pinned slot and does not hold the caller up

  struct Download {
    int64_t ticket;
    cudaEvent_t done;
    void *slot; // null: the bytes are at `to` already
    void *to;
    size_t bytes;
  };

  // A place in the ring. Entering a sector again waits until the copies that were last made from it are through.
  char *ring_place(int64_t bytes, cudaStream_t stream) {
    const int64_t aligned = ceil_div(bytes, 64) * 64;
    if (at_ + aligned > kSector) {
      cudaEventRecord(left_[sector_], stream);
      sector_ = (sector_ + 1) % kSectors;
      cudaEventSynchronize(left_[sector_]);
      at_ = 0;
    }
    char *place = ring_ + sector_ * kSector + at_;
    at_ += aligned;
    return place;
  }

  cudaEvent_t take_event() {
    cudaEvent_t event = nullptr;
    if (free_events_.empty()) return cudaEventCreateWithFlags(&event, cudaEventDisableTiming), event;
    event = free_events_.back();
    free_events_.pop_back();
    return event;
  }

  // Null when there is no more pinned memory.
  void *take_slot() {
    void *slot = nullptr;
    if (free_slots_.empty()) return cudaMallocHost(&slot, kSlot) == cudaSuccess ? slot : nullptr;
    slot = free_slots_.back();
    free_slots_.pop_back();
    return slot;
  }

  void recycle(const Download &download) {
    free_events_.push_back(download.done);
    if (download.slot) free_slots_.push_back(download.slot);
  }

  std::mutex mutex_;
  char *ring_ = nullptr;
  int64_t at_ = 0;
  int sector_ = 0;
  cudaEvent_t left_[kSectors] = {}; // recorded when uploads leave a sector
  std::deque<Download> downloads_;
  std::vector<void *> free_slots_;
  std::vector<cudaEvent_t> free_events_;
  int64_t asked_ = 0, finished_ = 0;
  cudaError_t failure_ = cudaSuccess;
};

} // namespace arbor
