// Adapters of rows that decode, all adapters in two launches: x aᵀ beside the base's product, on a stream of its own; then scale xa bᵀ and the bias
// into its outputs. A row's bits depend on its own adapter's shape alone.
//
// x aᵀ: 8 warps share 16 rows of a and divide k among them; values go straight from memory into the fragments of mma.m16n8k16, four steps ahead of
// their use. k is dealt to the fragments in an order of our own (a thread takes 8 neighbours), the same for both operands, so a sum over k sees
// each product once.

#include "lora.cuh"

namespace arbor {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps;
constexpr int kRows = 16; // of a, a block's
constexpr int kStep = 32; // of k, a warp's at a time
constexpr int kAhead = 4; // steps that are loaded before they are used

__device__ __forceinline__ uint32_t pair(float low, float high) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t *>(&both);
}

__device__ __forceinline__ void mma(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Eight values of one row of a, rounded when used.
struct Eight {
  float4 low, high;
  __device__ __forceinline__ void load(const float *from) {
    low = *reinterpret_cast<const float4 *>(from);
    high = *reinterpret_cast<const float4 *>(from + 4);
  }
  __device__ __forceinline__ void clear() { low = high = make_float4(0, 0, 0, 0); }
  __device__ __forceinline__ uint4 values() const { return make_uint4(pair(low.x, low.y), pair(low.z, low.w), pair(high.x, high.y), pair(high.z, high.w)); }
};

// Sums of 16 rows of a (from `row` on, `rows` of them there) with kTiles · 8 tokens, this warp's share of k.
template <int kTiles>
__device__ __forceinline__ void accumulate(float (&sums)[kTiles][4], const float *a, int64_t row, int64_t rows, const bf16 *x, int64_t token,
                                           int64_t tokens, int64_t in) {
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, group = lane >> 2, quad = lane & 3;
  const bool upper_there = row + group < rows, lower_there = row + group + 8 < rows;
  const float *upper = a + (row + group) * in, *lower = upper + 8 * in;
  const bf16 *column = x + (token + group) * in;
  const auto load = [&](Eight &up, Eight &low, int64_t k) {
    up.clear(), low.clear();
    if (k >= in) return;
    if (upper_there) up.load(upper + k);
    if (lower_there) low.load(lower + k);
  };
  Eight up[kAhead], low[kAhead];
  const int64_t first = warp * kStep + quad * 8, stride = kWarps * kStep;
#pragma unroll
  for (int s = 0; s < kAhead; s++) load(up[s], low[s], first + s * stride);
  for (int64_t start = first; start - quad * 8 < in; start += kAhead * stride) {
#pragma unroll
    for (int s = 0; s < kAhead; s++) {
      const int64_t k = start + s * stride;
      if (k - quad * 8 >= in) break; // the same for the whole warp
      const uint4 u = up[s].values(), l = low[s].values();
      load(up[s], low[s], k + kAhead * stride);
#pragma unroll
      for (int tile = 0; tile < kTiles; tile++) {
        uint4 v = make_uint4(0, 0, 0, 0);
        if (k < in && token + tile * 8 + group < tokens) v = *reinterpret_cast<const uint4 *>(column + int64_t(tile) * 8 * in + k);
        mma(sums[tile], u.x, l.x, u.y, l.y, v.x, v.y);
        mma(sums[tile], u.z, l.z, u.w, l.w, v.z, v.w);
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

// The adapter and its 16 rows that a block computes.
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

template <int kTiles>
__global__ __launch_bounds__(kThreads) void project_down(const bf16 *x, int64_t tokens, int64_t in, const __grid_constant__ Adapters adapters) {
  __shared__ Partials<kTiles> partials;
  const int64_t token = int64_t(blockIdx.y) * 8 * kTiles;
  int64_t row;
  const Adapter &adapter = adapter_of_block(adapters, int32_t(blockIdx.x), row);
  const int64_t width = adapter.width(), begin = adapter.row_start, end = begin + adapter.row_count;
  if (token + 8 * kTiles <= begin || token >= end) return;
  float sums[kTiles][4] = {};
  accumulate<kTiles>(sums, adapter.a, row, width, x, token, tokens, in);
  partials.store(sums);
  __syncthreads();
  for (int i = threadIdx.x; i < kRows * 8 * kTiles; i += kThreads) {
    const int64_t r = row + i % kRows, t = token + i / kRows;
    if (r < width && t >= begin && t < end) adapter.xa[(t - begin) * width + r] = partials.sum(i % kRows, i / kRows);
  }
}

constexpr int kGroup = 4; // tokens that share a read of b
constexpr int kUpThreads = 128;

// Runs of rows under one adapter, or under none (rank 0), in groups of 4.
struct Runs {
  int32_t count = 0;
  int32_t groups = 0;
  int32_t first_group[2 * kMostAdapters + 1];
  Adapter at[2 * kMostAdapters + 1];
};

template <class Y> __global__ __launch_bounds__(kUpThreads) void project_up(Y *y, const float *bias, int64_t out, const __grid_constant__ Runs runs) {
  extern __shared__ float shared[]; // [kGroup][rank] of this block's part
  int32_t run = 0;
  while (run + 1 < runs.count && int32_t(blockIdx.y) >= runs.first_group[run + 1]) run++;
  const Adapter &adapter = runs.at[run];
  const int32_t first = (int32_t(blockIdx.y) - runs.first_group[run]) * kGroup, rank = adapter.rank;
  const int32_t count = min(kGroup, adapter.row_count - first), width = adapter.width();
  for (int i = threadIdx.x; i < count * width; i += kUpThreads) shared[i] = adapter.xa[int64_t(first) * width + i];
  __syncthreads();
  const int64_t o = int64_t(blockIdx.x) * kUpThreads + threadIdx.x;
  if (o >= out) return;
  Y *place = y + (int64_t(adapter.row_start) + first) * out + o;
  float sums[kGroup];
#pragma unroll
  for (int j = 0; j < kGroup; j++) sums[j] = j < count ? to_float(place[j * out]) : 0.0f;
  float low[kGroup] = {};
  if (rank > 0) {
    const float *b = adapter.b + o * rank, *xa = shared + adapter.part_of(o) * rank;
#pragma unroll 8
    for (int r = 0; r < rank; r++) {
      const float value = b[r] * adapter.scale;
#pragma unroll
      for (int j = 0; j < kGroup; j++) low[j] += (j < count ? xa[j * width + r] : 0.0f) * value;
    }
  }
  const float plain = bias ? bias[o] : 0.0f;
#pragma unroll
  for (int j = 0; j < kGroup; j++)
    if (j < count) place[j * out] = from_float<Y>(sums[j] + plain + low[j]);
}

// Rows that no adapter takes are left out where there is no bias for them either.
Runs runs_of(const Adapters &adapters, int64_t tokens, bool bias) {
  Runs runs;
  const auto add = [&](const Adapter &adapter) {
    if (adapter.row_count <= 0) return;
    runs.first_group[runs.count] = runs.groups;
    runs.at[runs.count++] = adapter;
    runs.groups += int32_t(ceil_div(adapter.row_count, kGroup));
  };
  const auto plain = [&](int64_t first, int64_t end) {
    if (!bias || end <= first) return;
    Adapter none{};
    none.row_start = int32_t(first), none.row_count = int32_t(end - first);
    add(none);
  };
  int64_t done = 0;
  for (int32_t i = 0; i < adapters.count; i++) {
    plain(done, adapters.at[i].row_start);
    add(adapters.at[i]);
    done = int64_t(adapters.at[i].row_start) + adapters.at[i].row_count;
  }
  plain(done, tokens);
  return runs;
}

} // namespace

bool begin_decode_adapters(arbor_stream *stream, int32_t type, const void *x, int64_t tokens, int64_t in, const Adapters &adapters) {
  uint64_t aligned = reinterpret_cast<uint64_t>(x) | uint64_t(in) * 2;
  int64_t blocks = 0;
  for (int32_t i = 0; i < adapters.count; i++) {
    aligned |= reinterpret_cast<uint64_t>(adapters.at[i].a);
    blocks += ceil_div(adapters.at[i].width(), kRows);
  }
  if (type != ARBOR_BF16 || aligned % 16 != 0 || adapters.count == 0) return false;
  const cudaStream_t beside = fork(stream);
  const auto run = [&](auto kernel, int64_t tile) {
    kernel<<<dim3(unsigned(blocks), unsigned(ceil_div(tokens, tile))), kThreads, 0, beside>>>(static_cast<const bf16 *>(x), tokens, in, adapters);
  };
  tokens <= 8 ? run(project_down<1>, 8) : tokens <= 16 ? run(project_down<2>, 16) : run(project_down<4>, 32);
  return true;
}

int32_t end_decode_adapters(arbor_stream *stream, void *y, int32_t y_type, const float *bias, int64_t tokens, int64_t out, const Adapters &adapters) {
  join(stream);
  const Runs runs = runs_of(adapters, tokens, bias != nullptr);
  int32_t width = 0;
  for (int32_t i = 0; i < runs.count; i++) width = runs.at[i].width() > width ? runs.at[i].width() : width;
  const dim3 grid(unsigned(ceil_div(out, kUpThreads)), unsigned(runs.groups));
  const size_t shared = size_t(kGroup) * size_t(width) * 4;
  if (runs.groups > 0 && y_type == ARBOR_BF16)
    project_up<<<grid, kUpThreads, shared, cuda_stream(stream)>>>(static_cast<bf16 *>(y), bias, out, runs);
  else if (runs.groups > 0)
    project_up<<<grid, kUpThreads, shared, cuda_stream(stream)>>>(static_cast<float *>(y), bias, out, runs);
  return launched(stream, "arbor_linear");
}

} // namespace arbor
