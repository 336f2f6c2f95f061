// x aᵀ of all adapters in one launch. A row's bits depend on its own adapter's shape alone, so they are the same in a prompt, in training and in a
// decode step.
//
// k is cut into pieces of 512, a block each, whose sums are added in order afterwards. 8 warps share 16 rows of a and divide a piece among them; values go straight from memory into the fragments of mma.m16n8k16, four steps ahead of
// their use. k is dealt to the fragments in an order of our own (a thread takes 8 neighbours), the same for both operands, so a sum over k sees
// each product once.

#include "lora.cuh"
#include "lora_up.cuh"
#include "mma.cuh"

namespace arbor {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps;
constexpr int kRows = 16; // of a, a block's
constexpr int kStep = 32; // of k, a warp's at a time
constexpr int kAhead = 2; // steps that are loaded before they are used
constexpr int kPiece = kWarps * kStep * kAhead; // of k, a block's: each warp has kAhead steps of it

// Eight values of one row of a, rounded when used.
struct Eight {
  float4 low, high;
  __device__ __forceinline__ void load(const float *from) {
    low = *reinterpret_cast<const float4 *>(from);
    high = *reinterpret_cast<const float4 *>(from + 4);
  }
  __device__ __forceinline__ void clear() { low = high = make_float4(0, 0, 0, 0); }
  __device__ __forceinline__ uint4 values() const { return make_uint4(pack_pair(low.x, low.y), pack_pair(low.z, low.w), pack_pair(high.x, high.y), pack_pair(high.z, high.w)); }
};

// Sums of 16 rows of a (from `row` on, `rows` of them there) with kTiles · 8 tokens over this warp's part of the piece of k that begins at `piece`.
template <int kTiles>
__device__ __forceinline__ void accumulate(float (&sums)[kTiles][4], const float *a, int64_t row, int64_t rows, const bf16 *x, int64_t token,
                                           int64_t tokens, int64_t in, int64_t piece) {
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, group = lane >> 2, quad = lane & 3;
  const bool upper_there = row + group < rows, lower_there = row + group + 8 < rows;
  const float *upper = a + (row + group) * in, *lower = upper + 8 * in;
  const bf16 *column = x + (token + group) * in;
  Eight up[kAhead], low[kAhead];
#pragma unroll
  for (int s = 0; s < kAhead; s++) {
    const int64_t k = piece + (s * kWarps + warp) * kStep + quad * 8;
    up[s].clear(), low[s].clear();
    if (k < in && upper_there) up[s].load(upper + k);
    if (k < in && lower_there) low[s].load(lower + k);
  }
#pragma unroll
  for (int s = 0; s < kAhead; s++) {
    const int64_t k = piece + (s * kWarps + warp) * kStep + quad * 8;
    const uint4 u = up[s].values(), l = low[s].values();
#pragma unroll
    for (int tile = 0; tile < kTiles; tile++) {
      uint4 v = make_uint4(0, 0, 0, 0);
      if (k < in && token + tile * 8 + group < tokens) v = *reinterpret_cast<const uint4 *>(column + int64_t(tile) * 8 * in + k);
      mma(sums[tile], {u.x, l.x, u.y, l.y}, v.x, v.y);
      mma(sums[tile], {u.z, l.z, u.w, l.w}, v.z, v.w);
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
__device__ __forceinline__ const Adapter &adapter_of_block(const Adapters &adapters, int32_t block, int64_t &row, int32_t &number) {
  int32_t i = 0;
  for (;; i++) {
    const int32_t blocks = int32_t(ceil_div(adapters.at[i].width(), kRows));
    if (block < blocks || i + 1 == adapters.count) break;
    block -= blocks;
  }
  row = int64_t(block) * kRows;
  number = i;
  return adapters.at[i];
}

template <int kTiles>
__global__ __launch_bounds__(kThreads) void down_kernel(const bf16 *x, int64_t tokens, int64_t in, const __grid_constant__ Adapters adapters,
                                                         const __grid_constant__ PieceSums to) {
  __shared__ Partials<kTiles> partials;
  const int64_t token = int64_t(blockIdx.y) * 8 * kTiles;
  int64_t row;
  int32_t number;
  const Adapter &adapter = adapter_of_block(adapters, int32_t(blockIdx.x), row, number);
  const int64_t width = adapter.width(), begin = adapter.row_start, end = begin + adapter.row_count;
  if (token + 8 * kTiles <= begin || token >= end) return;
  float sums[kTiles][4] = {};
  accumulate<kTiles>(sums, adapter.a, row, width, x, token, tokens, in, int64_t(blockIdx.z) * kPiece);
  partials.store(sums);
  __syncthreads();
  float *out = to.at + to.start[number] + int64_t(blockIdx.z) * adapter.row_count * width;
  for (int i = threadIdx.x; i < kRows * 8 * kTiles; i += kThreads) {
    const int64_t r = row + i % kRows, t = token + i / kRows;
    if (r < width && t >= begin && t < end) out[(t - begin) * width + r] = partials.sum(i % kRows, i / kRows);
  }
}

__global__ void sum_pieces(float *xa, bf16 *rounded, const float *sums, int64_t count, int32_t pieces) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const float total = add_pieces(sums + i, count, pieces);
  xa[i] = total;
  if (rounded) rounded[i] = __float2bfloat16_rn(total);
}

void launch_down(cudaStream_t on, const void *x, int64_t tokens, int64_t in, const Adapters &adapters, const PieceSums &sums) {
  int64_t blocks = 0;
  for (int32_t i = 0; i < adapters.count; i++) blocks += ceil_div(adapters.at[i].width(), kRows);
  const auto run = [&](auto kernel, int64_t tile) {
    const dim3 grid(unsigned(blocks), unsigned(ceil_div(tokens, tile)), unsigned(ceil_div(in, kPiece)));
    kernel<<<grid, kThreads, 0, on>>>(static_cast<const bf16 *>(x), tokens, in, adapters, sums);
  };
  tokens <= 8 ? run(down_kernel<1>, 8) : tokens <= 16 ? run(down_kernel<2>, 16) : tokens <= 64 ? run(down_kernel<4>, 32) : run(down_kernel<8>, 64);
}

} // namespace

// Sizes of the sums, and room for them in scratch memory 1.
static bool make_room(arbor_stream *stream, const Adapters &adapters, int64_t in, PieceSums &sums) {
  int64_t floats = 0;
  for (int32_t i = 0; i < adapters.count; i++) {
    sums.start[i] = floats;
    floats += ceil_div(in, kPiece) * adapters.at[i].row_count * adapters.at[i].width();
  }
  sums.pieces = int32_t(ceil_div(in, kPiece));
  sums.at = static_cast<float *>(scratch(stream, 1, floats * 4 + 16));
  return sums.at != nullptr;
}

bool projects_down(int32_t type, const void *x, int64_t in, const Adapters &adapters) {
  uint64_t aligned = reinterpret_cast<uint64_t>(x) | uint64_t(in) * 2;
  for (int32_t i = 0; i < adapters.count; i++) aligned |= reinterpret_cast<uint64_t>(adapters.at[i].a) | reinterpret_cast<uint64_t>(adapters.at[i].b);
  return type == ARBOR_BF16 && aligned % 16 == 0;
}

int32_t project_down_rounded(arbor_stream *stream, const void *x, int64_t tokens, int64_t in, const Adapters &adapters, bf16 *const *rounded) {
  PieceSums sums;
  if (!make_room(stream, adapters, in, sums)) return ARBOR_OUT_OF_MEMORY;
  launch_down(cuda_stream(stream), x, tokens, in, adapters, sums);
  for (int32_t i = 0; i < adapters.count; i++) {
    const Adapter &adapter = adapters.at[i];
    const int64_t count = int64_t(adapter.row_count) * adapter.width();
    if (count > 0)
      sum_pieces<<<unsigned(ceil_div(count, 256)), 256, 0, cuda_stream(stream)>>>(adapter.xa, rounded[i], sums.at + sums.start[i], count,
                                                                                 sums.pieces);
  }
  return launched(stream, "arbor_linear");
}

bool project_down(arbor_stream *stream, const void *x, int64_t tokens, int64_t in, const Adapters &adapters, PieceSums &sums) {
  if (!make_room(stream, adapters, in, sums)) return false;
  launch_down(cuda_stream(stream), x, tokens, in, adapters, sums);
  return true;
}

} // namespace arbor
