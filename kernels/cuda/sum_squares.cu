// out[0] += Σ x². Each block sums a part, the last one to end adds the parts in order.

#include "stream.cuh"

namespace arbor {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kPart = 4096; // values a block takes

__global__ void sum_squares(float *out, const float *x, int64_t count, double *parts, int32_t *arrived) {
  __shared__ double sums[kThreads];
  __shared__ bool last;
  const int64_t end = min(count, (int64_t(blockIdx.x) + 1) * kPart);
  double sum = 0;
  for (int64_t i = int64_t(blockIdx.x) * kPart + threadIdx.x; i < end; i += kThreads) sum += double(x[i]) * double(x[i]);
  sums[threadIdx.x] = sum;
  for (int half = kThreads / 2; half > 0; half >>= 1) {
    __syncthreads();
    if (int(threadIdx.x) < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  if (threadIdx.x == 0) {
    parts[blockIdx.x] = sums[0];
    __threadfence();
    last = atomicAdd(arrived, 1) == int(gridDim.x) - 1;
  }
  __syncthreads();
  if (!last) return;
  __threadfence();
  double total = 0;
  for (unsigned b = threadIdx.x; b < gridDim.x; b += kThreads) total += reinterpret_cast<volatile double *>(parts)[b];
  sums[threadIdx.x] = total;
  for (int half = kThreads / 2; half > 0; half >>= 1) {
    __syncthreads();
    if (int(threadIdx.x) < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  if (threadIdx.x != 0) return;
  out[0] += float(sums[0]);
  *arrived = 0;
}

} // namespace
} // namespace arbor

int32_t arbor_sum_squares(arbor_stream *stream, float *out, const float *x, int64_t count) {
  using namespace arbor;
  ARBOR_ENTER(stream, "arbor_sum_squares", given(out, x) && count >= 0);
  if (count == 0) return ARBOR_OK;
  const int64_t blocks = ceil_div(count, kPart);
  auto *parts = static_cast<double *>(scratch(stream, 1, blocks * 8));
  int32_t *arrived = zeroed_counters(stream, 1);
  if (!parts || !arrived) return ARBOR_OUT_OF_MEMORY;
  sum_squares<<<unsigned(blocks), kThreads, 0, cuda_stream(stream)>>>(out, x, count, parts, arrived);
  return launched(stream, "arbor_sum_squares");
}
