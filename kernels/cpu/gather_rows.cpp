// out[i] = from[rows[i]], rows of any type.

#include <cstring>

#include "pool.h"
#include "stream.h"

int32_t arbor_gather_rows(arbor_stream *stream, void *out, const void *from, const int32_t *rows, int64_t count, int64_t from_rows,
                          int64_t row_bytes) {
  using namespace arbor;
  const bool valid = (count == 0 || given(out, from, rows)) && count >= 0 && from_rows >= 0 && row_bytes > 0;
  return enqueue(stream, "arbor_gather_rows", ARBOR_F32, valid, [=] {
    for (int64_t i = 0; i < count; i++) require_index(rows[i], from_rows, "row");
    parallel_ranges(count, row_bytes / 4, [=](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++)
        std::memcpy(static_cast<char *>(out) + i * row_bytes, static_cast<const char *>(from) + rows[i] * row_bytes, size_t(row_bytes));
    });
  });
}
