// A linear of few rows in one launch, adapters and bias included. 8 warps share 16 rows of the weight and divide k among them; weights go straight
// from memory into the fragments of mma.m16n8k16, four steps ahead of their use. k is dealt to the fragments in an order of our own (a thread
// takes 8 neighbours, 16 bytes), the same for both operands, so a sum over k sees each product once. The order of a row's sums is fixed by the
// weight's shape alone.
//
// x aᵀ is the same product with other rows: the first blocks compute it, the others add its part when they are done with their own sums. They wait
// for it by a counter; blocks start in order, so those waited for are running.

#include "decode_linear.cuh"

namespace arbor {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps;
constexpr int kRows = 16;   // of the weight, a block's
constexpr int kStep = 32;   // of k, a warp's at a time
constexpr int kAhead = 4;   // steps that are loaded before they are used

struct Work {
  const bf16 *x; // [tokens, in]
  const bf16 *weight; // [out, in]
  const float *bias;
  void *y; // [tokens, out]
  int64_t tokens, in, out;
  int32_t adapter_blocks;
  int32_t *counters; // two for each tile of tokens
  Adapters adapters;
};

__device__ __forceinline__ uint4 load_once(const void *from) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(from));
  return v;
}

__device__ __forceinline__ uint32_t pair(float low, float high) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t *>(&both);
}

