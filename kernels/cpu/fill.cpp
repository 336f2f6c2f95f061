// target = value, every element.

#include <algorithm>

#include "stream.h"

int32_t arbor_fill(arbor_stream *stream, int32_t type, void *target, int64_t count, double value) {
  using namespace arbor;
  const bool valid = given(target) && count >= 0;
  if (type == ARBOR_I32)
    return enqueue(stream, "arbor_fill", ARBOR_F32, valid, [=] { std::fill_n(static_cast<int32_t *>(target), count, int32_t(value)); });
  return enqueue(stream, "arbor_fill", type, valid, [=] { std::fill_n(static_cast<float *>(target), count, float(value)); });
}
