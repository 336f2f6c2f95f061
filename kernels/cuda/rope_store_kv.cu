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

constexpr int kThreads = 64;

// The same of decoding rows whose qkv waits for its adapters: a warp has 32 pairs of values that turn together, of a head of queries, keys or values.
struct Turned {
  bf16 *q, *k, *v;
  const Places &p;
  Fault *fault;
  int64_t first; // column of qkv that the thread's eight pairs begin at
  int j;         // the same in its head
  int64_t slot[2];
  bool found[2];
  Pack<float> cosines[2][2], sines[2][2]; // of 4 and 4

  __device__ __forceinline__ void begin(int below, int64_t row) {
    int64_t position;
    found[below] = placed(p, row, position, slot[below], fault);
    if (!found[below]) return;
    const float *at = p.rope + position * p.head_dim + j;
#pragma unroll
    for (int four = 0; four < 2; four++)
      cosines[below][four] = load_pack(at + four * 4), sines[below][four] = load_pack(at + p.head_dim / 2 + four * 4);
  }
  __device__ __forceinline__ void end(int below, int64_t row, const Pack<bf16> (&pair)[2]) {
    if (!found[below]) return;
    const int64_t q_width = p.heads * p.head_dim, kv_width = p.kv_heads * p.head_dim, half = p.head_dim / 2, in_k = first - q_width, in_v = in_k - kv_width;
    bf16 *to = in_v >= 0 ? v + slot[below] * kv_width + in_v : in_k >= 0 ? k + slot[below] * kv_width + in_k : q + row * q_width + first;
    Pack<bf16> low = pair[0], high = pair[1];
    if (in_v < 0)
#pragma unroll
      for (int i = 0; i < 8; i++) {
        const float2 values = turned(to_float(pair[0].at[i]), to_float(pair[1].at[i]), cosines[below][i >> 2].at[i & 3], sines[below][i >> 2].at[i & 3]);
        low.at[i] = from_float<bf16>(values.x), high.at[i] = from_float<bf16>(values.y);
      }
    store_pack(to, low), store_pack(to + half, high);
  }
};

template <int kTerms, class Runs> __global__ __launch_bounds__(kThreads) void finish_rope_store_kv(bf16 *q, bf16 *k, bf16 *v, Places p, const __grid_constant__ Runs runs, Fault *fault) {
  const int half = int(p.head_dim) / 2, item = (int(blockIdx.x) * (kThreads / 32) + int(threadIdx.x) / 32) * kUpColumns, head = item / half;
  if (head >= p.heads + 2 * p.kv_heads) return;
  const int64_t column = head * p.head_dim + item % half, first[] = {column, column + half};
  const int own = int(threadIdx.x & 3) * 8;
  Turned each{q, k, v, p, fault, column + own, item % half + own};
  finish_columns<kTerms>(runs, int32_t(blockIdx.y), first, each);
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
  const bool fits = head_dim % (2 * kUpColumns) == 0 && (reinterpret_cast<uint64_t>(q) | reinterpret_cast<uint64_t>(k) | reinterpret_cast<uint64_t>(v)) % 16 == 0;
  const bool waits = stream && fits && take_pending(stream, qkv, type, tokens, (heads + 2 * kv_heads) * head_dim, pending);
  ARBOR_ENTER(stream, "arbor_rope_store_kv", given(qkv, q, k, v) && sizes_valid(tokens, places));
  if (tokens == 0) return ARBOR_OK;
  if (waits) {
    const Runs runs = pending.runs();
    const dim3 grid(unsigned(ceil_div((heads + 2 * kv_heads) * head_dim / 2, kThreads)), unsigned(runs.groups));
    with_runs(runs, [&](const auto &some, auto terms) {
      launch_after(finish_rope_store_kv<terms(), std::decay_t<decltype(some)>>, grid, kThreads, 0, cuda_stream(stream), static_cast<bf16 *>(q),
                   static_cast<bf16 *>(k), static_cast<bf16 *>(v), places, some, fault_of(stream));
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