__device__ __forceinline__ void mma(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Eight values of one row of the weight (bf16) or of an adapter's a (f32, rounded when used).
template <class W> struct Eight;
template <> struct Eight<bf16> {
  uint4 v;
  __device__ __forceinline__ void load(const bf16 *from) { v = load_once(from); }
  __device__ __forceinline__ void clear() { v = make_uint4(0, 0, 0, 0); }
  __device__ __forceinline__ uint4 values() const { return v; }
};
template <> struct Eight<float> {
  float4 low, high;
  __device__ __forceinline__ void load(const float *from) {
    low = *reinterpret_cast<const float4 *>(from);
    high = *reinterpret_cast<const float4 *>(from + 4);
  }
  __device__ __forceinline__ void clear() { low = high = make_float4(0, 0, 0, 0); }
  __device__ __forceinline__ uint4 values() const { return make_uint4(pair(low.x, low.y), pair(low.z, low.w), pair(high.x, high.y), pair(high.z, high.w)); }
};

// Sums of 16 rows of `weight` (from `row` on, `rows` of them there) with kTiles · 8 tokens, this warp's share of k.
template <int kTiles, class W>
__device__ __forceinline__ void accumulate(float (&sums)[kTiles][4], const W *weight, int64_t row, int64_t rows, const bf16 *x, int64_t token,
                                           int64_t tokens, int64_t in) {
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, group = lane >> 2, quad = lane & 3;
  const bool upper_there = row + group < rows, lower_there = row + group + 8 < rows;
  const W *upper = weight + (row + group) * in, *lower = upper + 8 * in;
  const bf16 *column = x + (token + group) * in;
  const auto load = [&](Eight<W> &up, Eight<W> &low, int64_t k) {
    up.clear(), low.clear();
    if (k >= in) return;
    if (upper_there) up.load(upper + k);
    if (lower_there) low.load(lower + k);
  };
  Eight<W> up[kAhead], low[kAhead];
  const int64_t first = warp * kStep + quad * 8, stride = kWarps * kStep;
#pragma unroll
  for (int s = 0; s < kAhead; s++) load(up[s], low[s], first + s * stride);
  for (int64_t start = first; start - quad * 8 < in; start += kAhead * stride) {
#pragma unroll
    for (int s = 0; s < kAhead; s++) {
      const int64_t k = start + s * stride;
      if (k - quad * 8 >= in) break; // the same for the whole warp
      const uint4 a = up[s].values(), b = low[s].values();
      load(up[s], low[s], k + kAhead * stride);
#pragma unroll
      for (int tile = 0; tile < kTiles; tile++) {
        uint4 v = make_uint4(0, 0, 0, 0);
        if (k < in && token + tile * 8 + group < tokens) v = *reinterpret_cast<const uint4 *>(column + int64_t(tile) * 8 * in + k);
        mma(sums[tile], a.x, b.x, a.y, b.y, v.x, v.y);
        mma(sums[tile], a.z, b.z, a.w, b.w, v.z, v.w);
      }
    }
  }
}

// The warps' shares, added in order: partial[row][token] of all 8 warps. Returns the sum for (row, token).
template <int kTiles> struct Partials {
  static constexpr int kTokens = 8 * kTiles;
  float at[kWarps][kRows][kTokens + 1];

  __device__ __forceinline__ void store(const float (&sums)[kTiles][4]) {
    const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, group = lane >> 2, quad = lane & 3;
#pragma unroll
    for (int tile = 0; tile < kTiles; tile++) {
      at[warp][group][tile * 8 + quad * 2] = sums[tile][0];
      at[warp][group][tile * 8 + quad * 2 + 1] = sums[tile][1];
      at[warp][group + 8][tile * 8 + quad * 2] = sums[tile][2];
      at[warp][group + 8][tile * 8 + quad * 2 + 1] = sums[tile][3];
    }
  }
  __device__ __forceinline__ float sum(int row, int token) const {
    float total = 0;
#pragma unroll
    for (int warp = 0; warp < kWarps; warp++) total += at[warp][row][token];
    return total;
  }
};

// The adapter and its 16 rows that the block computes x aᵀ for.
__device__ __forceinline__ const Adapter &adapter_of_block(const Adapters &adapters, int32_t block, int64_t &row) {
  int32_t i = 0;
  for (;; i++) {
    const int32_t blocks = int32_t(ceil_div(adapters.at[i].width(), kRows));
    if (block < blocks || i + 1 == adapters.count) break;
    block -= blocks;
  }
  row = int64_t(block) * kRows;
  return adapters.at[i];
}

template <int kTiles> __device__ __forceinline__ void adapter_block(const Work &work, Partials<kTiles> &partials, int64_t token) {
  int64_t row;
  const Adapter &adapter = adapter_of_block(work.adapters, int32_t(blockIdx.x), row);
  const int64_t width = adapter.width(), begin = adapter.row_start, end = begin + adapter.row_count;
  if (token + 8 * kTiles > begin && token < end) {
    float sums[kTiles][4] = {};
    accumulate<kTiles>(sums, adapter.a, row, width, work.x, token, work.tokens, work.in);
    partials.store(sums);
    __syncthreads();
    for (int i = threadIdx.x; i < kRows * 8 * kTiles; i += kThreads) {
      const int64_t r = row + i % kRows, t = token + i / kRows;
      if (r < width && t >= begin && t < end) adapter.xa[(t - begin) * width + r] = partials.sum(i % kRows, i / kRows);
    }
  }
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) atomicAdd(work.counters + 2 * blockIdx.y, 1);
}

__device__ __forceinline__ void wait_for_adapters(const Work &work) {
  if (threadIdx.x == 0) {
    const volatile int32_t *arrived = work.counters + 2 * blockIdx.y;
    while (*arrived < work.adapter_blocks) __nanosleep(40);
    __threadfence();
  }
  __syncthreads();
}

// Whoever leaves last puts the counters back to zero.
__device__ __forceinline__ void leave(const Work &work) {
  __syncthreads();
  if (threadIdx.x != 0) return;
  int32_t *counters = work.counters + 2 * blockIdx.y;
  if (atomicAdd(counters + 1, 1) + 1 < int32_t(gridDim.x)) return;
  counters[0] = 0;
  counters[1] = 0;
}

__device__ __forceinline__ float low_rank(const Adapter &adapter, int64_t token, int64_t row) {
  const float *xa = adapter.xa + (token - adapter.row_start) * adapter.width() + adapter.part_of(row) * adapter.rank;
  const float *b = adapter.b + row * adapter.rank;
  float sum = 0;
  for (int r = 0; r < adapter.rank; r++) sum += __ldcg(xa + r) * b[r];
  return adapter.scale * sum;
}

