// Rotates queries and keys by their position and stores keys and values in their slots; the gradient rotates back.

#include "lora_up.cuh"
#include "stream.cuh"

namespace arbor {
namespace {

struct Places {
  const int32_t *positions, *slots;
  const float *rope; // [positions, cos of half a head | sin]
  int64_t slot_count, position_count, heads, kv_heads, head_dim;
};

// A block a token: where its rotation and its slot are, or a fault.
__device__ __forceinline__ bool placed(const Places &p, int64_t t, int64_t &position, int64_t &slot, Fault *fault) {
  position = p.positions[t], slot = p.slots[t];
  const bool found = uint64_t(position) < uint64_t(p.position_count) && uint64_t(slot) < uint64_t(p.slot_count);
  if (!found && threadIdx.x == 0) {
    const bool bad_slot = uint64_t(slot) >= uint64_t(p.slot_count);
    report(fault, kFaultRope, bad_slot ? slot : position, bad_slot ? p.slot_count : p.position_count);
  }
  return found;
}

// Turns (a, b) by an angle.
__device__ __forceinline__ float2 turned(float a, float b, float cosine, float sine) {
  return make_float2(fmaf(a, cosine, -(b * sine)), fmaf(b, cosine, a * sine));
}

template <class T> __global__ void rope_store_kv(const T *qkv, T *q, T *k, T *v, Places p, Fault *fault) {
  const int64_t t = blockIdx.x;
  after_kernels_before();
  int64_t position, slot;
  if (!placed(p, t, position, slot, fault)) return;
  const int half = int(p.head_dim) / 2, heads = int(p.heads), kv_heads = int(p.kv_heads);
  const int64_t q_width = p.heads * p.head_dim, kv_width = p.kv_heads * p.head_dim;
  const T *row = qkv + t * (q_width + 2 * kv_width);
  const float *cosines = p.rope + position * p.head_dim, *sines = cosines + half;
  for (int i = threadIdx.x; i < (heads + kv_heads) * half; i += blockDim.x) {
    const int head = i / half, j = i % half;
    const T *from = row + head * p.head_dim;
    T *to = head < p.heads ? q + t * q_width + head * p.head_dim : k + slot * kv_width + (head - p.heads) * p.head_dim;
    const float2 pair = turned(to_float(from[j]), to_float(from[j + half]), cosines[j], sines[j]);
    to[j] = from_float<T>(pair.x), to[j + half] = from_float<T>(pair.y);
  }
  for (int64_t i = threadIdx.x; i < kv_width; i += blockDim.x) v[slot * kv_width + i] = row[q_width + kv_width + i];
}

constexpr int kThreads = 128;

// The same of decoding rows whose qkv waits for its adapters. A thread has the two values that turn together, of a head of queries, keys or values.
template <int kRank>
__global__ __launch_bounds__(kThreads) void finish_rope_store_kv(bf16 *qkv, bf16 *q, bf16 *k, bf16 *v, Places p, const __grid_constant__ Runs runs, Fault *fault) {
  extern __shared__ float shared[];
  const int half = int(p.head_dim) / 2, item = int(blockIdx.x) * kThreads + int(threadIdx.x), head = item / half, j = item % half;
  const int64_t q_width = p.heads * p.head_dim, kv_width = p.kv_heads * p.head_dim, first = head * p.head_dim + j, columns[] = {first, first + half};
  finish_rows<kRank>(qkv, q_width + 2 * kv_width, runs, columns, head < p.heads + 2 * p.kv_heads, shared, [&](int64_t row, const bf16 *pair) {
    int64_t position, slot;
    if (!placed(p, row, position, slot, fault)) return;
    const int64_t in_k = first - q_width, in_v = in_k - kv_width;
    if (in_v >= 0) {
      v[slot * kv_width + in_v] = pair[0], v[slot * kv_width + in_v + half] = pair[1];
      return;
    }
    bf16 *to = in_k < 0 ? q + row * q_width + first : k + slot * kv_width + in_k;
    const float *cosines = p.rope + position * p.head_dim, *sines = cosines + half;
    const float2 values = turned(to_float(pair[0]), to_float(pair[1]), cosines[j], sines[j]);
    to[0] = from_float<bf16>(values.x), to[half] = from_float<bf16>(values.y);
  });
}

template <class T> __global__ void rope_store_kv_backward(T *dqkv, const T *dq, const float *dk, const float *dv, Places p, Fault *fault) {
  const int64_t t = blockIdx.x;
  int64_t position, slot;
  if (!placed(p, t, position, slot, fault)) return;
  const int half = int(p.head_dim) / 2, heads = int(p.heads), kv_heads = int(p.kv_heads);
  const int64_t q_width = p.heads * p.head_dim, kv_width = p.kv_heads * p.head_dim;
  T *row = dqkv + t * (q_width + 2 * kv_width);
  const float *cosines = p.rope + position * p.head_dim, *sines = cosines + half;
  for (int i = threadIdx.x; i < (heads + kv_heads) * half; i += blockDim.x) {
    const int head = i / half, j = i % half;
    float a, b;
    if (head < p.heads) {
      const T *from = dq + t * q_width + head * p.head_dim;
      a = to_float(from[j]), b = to_float(from[j + half]);
    } else {
      const float *from = dk + slot * kv_width + (head - p.heads) * p.head_dim;
      a = from[j], b = from[j + half];
    }
    row[head * p.head_dim + j] = from_float<T>(a * cosines[j] + b * sines[j]);
    row[head * p.head_dim + j + half] = from_float<T>(b * cosines[j] - a * sines[j]);
  }
  for (int64_t i = threadIdx.x; i < kv_width; i += blockDim.x) row[q_width + kv_width + i] = from_float<T>(dv[slot * kv_width + i]);
}

bool sizes_valid(int64_t tokens, const Places &p) {
  return given(p.positions, p.slots, p.rope) && tokens >= 0 && p.slot_count >= 0 && p.position_count >= 0 && p.heads > 0 && p.kv_heads > 0 &&
         p.head_dim > 0 && p.head_dim % 2 == 0;
}

} // namespace
} // namespace arbor

