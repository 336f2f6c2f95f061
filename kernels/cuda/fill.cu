// Every element becomes one value.

#include "stream.cuh"

namespace arbor {
namespace {

template <class Value> __global__ void fill_kernel(Value *target, int64_t count, Value value) {
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) target[i] = value;
}

template <class Value> void fill(arbor_stream *stream, void *target, int64_t count, Value value) {
  const int64_t blocks = ceil_div(count, 1024);
  fill_kernel<<<unsigned(blocks < 4096 ? blocks : 4096), 256, 0, cuda_stream(stream)>>>(static_cast<Value *>(target), count, value);
}

} // namespace
} // namespace arbor

int32_t arbor_fill(arbor_stream *stream, int32_t type, void *target, int64_t count, double value) {
  using namespace arbor;
  ARBOR_ENTER(stream, "arbor_fill", given(target) && count >= 0);
  if (count == 0) return ARBOR_OK;
  if (value == 0) {
    cudaMemsetAsync(target, 0, size_t(count) * (type == ARBOR_BF16 ? 2 : 4), cuda_stream(stream));
    return launched(stream, "arbor_fill");
  }
  switch (type) {
  case ARBOR_F32: fill(stream, target, count, float(value)); break;
  case ARBOR_I32: fill(stream, target, count, int32_t(value)); break;
  case ARBOR_BF16: fill(stream, target, count, __float2bfloat16_rn(float(value))); break;
  default: return unsupported("arbor_fill", "this type of element");
  }
  return launched(stream, "arbor_fill");
}
