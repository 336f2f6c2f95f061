// x aᵀ of all adapters in one launch; and, for rows that decode, scale xa bᵀ and the bias into the base's outputs in another. A row's bits depend on
// its own adapter's shape alone, so they are the same in a prompt, in training and in a decode step.
//
// x aᵀ: k is cut into pieces of 512, a block each, whose sums are added in order afterwards. 8 warps share 16 rows of a and divide a piece among them; values go straight from memory into the fragments of mma.m16n8k16, four steps ahead of
// their use. k is dealt to the fragments in an order of our own (a thread takes 8 neighbours), the same for both operands, so a sum over k sees
// each product once.

#include <algorithm>
#include <type_traits>

#include "lora.cuh"
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

// Where each adapter's sums lie in scratch memory: [pieces][row_count][width] from `start[i]` on.
struct Places {
  float *sums;
  int64_t start[kMostAdapters];
};

template <int kTiles>
__global__ __launch_bounds__(kThreads) void project_down(const bf16 *x, int64_t tokens, int64_t in, const __grid_constant__ Adapters adapters,
                                                         const __grid_constant__ Places places) {
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
  float *out = places.sums + places.start[number] + int64_t(blockIdx.z) * adapter.row_count * width;
  for (int i = threadIdx.x; i < kRows * 8 * kTiles; i += kThreads) {
    const int64_t r = row + i % kRows, t = token + i / kRows;
    if (r < width && t >= begin && t < end) out[(t - begin) * width + r] = partials.sum(i % kRows, i / kRows);
  }
}

// The pieces' sums in order. `stride`: from a piece to the next.
__device__ __forceinline__ float add_pieces(const float *sums, int64_t stride, int32_t pieces) {
  constexpr int kAtOnce = 6;
  float total = 0;
  for (int32_t start = 0; start < pieces; start += kAtOnce) { // loads under way together, added in order
    float values[kAtOnce];
#pragma unroll
    for (int j = 0; j < kAtOnce; j++) values[j] = start + j < pieces ? sums[(start + j) * stride] : 0.0f;
#pragma unroll
    for (int j = 0; j < kAtOnce; j++) total += values[j];
  }
  return total;
}

__global__ void sum_pieces(float *xa, bf16 *rounded, const float *sums, int64_t count, int32_t pieces) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const float total = add_pieces(sums + i, count, pieces);
  xa[i] = total;
  if (rounded) rounded[i] = __float2bfloat16_rn(total);
}

constexpr int kGroup = 8; // tokens that share a read of b
constexpr int kUpThreads = 128;

// Runs of rows under one adapter, or under none (rank 0), in groups of 8.
struct Runs {
  int32_t count = 0;
  int32_t pieces = 0;
  const float *sums = nullptr;
  int32_t groups = 0;
  int32_t first_group[2 * kMostAdapters + 1];
  int64_t start[2 * kMostAdapters + 1]; // of its sums
  Adapter at[2 * kMostAdapters + 1];
};

