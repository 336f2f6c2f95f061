// out[i] = from[rows[i]], in words as wide as a row allows.

#include "stream.cuh"

namespace arbor {
namespace {

template <class Word>
__global__ void gather(Word *out, const Word *from, const int32_t *rows, int64_t from_rows, int64_t words, Fault *fault) {
  const int64_t i = blockIdx.x, row = rows[i];
  if (uint64_t(row) >= uint64_t(from_rows)) {
    if (threadIdx.x == 0) report(fault, kFaultGather, row, from_rows);
    return;
  }
  for (int64_t w = threadIdx.x; w < words; w += blockDim.x) out[i * words + w] = from[row * words + w];
}

template <class Word>
void launch(arbor_stream *stream, void *out, const void *from, const int32_t *rows, int64_t count, int64_t from_rows, int64_t row_bytes) {
  const int64_t words = row_bytes / int64_t(sizeof(Word));
  gather<<<unsigned(count), unsigned(words < 256 ? (words + 31) / 32 * 32 : 256), 0, cuda_stream(stream)>>>(
      static_cast<Word *>(out), static_cast<const Word *>(from), rows, from_rows, words, fault_of(stream));
}

} // namespace
} // namespace arbor

int32_t arbor_gather_rows(arbor_stream *stream, void *out, const void *from, const int32_t *rows, int64_t count, int64_t from_rows,
                          int64_t row_bytes) {
  using namespace arbor;
  ARBOR_ENTER(stream, "arbor_gather_rows", given(out, from, rows) && count >= 0 && from_rows >= 0 && row_bytes > 0 && row_bytes % 2 == 0);
  if (count == 0) return ARBOR_OK;
  const uint64_t aligned = reinterpret_cast<uint64_t>(out) | reinterpret_cast<uint64_t>(from) | uint64_t(row_bytes);
  if (aligned % 16 == 0)
    launch<uint4>(stream, out, from, rows, count, from_rows, row_bytes);
  else if (aligned % 4 == 0)
    launch<uint32_t>(stream, out, from, rows, count, from_rows, row_bytes);
  else
    launch<uint16_t>(stream, out, from, rows, count, from_rows, row_bytes);
  return launched(stream, "arbor_gather_rows");
}
