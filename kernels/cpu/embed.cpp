// out[t] = table[ids[t]], and its gradient.

#include <algorithm>
#include <cstring>

#include "gemm.h"
#include "gemm_bf16.h"
#include "pool.h"
#include "stream.h"

namespace {

// Row `id` of a table in panels: element k lies 16 floats after element k - 1.
void row_from_panels(float *out, const float *table, int64_t id, int64_t hidden) {
  const float *column = table + id / arbor::kPanel * arbor::kPanel * hidden + id % arbor::kPanel;
  for (int64_t k = 0; k < hidden; k++) out[k] = column[k * arbor::kPanel];
}

// The same of a table in bf16: inputs 2i and 2i + 1 share 32 bits, pair i lies 16 of them after pair i - 1.
void row_from_bf16_panels(float *out, const uint32_t *table, int64_t id, int64_t hidden) {
  const uint32_t *column = table + id / arbor::kPanel * arbor::kPanel * arbor::bf16_pairs(hidden) + id % arbor::kPanel;
  for (int64_t k = 0; k < hidden; k++) {
    const uint32_t pair = column[k / 2 * arbor::kPanel];
    out[k] = arbor::from_bf16(uint16_t(k % 2 == 0 ? pair : pair >> 16));
  }
}

} // namespace

int32_t arbor_embed(arbor_stream *stream, int32_t type, void *out, const void *table, int32_t table_type, const int32_t *ids,
                    int64_t tokens, int64_t vocab, int64_t hidden) {
  using namespace arbor;
  return enqueue(stream, "arbor_embed", type, given(out, table, ids) && tokens >= 0 && vocab > 0 && hidden > 0, [=] {
    for (int64_t t = 0; t < tokens; t++) require_index(ids[t], vocab, "token id");
    const float *rows = static_cast<const float *>(table);
    parallel_ranges(tokens, hidden, [=](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; t++) {
        float *to = static_cast<float *>(out) + t * hidden;
        if (table_type == ARBOR_BF16_PANELS)
          row_from_bf16_panels(to, static_cast<const uint32_t *>(table), ids[t], hidden);
        else if (table_type == ARBOR_F32_PANELS)
          row_from_panels(to, rows, ids[t], hidden);
        else
          std::memcpy(to, rows + ids[t] * hidden, size_t(hidden) * sizeof(float));
      }
    });
  });
}

int32_t arbor_embed_backward(arbor_stream *stream, int32_t type, float *d_table, const void *d_out, const int32_t *ids, int64_t tokens,
                             int64_t vocab, int64_t hidden) {
  using namespace arbor;
  return enqueue(stream, "arbor_embed_backward", type, given(d_table, d_out, ids) && tokens >= 0 && vocab > 0 && hidden > 0, [=] {
    for (int64_t t = 0; t < tokens; t++) require_index(ids[t], vocab, "token id");
    const float *from = static_cast<const float *>(d_out);
    // Threads share out the columns by cache lines of 16, so that tokens with the same id are always added in order.
    constexpr int64_t kLine = 16;
    parallel_ranges((hidden + kLine - 1) / kLine, kLine * tokens, [=](int64_t begin, int64_t end) {
      const int64_t last = std::min(hidden, end * kLine);
      for (int64_t t = 0; t < tokens; t++)
        for (int64_t k = begin * kLine; k < last; k++) d_table[ids[t] * hidden + k] += from[t * hidden + k];
    });
  });
}
