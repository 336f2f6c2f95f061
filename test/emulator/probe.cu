// Kernels that are right or wrong in one way each, for emulator.test.ts. The argument names the one that runs.

#include <cuda_runtime.h>

#include <cstdio>
#include <cstring>

// Each thread adds its neighbour's number to its own; `barrier`: as it must be.
__global__ void neighbours(int *out, bool barrier) {
  __shared__ int numbers[64];
  const int i = int(threadIdx.x);
  numbers[i] = i;
  if (barrier) __syncthreads();
  out[i] = i + numbers[(i + 1) % 64];
}

// The same within a warp, where a shuffle is no barrier for memory.
__global__ void neighbours_by_shuffle(int *out) {
  __shared__ int numbers[32];
  const int i = int(threadIdx.x);
  numbers[i] = i;
  out[i] = numbers[(i + 1) % 32] + __shfl_sync(0xffffffffu, i, 0);
}

// One waits for its warp, the others for the block.
__global__ void wait_apart() {
  if (threadIdx.x == 0)
    __syncwarp();
  else
    __syncthreads();
}

__global__ void lanes_part() {
  if (threadIdx.x % 2)
    __shfl_sync(0xffffffffu, 1, 0);
  else
    __ballot_sync(0xffffffffu, 1);
}

int main(int, char **arguments) {
  cudaStream_t stream = nullptr;
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  int *out = nullptr, numbers[64] = {};
  cudaMalloc(&out, sizeof numbers);
  const auto is = [&](const char *name) { return std::strcmp(arguments[1], name) == 0; };
  if (is("well")) neighbours<<<1, 64, 0, stream>>>(out, true);
  if (is("no barrier")) neighbours<<<1, 64, 0, stream>>>(out, false);
  if (is("shuffle")) neighbours_by_shuffle<<<1, 32, 0, stream>>>(out);
  if (is("waits apart")) wait_apart<<<1, 64, 0, stream>>>();
  if (is("lanes part")) lanes_part<<<1, 32, 0, stream>>>();
  if (is("too many")) neighbours<<<1, 2048, 0, stream>>>(out, true);
  if (cudaGetLastError() == cudaErrorInvalidConfiguration) std::fprintf(stderr, "refused\n");
  cudaMemcpyAsync(numbers, out, sizeof numbers, cudaMemcpyDeviceToHost, stream);
  cudaStreamSynchronize(stream);
  std::printf("%d %d\n", numbers[0], numbers[63]);
}
