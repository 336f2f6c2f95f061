// Rotates queries and keys by their position and stores keys and values in their slots; the gradient rotates back.

#include "lora_up.cuh"
#include "pack_values.cuh"
#include "stream.cuh"

namespace arbor {
namespace {

struct Places {
  const int32_t *positions, *slots;
  const float *rope; // [positions, cos of half a head | sin]
  int64_t slot_count, position_count, heads, kv_heads, head_dim;
};

// Where a token's rotation and its slot are, or a fault, told by its first thread.
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

// A column of qkv, and where it is in keys and values, if it is one of theirs.
struct Column {
  int64_t in_row, in_k, in_v;

  __device__ __forceinline__ Column(const Places &p, int64_t column)
      : in_row(column), in_k(column - p.heads * p.head_dim), in_v(in_k - p.kv_heads * p.head_dim) {}
  // Queries go to their token's row, keys and values to its slot.
  template <class T> __device__ __forceinline__ T *place(const Places &p, T *q, T *k, T *v, int64_t t, int64_t slot) const {
    const int64_t kv_width = p.kv_heads * p.head_dim;
    return in_v >= 0 ? v + slot * kv_width + in_v : in_k >= 0 ? k + slot * kv_width + in_k : q + t * p.heads * p.head_dim + in_row;
  }
};

// Some pairs that turn together: how far behind their first halves the second ones are, where they begin in their head and in qkv.
struct Pairs {
  int half, j;
  Column column;

