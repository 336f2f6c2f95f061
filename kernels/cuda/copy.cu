// Bytes from one place of the device to another.

#include "stream.cuh"

int32_t arbor_copy(arbor_stream *stream, void *to, const void *from, int64_t bytes) {
  using namespace arbor;
  ARBOR_ENTER(stream, "arbor_copy", given(to, from) && bytes >= 0);
  if (bytes > 0) cudaMemcpyAsync(to, from, size_t(bytes), cudaMemcpyDeviceToDevice, cuda_stream(stream));
  return launched(stream, "arbor_copy");
}
