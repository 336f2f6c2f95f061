// Sums over rows: out[c] += Σ over rows of value(row, c). Rows go to 32 lanes by their number, the lanes' sums are added in order: the same bits
// every time.
#pragma once

#include "stream.cuh"

namespace arbor {

template <class Value> __global__ void add_rows_kernel(float *out, int64_t rows, int64_t columns, Value value) {
  __shared__ float sums[32][33];
  const int64_t column = int64_t(blockIdx.x) * 32 + threadIdx.x;
  float sum = 0;
  if (column < columns)
    for (int64_t row = threadIdx.y; row < rows; row += 32) sum += value(row, column);
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= columns) return;
  sum = out[column];
  for (int lane = 0; lane < 32; lane++) sum += sums[lane][threadIdx.x];
  out[column] = sum;
}

template <class Value> void add_rows(arbor_stream *stream, float *out, int64_t rows, int64_t columns, Value value) {
  add_rows_kernel<<<unsigned(ceil_div(columns, 32)), dim3(32, 32), 0, cuda_stream(stream)>>>(out, rows, columns, value);
}

} // namespace arbor