template <int kTiles, class Y> __global__ __launch_bounds__(kThreads) void decode_linear_kernel(const __grid_constant__ Work work) {
  __shared__ Partials<kTiles> partials;
  const int64_t token = int64_t(blockIdx.y) * 8 * kTiles;
  if (int32_t(blockIdx.x) < work.adapter_blocks) {
    adapter_block<kTiles>(work, partials, token);
    leave(work);
    return;
  }
  const int64_t row = int64_t(int32_t(blockIdx.x) - work.adapter_blocks) * kRows;
  float sums[kTiles][4] = {};
  accumulate<kTiles>(sums, work.weight, row, work.out, work.x, token, work.tokens, work.in);
  partials.store(sums);
  if (work.adapter_blocks > 0)
    wait_for_adapters(work);
  else
    __syncthreads();
  Y *y = static_cast<Y *>(work.y);
  for (int i = threadIdx.x; i < kRows * 8 * kTiles; i += kThreads) {
    const int64_t o = row + i % kRows, t = token + i / kRows;
    if (o >= work.out || t >= work.tokens) continue;
    float value = partials.sum(i % kRows, i / kRows);
    if (work.bias) value += work.bias[o];
    for (int32_t a = 0; a < work.adapters.count; a++) {
      const Adapter &adapter = work.adapters.at[a];
      if (t >= adapter.row_start && t < adapter.row_start + adapter.row_count) value += low_rank(adapter, t, o);
    }
    y[t * work.out + o] = from_float<Y>(value);
  }
  if (work.adapter_blocks > 0) leave(work);
}

template <int kTiles> void launch(arbor_stream *stream, const Work &work, int32_t y_type) {
  const dim3 grid(unsigned(work.adapter_blocks + ceil_div(work.out, kRows)), unsigned(ceil_div(work.tokens, 8 * kTiles)));
  if (y_type == ARBOR_BF16)
    decode_linear_kernel<kTiles, bf16><<<grid, kThreads, 0, cuda_stream(stream)>>>(work);
  else
    decode_linear_kernel<kTiles, float><<<grid, kThreads, 0, cuda_stream(stream)>>>(work);
}

} // namespace

bool decode_linear_fits(int32_t type, int32_t weight_type, int64_t in, const void *x, const void *weight, const Adapters &adapters) {
  uint64_t aligned = reinterpret_cast<uint64_t>(x) | reinterpret_cast<uint64_t>(weight) | uint64_t(in) * 2;
  for (int32_t i = 0; i < adapters.count; i++) aligned |= reinterpret_cast<uint64_t>(adapters.at[i].a);
  return type == ARBOR_BF16 && weight_type == ARBOR_BF16 && aligned % 16 == 0;
}

int32_t decode_linear(arbor_stream *stream, void *y, int32_t y_type, const void *x, const void *weight, const float *bias, int64_t tokens, int64_t in,
                      int64_t out, const Adapters &adapters) {
  if (tokens == 0) return ARBOR_OK;
  Work work{};
  work.x = static_cast<const bf16 *>(x), work.weight = static_cast<const bf16 *>(weight), work.bias = bias, work.y = y;
  work.tokens = tokens, work.in = in, work.out = out, work.adapters = adapters;
  for (int32_t i = 0; i < adapters.count; i++) work.adapter_blocks += int32_t(ceil_div(adapters.at[i].width(), kRows));
  work.counters = zeroed_counters(stream, 2 * ceil_div(tokens, 8));
  if (!work.counters) return ARBOR_OUT_OF_MEMORY;
  if (tokens <= 8)
    launch<1>(stream, work, y_type);
  else if (tokens <= 16)
    launch<2>(stream, work, y_type);
  else if (tokens <= 32)
    launch<4>(stream, work, y_type);
  else
    launch<8>(stream, work, y_type);
  return launched(stream, "arbor_linear");
}

} // namespace arbor
