// A stream's scratch memory. It only grows; what a capture may point into stays alive until the stream ends, even when it is outgrown.
#pragma once

#include <algorithm>
#include <vector>

#include "stream.cuh"

namespace arbor {

class StreamMemory {
public:
  void *take(int number, int64_t bytes, bool recording) {
    Block &block = blocks_[number];
    if (bytes <= block.bytes) {
      block.recorded |= recording;
      return block.memory;
    }
    const int64_t wanted = bytes + std::min(bytes / 4, kMostSpare);
    void *memory = nullptr;
    if (cudaMalloc(&memory, size_t(wanted)) != cudaSuccess) {
      cudaGetLastError();
      fail(ARBOR_OUT_OF_MEMORY, "no device memory for " + std::to_string(wanted >> 20) + " MiB of scratch");
      return nullptr;
    }
    retire(block, recording);
    block = {memory, wanted, recording, {}};
    return memory;
  }

  ScratchNote &note(int number) { return blocks_[number].note; }

  int32_t *counters(int64_t count) {
    if (count <= counter_count_) return counters_;
    const int64_t wanted = count < 4096 ? 4096 : 2 * count;
    int32_t *memory = nullptr;
    if (cudaMalloc(reinterpret_cast<void **>(&memory), size_t(wanted) * 4) != cudaSuccess) {
      cudaGetLastError();
      fail(ARBOR_OUT_OF_MEMORY, "no device memory for counters");
      return nullptr;
    }
    zero(memory, wanted * 4);
    if (counters_) outgrown_.push_back(counters_);
    counters_ = memory;
    counter_count_ = wanted;
    return memory;
  }

  void close() {
    for (Block &block : blocks_) cudaFree(block.memory);
    for (void *memory : outgrown_) cudaFree(memory);
    cudaFree(counters_);
  }

private:
  // On a stream of its own: under a capture it would only be recorded.
  static void zero(void *memory, int64_t bytes) {
    cudaStream_t aside = nullptr;
    cudaStreamCreateWithFlags(&aside, cudaStreamNonBlocking);
    cudaMemsetAsync(memory, 0, size_t(bytes), aside);
    cudaStreamSynchronize(aside);
    cudaStreamDestroy(aside);
  }

  struct Block {
    void *memory = nullptr;
    int64_t bytes = 0;
    bool recorded = false; // a capture points into it
    ScratchNote note = {};
  };

  void retire(const Block &block, bool recording) {
    if (!block.memory) return;
    if (block.recorded || recording) // nothing is freed during a capture: it would wait for the device
      outgrown_.push_back(block.memory);
    else
      cudaFree(block.memory); // waits for the device
  }

  static constexpr int64_t kMostSpare = 32 << 20;

  Block blocks_[kScratches];
  std::vector<void *> outgrown_;
  int32_t *counters_ = nullptr;
  int64_t counter_count_ = 0;
};

bool is_recording(arbor_stream *stream);

} // namespace arbor