int32_t arbor_rope_store_kv(arbor_stream *stream, int32_t type, const void *qkv, void *q, void *k, void *v, const int32_t *positions,
                            const int32_t *slots, const float *rope, int64_t tokens, int64_t slot_count, int64_t position_count, int64_t heads,
                            int64_t kv_heads, int64_t head_dim) {
  using namespace arbor;
  const Places places{positions, slots, rope, slot_count, position_count, heads, kv_heads, head_dim};
  Pending pending;
  const bool waits = stream && take_pending(stream, qkv, type, tokens, (heads + 2 * kv_heads) * head_dim, pending);
  ARBOR_ENTER(stream, "arbor_rope_store_kv", given(qkv, q, k, v) && sizes_valid(tokens, places));
  if (tokens == 0) return ARBOR_OK;
  if (waits) {
    const Runs runs = pending.runs(true);
    const dim3 grid(unsigned(ceil_div((heads + 2 * kv_heads) * head_dim / 2, kThreads)), unsigned(runs.groups));
    by_rank(pending.rank(), [&](auto rank) {
      launch_after(finish_rope_store_kv<decltype(rank)::value>, grid, kThreads, runs.shared_bytes(), cuda_stream(stream), static_cast<bf16 *>(pending.y),
                   static_cast<bf16 *>(q), static_cast<bf16 *>(k), static_cast<bf16 *>(v), places, runs, fault_of(stream));
    });
    return launched(stream, "arbor_rope_store_kv");
  }
  ARBOR_BY_TYPE(type, "arbor_rope_store_kv", {
    launch_after(rope_store_kv<T>, dim3(unsigned(tokens)), 256, 0, cuda_stream(stream), static_cast<const T *>(qkv), static_cast<T *>(q),
                 static_cast<T *>(k), static_cast<T *>(v), places, fault_of(stream));
  });
  return launched(stream, "arbor_rope_store_kv");
}

int32_t arbor_rope_store_kv_backward(arbor_stream *stream, int32_t type, void *dqkv, const void *dq, const void *dk, const void *dv,
                                     const int32_t *positions, const int32_t *slots, const float *rope, int64_t tokens, int64_t slot_count,
                                     int64_t position_count, int64_t heads, int64_t kv_heads, int64_t head_dim) {
  using namespace arbor;
  const Places places{positions, slots, rope, slot_count, position_count, heads, kv_heads, head_dim};
  ARBOR_ENTER(stream, "arbor_rope_store_kv_backward", given(dqkv, dq, dk, dv) && sizes_valid(tokens, places));
  if (tokens == 0) return ARBOR_OK;
  ARBOR_BY_TYPE(type, "arbor_rope_store_kv_backward", {
    rope_store_kv_backward<<<unsigned(tokens), 256, 0, cuda_stream(stream)>>>(static_cast<T *>(dqkv), static_cast<const T *>(dq),
                                                                              static_cast<const float *>(dk), static_cast<const float *>(dv), places,
                                                                              fault_of(stream));
  });
  return launched(stream, "arbor_rope_store_kv_backward");
}
