// x aᵀ of all adapters in one launch. A row's bits depend on its own adapter's shape alone, so they are the same in a prompt, in training and in a
// decode step.
//
// k is cut into pieces, a block each, whose sums are added in order afterwards. 8 warps share 16 rows of a and divide a piece among them: 32 of every 256
// are a warp's; values go straight from memory into the fragments of mma.m16n8k16. k is dealt to the fragments in an order of our own (a thread takes 8
// neighbours), the same for both operands, so a sum over k sees each product once. In a prompt what is read of x waits in shared memory, each value for
// the thread that has asked for it.

#include <algorithm>

#include "decode_product.cuh"
#include "lora_down.cuh"

namespace arbor {
namespace {

using namespace down;

constexpr int kManyTiles = 8, kManyStages = 2; // in a prompt: of 8 tokens, a block's; times a step of x, on its way or worked on

// Sums of 16 rows of a with kTiles · 8 tokens over this warp's part of the piece of k.
template <int kTiles> __device__ __forceinline__ void accumulate(float (&sums)[kTiles][4], const Places &of, int64_t piece, int64_t end) {
#pragma unroll 1
  for (; piece < end; piece += kLeastPiece) {
    EightFloats up[kAhead], low[kAhead];
#pragma unroll
    for (int s = 0; s < kAhead; s++) of.load_a(up[s], low[s], Places::k(piece, s));
#pragma unroll
    for (int s = 0; s < kAhead; s++) {
      const int64_t k = Places::k(piece, s);
      const uint4 u = up[s].values(), l = low[s].values();
#pragma unroll
      for (int tile = 0; tile < kTiles; tile++)
        add_step(sums[tile], u, l, of.has(tile, k) ? *reinterpret_cast<const uint4 *>(of.x(tile, k)) : make_uint4(0, 0, 0, 0));
    }
  }
}

template <int kTiles>
__global__ __launch_bounds__(kThreads) void down_kernel(const bf16 *x, int64_t tokens, int64_t in, const __grid_constant__ Adapters adapters,
                                                         const __grid_constant__ PieceSums to) {
  __shared__ Partials<kTiles> partials;
  const Work<kTiles> work(adapters);
  after_kernels_before();
  if (work.none()) return;
  const int64_t piece = piece_of(in), first = int64_t(blockIdx.z) * piece;
  float sums[kTiles][4] = {};
  accumulate<kTiles>(sums, work.places(x, tokens, in), first, min(in, first + piece));
  partials.store(sums);
  __syncthreads();
  work.store(to, partials);
}

union ManyShared {
  uint4 x[kManyStages][kManyTiles][kThreads];
  Partials<kManyTiles> partials;
};

// The same sums for the many tokens of a prompt: steps of x on their way while others are worked on.
__global__ __launch_bounds__(kThreads, 3) void project_many_down(const bf16 *x, int64_t tokens, int64_t in, const __grid_constant__ Adapters adapters,
                                                                 const __grid_constant__ PieceSums to) {
  extern __shared__ __align__(1024) unsigned char memory[];
  ManyShared &shared = *reinterpret_cast<ManyShared *>(memory);
  const Work<kManyTiles> work(adapters);
  if (work.none()) return after_kernels_before(); // as all must: the kernel behind reads x before it waits
  const Places of = work.places(x, tokens, in);
  const int64_t piece = piece_of(in), first = int64_t(blockIdx.z) * piece;
  EightFloats up, low;
  of.load_a(up, low, Places::k(first, 0)); // older than the kernel before
  after_kernels_before();
  const int steps = int(ceil_div(min(in - first, piece), kWarps * kStep));
  const auto copy_step = [&](int s) {
    const int64_t k = Places::k(first, s);
#pragma unroll
    for (int tile = 0; tile < kManyTiles; tile++) {
      const bool there = of.has(tile, k);
      copy_piece(&shared.x[s % kManyStages][tile][threadIdx.x], there ? of.x(tile, k) : x, there);
    }
  };
#pragma unroll
  for (int s = 0; s < kManyStages - 1; s++) {
    if (s < steps) copy_step(s);
    close_copies();
  }
  float sums[kManyTiles][4] = {};
  for (int s = 0; s < steps; s++) {
    const uint4 u = up.values(), l = low.values();
    if (s + 1 < steps) of.load_a(up, low, Places::k(first, s + 1));
    if (s + kManyStages - 1 < steps) copy_step(s + kManyStages - 1);
    close_copies();
    wait_copies<kManyStages - 1>();
#pragma unroll
    for (int tile = 0; tile < kManyTiles; tile++) add_step(sums[tile], u, l, shared.x[s % kManyStages][tile][threadIdx.x]);
  }
  __syncthreads(); // nobody's values wait any more
  shared.partials.store(sums);
  __syncthreads();
  work.store(to, shared.partials);
}

// Where x aᵀ goes, rounded.
struct Rounded {
  bf16 *at[kMostAdapters];
};

// blockIdx.y: the adapter.
__global__ void sum_pieces(const __grid_constant__ Adapters adapters, const __grid_constant__ PieceSums sums, const __grid_constant__ Rounded rounded) {
  const int32_t number = blockIdx.y;
  const Adapter &adapter = adapters.at[number];
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, count = int64_t(adapter.row_count) * adapter.width();
  after_kernels_before();
  if (i >= count) return;
  const float total = add_pieces(sums.at + sums.start[number] + i, count, sums.pieces);
  adapter.xa[i] = total;
  rounded.at[number][i] = __float2bfloat16_rn(total);
}

void launch_down(cudaStream_t on, const void *x, int64_t tokens, int64_t in, const Adapters &adapters, const PieceSums &sums) {
  int64_t blocks = 0;
  for (int32_t i = 0; i < adapters.count; i++) blocks += ceil_div(adapters.at[i].width(), kRows);
  const auto run = [&](auto kernel, int64_t tile, size_t shared = 0) {
    const dim3 grid(unsigned(blocks), unsigned(ceil_div(tokens, tile)), unsigned(sums.pieces));
    allow_shared(kernel, shared);
    launch_after(kernel, grid, kThreads, shared, on, static_cast<const bf16 *>(x), tokens, in, adapters, sums);
  };
  tokens <= 8    ? run(down_kernel<1>, 8)
  : tokens <= 16 ? run(down_kernel<2>, 16)
  : tokens <= 64 ? run(down_kernel<4>, 32)
                 : run(project_many_down, 8 * kManyTiles, sizeof(ManyShared));
}

} // namespace

// Sizes of the sums, and room for them in scratch memory 1.
static bool make_room(arbor_stream *stream, const Adapters &adapters, int32_t pieces, PieceSums &sums) {
  int64_t floats = 0;
  for (int32_t i = 0; i < adapters.count; i++) {
    sums.start[i] = floats;
    floats += int64_t(pieces) * adapters.at[i].row_count * adapters.at[i].width();
  }
  sums.pieces = pieces;
  sums.at = static_cast<float *>(scratch(stream, 1, floats * 4 + 16));
  return sums.at != nullptr;
}

bool projects_down(int32_t type, const void *x, int64_t in, const Adapter &adapter) {
  const uint64_t aligned = reinterpret_cast<uint64_t>(x) | uint64_t(in) * 2 | reinterpret_cast<uint64_t>(adapter.a) | reinterpret_cast<uint64_t>(adapter.b);
  return type == ARBOR_BF16 && aligned % 16 == 0;
}

bool projects_down(int32_t type, const void *x, int64_t in, const Adapters &adapters) {
  bool all = true;
  for (int32_t i = 0; i < adapters.count; i++) all = all && projects_down(type, x, in, adapters.at[i]);
  return all;
}

int32_t project_down_rounded(arbor_stream *stream, const void *x, int64_t tokens, int64_t in, const Adapters &adapters, bf16 *const *rounded) {
  PieceSums sums;
  if (!project_down(stream, x, tokens, in, adapters, sums)) return ARBOR_OUT_OF_MEMORY;
  Rounded to{};
  int64_t most = 0;
  for (int32_t i = 0; i < adapters.count; i++) to.at[i] = rounded[i], most = max(most, int64_t(adapters.at[i].row_count) * adapters.at[i].width());
  if (most > 0) launch_after(sum_pieces, dim3(unsigned(ceil_div(most, 256)), unsigned(adapters.count)), 256, 0, cuda_stream(stream), adapters, sums, to);
  return launched(stream, "arbor_linear");
}

bool project_down(arbor_stream *stream, const void *x, int64_t tokens, int64_t in, const Adapters &adapters, PieceSums &sums) {
  const bool in_order = decodes_in_order(stream);
  const int32_t pieces = in_order ? terms_in_order(stream, adapters.count > 0 ? adapters.at[0].outputs() : 0, in) : int32_t(ceil_div(in, piece_of(in)));
  if (!make_room(stream, adapters, pieces, sums)) return false;
  (in_order ? launch_down_in_order : launch_down)(cuda_stream(stream), x, tokens, in, adapters, sums);
  return true;
}

} // namespace arbor