// kRank: the rank, where it is one of the usual ones, so that a row of b waits in registers for the kernels before to end; else 0.
template <class Y, int kRank>
__global__ __launch_bounds__(kUpThreads) void project_up(Y *y, const float *bias, int64_t out, const __grid_constant__ Runs runs) {
  extern __shared__ float shared[]; // [kGroup][width]
  int32_t run = 0;
  while (run + 1 < runs.count && int32_t(blockIdx.y) >= runs.first_group[run + 1]) run++;
  const Adapter &adapter = runs.at[run];
  const int32_t first = (int32_t(blockIdx.y) - runs.first_group[run]) * kGroup, rank = adapter.rank;
  const int32_t count = min(kGroup, adapter.row_count - first), width = adapter.width();
  const int64_t o = int64_t(blockIdx.x) * kUpThreads + threadIdx.x;
  const bool there = o < out, held = kRank > 0 && rank == kRank;
  float b[kRank > 0 ? kRank : 1];
  if (held && there)
#pragma unroll
    for (int r = 0; r < kRank; r += 4) *reinterpret_cast<float4 *>(b + r) = *reinterpret_cast<const float4 *>(adapter.b + o * kRank + r);
  const float plain = bias && there ? bias[o] : 0.0f;
  after_kernels_before();
  const float *sums = runs.sums + runs.start[run] + int64_t(first) * width;
  for (int i = threadIdx.x; i < count * width; i += kUpThreads) {
    const float value = add_pieces(sums + i, int64_t(adapter.row_count) * width, runs.pieces);
    shared[i] = value;
    if (blockIdx.x == 0) adapter.xa[int64_t(first) * width + i] = value;
  }
  Y *place = y + (int64_t(adapter.row_start) + first) * out + o;
  float values[kGroup], low[kGroup] = {};
#pragma unroll
  for (int j = 0; j < kGroup; j++) values[j] = there && j < count ? to_float(place[j * out]) : 0.0f;
  __syncthreads();
  if (!there) return;
  const float *xa = shared + (rank > 0 ? adapter.part_of(o) * rank : 0);
  if (held) {
#pragma unroll
    for (int j = 0; j < kGroup; j++)
      if (j < count)
#pragma unroll
        for (int r = 0; r < kRank; r++) low[j] += xa[j * width + r] * (b[r] * adapter.scale);
  } else
    for (int r = 0; r < rank; r++) {
      const float value = adapter.b[o * rank + r] * adapter.scale;
#pragma unroll
      for (int j = 0; j < kGroup; j++) low[j] += (j < count ? xa[j * width + r] : 0.0f) * value;
    }
#pragma unroll
  for (int j = 0; j < kGroup; j++)
    if (j < count) place[j * out] = from_float<Y>(values[j] + plain + low[j]);
}

// Rows that no adapter takes are left out where nothing else is to be added to them.
Runs runs_of(const Adapters &adapters, const Places &places, int64_t tokens, bool all_rows) {
  Runs runs;
  runs.sums = places.sums;
  const auto add = [&](const Adapter &adapter, int64_t start) {
    if (adapter.row_count <= 0) return;
    runs.first_group[runs.count] = runs.groups;
    runs.start[runs.count] = start;
    runs.at[runs.count++] = adapter;
    runs.groups += int32_t(ceil_div(adapter.row_count, kGroup));
  };
  const auto plain = [&](int64_t first, int64_t end) {
    if (!all_rows || end <= first) return;
    Adapter none{};
    none.row_start = int32_t(first), none.row_count = int32_t(end - first);
    add(none, 0);
  };
  int64_t done = 0;
  for (int32_t i = 0; i < adapters.count; i++) {
    plain(done, adapters.at[i].row_start);
    add(adapters.at[i], places.start[i]);
    done = int64_t(adapters.at[i].row_start) + adapters.at[i].row_count;
  }
  plain(done, tokens);
  return runs;
}

// Sizes of the sums, and room for them in scratch memory 1.
bool place_sums(arbor_stream *stream, const Adapters &adapters, int64_t in, Places &places) {
  int64_t floats = 0;
  for (int32_t i = 0; i < adapters.count; i++) {
    places.start[i] = floats;
    floats += ceil_div(in, kPiece) * adapters.at[i].row_count * adapters.at[i].width();
  }
  places.sums = static_cast<float *>(scratch(stream, 1, floats * 4 + 16));
  return places.sums != nullptr;
}

