// to = from; the two may overlap.

#include <cstring>

#include "stream.h"

int32_t arbor_copy(arbor_stream *stream, void *to, const void *from, int64_t bytes) {
  using namespace arbor;
  return enqueue(stream, "arbor_copy", ARBOR_F32, given(to, from) && bytes >= 0, [=] { std::memmove(to, from, size_t(bytes)); });
}