  __device__ __forceinline__ Pairs(const Places &p, int item, int count)
      : half(int(p.head_dim) / 2), j(item % (half / count) * count), column(p, item / (half / count) * p.head_dim + j) {}
  __host__ __device__ static int64_t all(const Places &p, int count) { return (p.heads + 2 * p.kv_heads) * (p.head_dim / 2 / count); }
};

// Calls visit(pairs, token, position, slot) for this thread's pairs, once what the kernels before have written may be read. blockIdx.x and threadIdx.y count
// tokens, threadIdx.x the pairs of one: kCount first halves and as many second ones are a thread's at a time.
template <int kCount, class Visit> __device__ __forceinline__ void over_pairs(int64_t tokens, const Places &p, Fault *fault, const Visit &visit) {
  const int64_t t = int64_t(blockIdx.x) * blockDim.y + threadIdx.y;
  after_kernels_before();
  int64_t position, slot;
  if (t >= tokens || !placed(p, t, position, slot, fault)) return;
  for (int item = threadIdx.x; item < Pairs::all(p, kCount); item += blockDim.x) visit(Pairs(p, item, kCount), t, position, slot);
}

// Turns the pairs by the angle of a position, or back.
template <int kCount, bool kBack> __device__ __forceinline__ void turn(float *low, float *high, const Places &p, int64_t position, int j) {
  float cosines[kCount], sines[kCount];
  load_values<float, kCount>(cosines, p.rope + position * p.head_dim + j);
  load_values<float, kCount>(sines, p.rope + position * p.head_dim + p.head_dim / 2 + j);
#pragma unroll
  for (int i = 0; i < kCount; i++) {
    const float2 pair = turned(low[i], high[i], cosines[i], kBack ? -sines[i] : sines[i]);
    low[i] = pair.x, high[i] = pair.y;
  }
}

template <class T, int kCount> __global__ void rope_store_kv(const T *qkv, T *q, T *k, T *v, int64_t tokens, Places p, Fault *fault) {
  over_pairs<kCount>(tokens, p, fault, [&](const Pairs &pairs, int64_t t, int64_t position, int64_t slot) {
    const T *from = qkv + t * (p.heads + 2 * p.kv_heads) * p.head_dim + pairs.column.in_row;
    T *to = pairs.column.place(p, q, k, v, t, slot);
    float low[kCount], high[kCount];
    load_values<T, kCount>(low, from), load_values<T, kCount>(high, from + pairs.half);
    if (pairs.column.in_v < 0) turn<kCount, false>(low, high, p, position, pairs.j);
    store_values<T, kCount>(to, low), store_values<T, kCount>(to + pairs.half, high);
  });
}

constexpr int kTokenThreads = 256, kThreads = 64;

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
    const Column column(p, first);
    bf16 *to = column.place(p, q, k, v, row, slot[below]);
    Pack<bf16> low = pair[0], high = pair[1];
    if (column.in_v < 0)
#pragma unroll
      for (int i = 0; i < 8; i++) {
        const float2 values = turned(to_float(pair[0].at[i]), to_float(pair[1].at[i]), cosines[below][i >> 2].at[i & 3], sines[below][i >> 2].at[i & 3]);
        low.at[i] = from_float<bf16>(values.x), high.at[i] = from_float<bf16>(values.y);
      }
    store_pack(to, low), store_pack(to + p.head_dim / 2, high);
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

template <class T, int kCount>
__global__ void rope_store_kv_backward(T *dqkv, const T *dq, const float *dk, const float *dv, int64_t tokens, Places p, Fault *fault) {
  over_pairs<kCount>(tokens, p, fault, [&](const Pairs &pairs, int64_t t, int64_t position, int64_t slot) {
    T *to = dqkv + t * (p.heads + 2 * p.kv_heads) * p.head_dim + pairs.column.in_row;
    float low[kCount], high[kCount];
    if (pairs.column.in_k < 0) {
      const T *from = dq + t * p.heads * p.head_dim + pairs.column.in_row;
      load_values<T, kCount>(low, from), load_values<T, kCount>(high, from + pairs.half);
    } else {
      const float *none = nullptr, *from = pairs.column.place(p, none, dk, dv, t, slot);
      load_values<float, kCount>(low, from), load_values<float, kCount>(high, from + pairs.half);
    }
    if (pairs.column.in_v < 0) turn<kCount, true>(low, high, p, position, pairs.j);
    store_values<T, kCount>(to, low), store_values<T, kCount>(to + pairs.half, high);
  });
}

// Calls launch(wide, grid, block): wide where halves of heads are packs of 16 bytes, here and in every buffer.
template <class T, class Launch> void over_tokens(int64_t tokens, const Places &p, std::initializer_list<const void *> buffers, const Launch &launch) {
  uint64_t all = uint64_t(p.head_dim / 2) * sizeof(T);
  for (const void *buffer : buffers) all |= reinterpret_cast<uint64_t>(buffer);
  const bool wide = all % 16 == 0;
  const int64_t pairs = Pairs::all(p, wide ? Pack<T>::kCount : 1), across = pairs < kTokenThreads ? pairs : kTokenThreads, down = kTokenThreads / across;
  launch(wide, dim3(unsigned(ceil_div(tokens, down))), dim3(unsigned(across), unsigned(down)));
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
    over_tokens<T>(tokens, places, {qkv, q, k, v, rope}, [&](bool wide, dim3 grid, dim3 block) {
      launch_after(wide ? rope_store_kv<T, Pack<T>::kCount> : rope_store_kv<T, 1>, grid, block, 0, cuda_stream(stream), static_cast<const T *>(qkv),
                   static_cast<T *>(q), static_cast<T *>(k), static_cast<T *>(v), tokens, places, fault_of(stream));
    });
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
    over_tokens<T>(tokens, places, {dqkv, dq, dk, dv, rope}, [&](bool wide, dim3 grid, dim3 block) {
      launch_after(wide ? rope_store_kv_backward<T, Pack<T>::kCount> : rope_store_kv_backward<T, 1>, grid, block, 0, cuda_stream(stream),
                   static_cast<T *>(dqkv), static_cast<const T *>(dq), static_cast<const float *>(dk), static_cast<const float *>(dv), tokens, places,
                   fault_of(stream));
    });
  });
  return launched(stream, "arbor_rope_store_kv_backward");
}
