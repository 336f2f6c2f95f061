// What an op file needs of the stream: check, enqueue, fail.
#pragma once

#include <cstdint>
#include <functional>
#include <new>
#include <stdexcept>
#include <string>

#include "../arbor_ops.h"

namespace arbor {

// Keeps the text for arbor_last_error on this thread and returns the code.
int32_t fail(arbor_code code, const std::string &text);

// Hands `work` to the stream's thread, or to the recording. `cleanup` is never recorded and never skipped. Throws std::bad_alloc only.
void submit(arbor_stream *stream, const char *op, std::function<void()> work, bool cleanup = false);

// The one way in for ops: a check of the arguments, then the queue.
template <class Work> int32_t enqueue(arbor_stream *stream, const char *op, int32_t type, bool valid, Work &&work) noexcept {
  try {
    if (!stream) return fail(ARBOR_BAD_ARGUMENT, std::string(op) + ": no stream");
    if (type != ARBOR_F32) return fail(ARBOR_UNSUPPORTED, std::string(op) + ": this library computes in f32 only");
    if (!valid) return fail(ARBOR_BAD_ARGUMENT, std::string(op) + ": a pointer is null or a size is out of range");
    submit(stream, op, std::forward<Work>(work));
    return ARBOR_OK;
  } catch (const std::bad_alloc &) {
    return ARBOR_OUT_OF_MEMORY;
  }
}

template <class... Pointers> bool given(const Pointers *...pointers) { return (... && (pointers != nullptr)); }

// For checks on the stream's thread: an index that lies in a device tensor.
inline void require_index(int64_t index, int64_t count, const char *what) {
  if (uint64_t(index) >= uint64_t(count))
    throw std::out_of_range(std::string(what) + " " + std::to_string(index) + " is outside 0 to " + std::to_string(count - 1));
}

} // namespace arbor