void launch_down(cudaStream_t on, const void *x, int64_t tokens, int64_t in, const Adapters &adapters, const Places &places) {
  int64_t blocks = 0;
  for (int32_t i = 0; i < adapters.count; i++) blocks += ceil_div(adapters.at[i].width(), kRows);
  const auto run = [&](auto kernel, int64_t tile) {
    const dim3 grid(unsigned(blocks), unsigned(ceil_div(tokens, tile)), unsigned(ceil_div(in, kPiece)));
    kernel<<<grid, kThreads, 0, on>>>(static_cast<const bf16 *>(x), tokens, in, adapters, places);
  };
  tokens <= 8 ? run(project_down<1>, 8) : tokens <= 16 ? run(project_down<2>, 16) : tokens <= 64 ? run(project_down<4>, 32) : run(project_down<8>, 64);
}

} // namespace

bool projects_down(int32_t type, const void *x, int64_t in, const Adapters &adapters) {
  uint64_t aligned = reinterpret_cast<uint64_t>(x) | uint64_t(in) * 2;
  for (int32_t i = 0; i < adapters.count; i++) aligned |= reinterpret_cast<uint64_t>(adapters.at[i].a) | reinterpret_cast<uint64_t>(adapters.at[i].b);
  return type == ARBOR_BF16 && aligned % 16 == 0;
}

int32_t project_down_rounded(arbor_stream *stream, const void *x, int64_t tokens, int64_t in, const Adapters &adapters, bf16 *const *rounded) {
  Places places;
  if (!place_sums(stream, adapters, in, places)) return ARBOR_OUT_OF_MEMORY;
  launch_down(cuda_stream(stream), x, tokens, in, adapters, places);
  for (int32_t i = 0; i < adapters.count; i++) {
    const Adapter &adapter = adapters.at[i];
    const int64_t count = int64_t(adapter.row_count) * adapter.width();
    if (count > 0)
      sum_pieces<<<unsigned(ceil_div(count, 256)), 256, 0, cuda_stream(stream)>>>(adapter.xa, rounded[i], places.sums + places.start[i], count,
                                                                                 int32_t(ceil_div(in, kPiece)));
  }
  return launched(stream, "arbor_linear");
}

bool begin_decode_adapters(arbor_stream *stream, const void *x, int64_t tokens, int64_t in, const Adapters &adapters) {
  Places places;
  if (!place_sums(stream, adapters, in, places)) return false;
  launch_down(fork(stream), x, tokens, in, adapters, places);
  return true;
}

int32_t end_decode_adapters(arbor_stream *stream, void *y, int32_t y_type, const float *bias, int64_t tokens, int64_t in, int64_t out,
                            const Adapters &adapters) {
  join(stream);
  Places places;
  if (!place_sums(stream, adapters, in, places)) return ARBOR_OUT_OF_MEMORY;
  Runs runs = runs_of(adapters, places, tokens, bias != nullptr);
  runs.pieces = int32_t(ceil_div(in, kPiece));
  int32_t width = 0;
  for (int32_t i = 0; i < runs.count; i++) width = runs.at[i].width() > width ? runs.at[i].width() : width;
  const dim3 grid(unsigned(ceil_div(out, kUpThreads)), unsigned(runs.groups));
  const size_t shared = size_t(kGroup) * size_t(width) * 4;
  if (runs.groups == 0) return ARBOR_OK;
  const auto run = [&](auto kernel, auto *to) { launch_after(kernel, grid, kUpThreads, shared, cuda_stream(stream), to, bias, out, runs); };
  const auto by_rank = [&](auto *to) {
    using Y = std::remove_pointer_t<decltype(to)>;
    const bool same = std::all_of(adapters.at, adapters.at + adapters.count, [&](const Adapter &one) { return one.rank == adapters.at[0].rank; });
    const int32_t rank = same ? adapters.at[0].rank : 0;
    rank == 8 ? run(project_up<Y, 8>, to) : rank == 16 ? run(project_up<Y, 16>, to) : rank == 32 ? run(project_up<Y, 32>, to) : run(project_up<Y, 0>, to);
  };
  if (y_type == ARBOR_BF16)
    by_rank(static_cast<bf16 *>(y));
  else
    by_rank(static_cast<float *>(y));
  return launched(stream, "arbor_linear");
}

} // namespace arbor
