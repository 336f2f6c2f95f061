// What an op file needs of the stream: check, launch, fail, scratch memory, and a word for what kernels find wrong.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <array>
#include <cstdint>
#include <string>

#include "../arbor_ops.h"
#include "instructions.cuh"

typedef __nv_bfloat16 bf16;

namespace arbor {

// Keeps the text for arbor_last_error on this thread and returns the code.
int32_t fail(arbor_code code, const std::string &text);

// What a kernel found wrong, in pinned memory that the host reads: the first of its kind wins, arbor_status reports and clears it.
struct Fault {
  int32_t set; // 0 = none
  int32_t op;  // FaultOp
  long long value, limit;
};

enum FaultOp : int32_t { kFaultEmbed = 1, kFaultGather, kFaultRope, kFaultAttention, kFaultLogprob, kFaultSample };

// The stream's handle, the device it lives on, where kernels report faults.
cudaStream_t cuda_stream(arbor_stream *stream);
Fault *fault_of(arbor_stream *stream);
int32_t multiprocessors(arbor_stream *stream);
// Whether four warps can multiply together, tiles come by the copy engine, and this library was built for it (compute capability 9.0).
bool has_warpgroups(arbor_stream *stream);
// Whether rows that decode are summed in the order of prompts and of training, so that a token's log-probability is the same there and there, to the bit
// (ARBOR_CUDA_EXACT when the stream was opened; not set: where there are warpgroups).
bool decodes_in_order(arbor_stream *stream);

// Memory for the ops of this stream, valid until the next op takes scratch with the same number: 0 to kScratches - 1. It only grows, and what a
// capture recorded stays alive. Null (and an error kept) when there is none. Contents are whatever was there.
constexpr int kScratches = 10;
void *scratch(arbor_stream *stream, int number, int64_t bytes);
// What the one op that takes this number has noted of what it left there, for its next call; zeros when the memory is new.
using ScratchNote = std::array<int64_t, 12>;
ScratchNote &scratch_note(arbor_stream *stream, int number);
// Counters that are zero before the first use and that every user leaves at zero.
int32_t *zeroed_counters(arbor_stream *stream, int64_t count);

// A stream beside the stream: what is launched there after `fork` runs beside what the stream is given until `join`.
cudaStream_t fork(arbor_stream *stream);
void join(arbor_stream *stream);

// Checks a launch; ARBOR_OK or ARBOR_FAILED with the op's name.
int32_t launched(arbor_stream *stream, const char *op);
int32_t bad_argument(const char *op);
int32_t unsupported(const char *op, const char *what);

template <class... Pointers> bool given(const Pointers *...pointers) { return (... && (pointers != nullptr)); }

// Makes the stream's device the current one of this thread, and finishes what the op before has left undone (lora_up.cuh); every function of the
// contract begins with it.
int32_t enter(arbor_stream *stream, const char *op);

#define ARBOR_ENTER(stream, op, valid)                                                                                            \
  do {                                                                                                                            \
    const int32_t entered_ = ::arbor::enter(stream, op);                                                                          \
    if (entered_ != ARBOR_OK) return entered_;                                                                                    \
    if (!(valid)) return ::arbor::bad_argument(op);                                                                               \
  } while (0)

// Calls `code` with T bound to float or bf16, by the type of the activations.
#define ARBOR_BY_TYPE(type, op, ...)                                                                                              \
  do {                                                                                                                            \
    if ((type) == ARBOR_F32) {                                                                                                    \
      using T = float;                                                                                                            \
      __VA_ARGS__;                                                                                                                \
    } else if ((type) == ARBOR_BF16) {                                                                                            \
      using T = bf16;                                                                                                             \
      __VA_ARGS__;                                                                                                                \
    } else                                                                                                                        \
      return ::arbor::unsupported(op, "activations are f32 or bf16");                                                             \
  } while (0)

// Whether the devices in use know programmatic dependent launch (compute capability 9.0 and newer).
extern bool programmatic_launches;

// Launches a kernel that may be made ready while the one before it ends (programmatic dependent launch): what it reads of others, or writes that
// others read, it touches after `after_kernels_before()` only.
template <class... Parameters, class... Arguments>
void launch_after(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared, cudaStream_t stream, Arguments... arguments) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid, config.blockDim = block, config.dynamicSmemBytes = shared, config.stream = stream;
  config.attrs = &attribute, config.numAttrs = programmatic_launches ? 1 : 0;
  cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
}

// Allows a kernel this much shared memory; false when the device has less.
template <class Kernel> bool allow_shared(Kernel *kernel, size_t bytes) {
  if (bytes <= 48 << 10 || cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)) == cudaSuccess) return true;
  cudaGetLastError(); // it has been told
  return false;
}

__host__ __device__ inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// ---- device -------------------------------------------------------------------------------------------------------------------

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __bfloat162float(x); }
template <class T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x) { return __float2bfloat16_rn(x); }

__device__ __forceinline__ void report(Fault *fault, int32_t op, long long value, long long limit) {
  if (atomicCAS_system(&fault->set, 0, 1) != 0) return;
  fault->op = op;
  fault->value = value;
  fault->limit = limit;
  __threadfence_system();
}

// Sum over the lanes of a warp, in a fixed order; every lane has it.
template <class T> __device__ __forceinline__ T warp_sum(T x) {
  for (int offset = 16; offset > 0; offset >>= 1) x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}
__device__ __forceinline__ float warp_max(float x) {
  for (int offset = 16; offset > 0; offset >>= 1) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, offset));
  return x;
}

// Sum over a block of up to 1024 threads, in a fixed order; every thread has it. `shared` holds 33 floats.
__device__ __forceinline__ float block_sum(float x, float *shared) {
  x = warp_sum(x);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = (blockDim.x + 31) >> 5;
  __syncthreads();
  if (lane == 0) shared[warp] = x;
  __syncthreads();
  if (warp == 0) {
    float y = lane < warps ? shared[lane] : 0.0f;
    y = warp_sum(y);
    if (lane == 0) shared[32] = y;
  }
  __syncthreads();
  return shared[32];
}

// 16 bytes of activations at once.
template <class T> struct alignas(16) Pack {
  static constexpr int kCount = 16 / sizeof(T);
  T at[kCount];
};

template <class T> __device__ __forceinline__ Pack<T> load_pack(const T *from) {
  Pack<T> pack;
  *reinterpret_cast<uint4 *>(&pack) = *reinterpret_cast<const uint4 *>(from);
  return pack;
}
template <class T> __device__ __forceinline__ void store_pack(T *to, const Pack<T> &pack) {
  *reinterpret_cast<uint4 *>(to) = *reinterpret_cast<const uint4 *>(&pack);
}

} // namespace arbor
