// Frozen weights lie row by row, [out, in], in f32 or bf16: cuBLASLt wants no other layout. Those in bf16 that adapters come to have room for them.

#include <algorithm>

#include "convert.cuh"
#include "lora.cuh"
#include "stream.cuh"

namespace arbor {

namespace {

__global__ void to_bf16_kernel(bf16 *to, const float *from, int64_t count, float scale) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) to[i] = __float2bfloat16_rn(from[i] * scale);
}

// Rows of `width`, from one to the next `ld`.
__global__ void rows_to_bf16(bf16 *to, const float *from, int64_t count, int64_t width, int64_t ld) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) to[i / width * ld + i % width] = __float2bfloat16_rn(from[i]);
}

struct ThreeArrays {
  bf16 *to[3];
  const float *from[3];
  int64_t end[3]; // running counts
};

__global__ void three_to_bf16(ThreeArrays arrays) {
  int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  const int which = i < arrays.end[0] ? 0 : i < arrays.end[1] ? 1 : 2;
  if (i >= arrays.end[2]) return;
  if (which > 0) i -= arrays.end[which - 1];
  arrays.to[which][i] = __float2bfloat16_rn(arrays.from[which][i]);
}

} // namespace

void to_bf16_three(arbor_stream *stream, void *const *to, const float *const *from, const int64_t *counts) {
  ThreeArrays arrays;
  int64_t end = 0;
  for (int i = 0; i < 3; i++) {
    arrays.to[i] = static_cast<bf16 *>(to[i]), arrays.from[i] = from[i];
    arrays.end[i] = end += counts[i];
  }
  if (end > 0) three_to_bf16<<<unsigned(ceil_div(end, 256)), 256, 0, cuda_stream(stream)>>>(arrays);
}

void to_bf16(arbor_stream *stream, void *to, const float *from, int64_t count, float scale) {
  if (count > 0) to_bf16_kernel<<<unsigned(ceil_div(count, 256)), 256, 0, cuda_stream(stream)>>>(static_cast<bf16 *>(to), from, count, scale);
}

const void *weight_as(arbor_stream *stream, int32_t type, const void *weight, int32_t weight_type, int64_t count, int number) {
  if (type == weight_type || (type == ARBOR_BF16 && weight_type == ARBOR_BF16_ROOMY)) return weight;
  if (type != ARBOR_BF16 || weight_type != ARBOR_F32) {
    unsupported("weight", "f32 activations need f32 weights");
    return nullptr;
  }
  void *copy = scratch(stream, number, count * 2);
  if (copy) to_bf16(stream, copy, static_cast<const float *>(weight), count);
  return copy;
}

} // namespace arbor

int32_t arbor_best_precision(void) { return ARBOR_BF16; }

int32_t arbor_weight_type(int32_t precision, int32_t adapted) { return precision == ARBOR_BF16 && adapted ? ARBOR_BF16_ROOMY : precision; }

int64_t arbor_weight_bytes(int32_t weight_type, int64_t out, int64_t in) {
  if (weight_type == ARBOR_BF16_ROOMY) return (out + arbor::kSpareRows) * arbor::weight_ld(weight_type, in) * 2;
  if (weight_type != ARBOR_F32 && weight_type != ARBOR_BF16) return arbor::unsupported("arbor_weight_bytes", "weights are f32 or bf16");
  return out * in * (weight_type == ARBOR_BF16 ? 2 : 4);
}

int32_t arbor_prepare_weight(arbor_stream *stream, void *to, int32_t weight_type, const float *from, int64_t out, int64_t in) {
  using namespace arbor;
  ARBOR_ENTER(stream, "arbor_prepare_weight", given(to, from) && out > 0 && in > 0);
  const cudaStream_t s = cuda_stream(stream);
  if (weight_type == ARBOR_F32) {
    cudaMemcpyAsync(to, from, size_t(out * in) * 4, cudaMemcpyHostToDevice, s);
    return launched(stream, "arbor_prepare_weight");
  }
  if (weight_type != ARBOR_BF16 && weight_type != ARBOR_BF16_ROOMY) return unsupported("arbor_prepare_weight", "weights are f32 or bf16");
  constexpr int64_t kPiece = 16 << 20; // values staged at a time, about
  const int64_t ld = weight_ld(weight_type, in), rows = std::min(out, std::max(kPiece / in, int64_t(1)));
  float *staged = static_cast<float *>(scratch(stream, 1, rows * in * 4));
  if (!staged) return ARBOR_OUT_OF_MEMORY;
  if (weight_type == ARBOR_BF16_ROOMY) cudaMemsetAsync(to, 0, size_t(arbor_weight_bytes(weight_type, out, in)), s);
  for (int64_t row = 0; row < out; row += rows) {
    const int64_t count = std::min(rows, out - row) * in;
    cudaMemcpyAsync(staged, from + row * in, size_t(count) * 4, cudaMemcpyHostToDevice, s);
    rows_to_bf16<<<unsigned(ceil_div(count, 256)), 256, 0, s>>>(static_cast<bf16 *>(to) + row * ld, staged, count, in, ld);
  }
  return launched(stream, "arbor_prepare_weight");
}
