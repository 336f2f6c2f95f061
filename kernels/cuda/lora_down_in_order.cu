// x aᵀ in training's order, summed as rows have it that decode and whose x aᵀ comes with the base's product (lora_beside.cu): k in steps of the tensor
// cores, one after the other. So a block's warps divide the tokens among them instead of k; steps of x and a are on their way while others are worked on.

#include "lora_down.cuh"

namespace arbor {
namespace {

using namespace down;

constexpr int kOwnWarps = 4, kOwnThreads = 32 * kOwnWarps; // of a block: few, so that a step's tokens are many blocks
constexpr int kTokens = 8 * kOwnWarps;                     // 8 of them a warp's
constexpr int kDepth = 128, kStages = 5;                   // of k, a step's; steps on their way or worked on
constexpr int kHeld = kRows * kDepth / 4 / kOwnThreads;    // pieces of a, of four numbers, that a thread copies and rounds

struct alignas(256) Shared {
  bf16 x[kStages][kTokens * kDepth];
  float a[kStages][kRows * kDepth];
  bf16 rounded[2][kRows * kDepth]; // a's, of the step that is worked on and the next
};

__global__ __launch_bounds__(kOwnThreads) void in_order_kernel(const bf16 *x, int64_t tokens, int64_t in, int64_t depth, const __grid_constant__ Adapters adapters,
                                                            const __grid_constant__ PieceSums to) {
  extern __shared__ __align__(256) unsigned char memory[];
  Shared &shared = *reinterpret_cast<Shared *>(memory);
  const Work<kOwnWarps> work(adapters);
  if (work.none()) return after_kernels_before(); // as all must: the kernel behind reads x before it waits
  const int thread = int(threadIdx.x), lane = thread & 31, warp = thread >> 5, steps = int(ceil_div(depth, kDepth));
  const int64_t first = int64_t(blockIdx.z) * depth, width = work.adapter.width();
  const auto copy_a = [&](int s) {
#pragma unroll
    for (int h = 0; h < kHeld; h++) {
      const int i = thread + h * kOwnThreads, row = i / (kDepth / 4);
      const int64_t k = first + s * kDepth + i % (kDepth / 4) * 4;
      const bool there = s < steps && work.row + row < width && k < in;
      copy_piece(&shared.a[s % kStages][i * 4], work.adapter.a + (there ? (work.row + row) * in + k : 0), there);
    }
  };
  const auto copy_x = [&](int s) {
#pragma unroll
    for (int i = thread; i < kTokens * kDepth / 8; i += kOwnThreads) {
      const int token = i / (kDepth / 8), piece = i % (kDepth / 8);
      const int64_t k = first + s * kDepth + piece * 8;
      const bool there = s < steps && work.token + token < tokens && k < in;
      copy_piece(&shared.x[s % kStages][tile_at<kDepth>(token, piece)], there ? x + (work.token + token) * in + k : x, there);
    }
  };
  const auto round = [&](int s) { // what this thread has copied
#pragma unroll
    for (int h = 0; h < kHeld; h++) {
      const int i = thread + h * kOwnThreads, column = i % (kDepth / 4) * 4;
      const float4 four = *reinterpret_cast<const float4 *>(&shared.a[s % kStages][i * 4]);
      bf16 *const at = &shared.rounded[s & 1][tile_at<kDepth>(i / (kDepth / 4), column / 8) + column % 8];
      *reinterpret_cast<uint2 *>(at) = make_uint2(pack_pair(four.x, four.y), pack_pair(four.z, four.w));
    }
  };
#pragma unroll
  for (int s = 0; s < kStages - 1; s++) copy_a(s); // older than the kernel before
  after_kernels_before();
#pragma unroll
  for (int s = 0; s < kStages - 1; s++) {
    copy_x(s);
    close_copies();
  }
  wait_copies<kStages - 2>();
  round(0);
  float sums[4] = {};
  for (int s = 0; s < steps; s++) {
    __syncthreads(); // this step is here, and nobody reads the one before
    copy_a(s + kStages - 1), copy_x(s + kStages - 1);
    close_copies();
    const uint32_t row_at = down_address<kDepth>(shared.rounded[s & 1], 0, lane);
    const uint32_t column_at = shared_address(&shared.x[s % kStages][tile_at<kDepth>(8 * warp + (lane & 7), lane >> 3)]);
    uint32_t left[2][4], right[2][4]; // what comes next is loaded before it is its turn; right: for two steps of the tensor cores
    load_matrices(right[0], column_at), load_matrices(left[0], row_at);
#pragma unroll
    for (int k = 0; k < kDepth / 16; k++) {
      if (k + 1 < kDepth / 16) load_matrices(left[(k + 1) & 1], row_at ^ 32 * (k + 1));
      if (k % 2 == 0 && k + 2 < kDepth / 16) load_matrices(right[(k / 2 + 1) & 1], column_at ^ 32 * (k + 2));
      const uint32_t(&columns)[4] = right[k / 2 & 1];
      mma(sums, left[k & 1], columns[k % 2 * 2], columns[k % 2 * 2 + 1]);
    }
    wait_copies<kStages - 2>();
    if (s + 1 < steps) round(s + 1);
  }
  wait_copies<0>();
  float *const out = to.at + to.start[work.number] + int64_t(blockIdx.z) * work.adapter.row_count * width;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const int64_t row = work.row + (lane >> 2) + i / 2 * 8, token = work.token + 8 * warp + 2 * (lane & 3) + i % 2;
    if (row < width && token >= work.begin && token < work.end) out[(token - work.begin) * width + row] = sums[i];
  }
}

} // namespace

void launch_down_in_order(cudaStream_t on, const void *x, int64_t tokens, int64_t in, const Adapters &adapters, const PieceSums &sums) {
  int64_t blocks = 0;
  for (int32_t i = 0; i < adapters.count; i++) blocks += ceil_div(adapters.at[i].width(), kRows);
  allow_shared(in_order_kernel, sizeof(Shared));
  launch_after(in_order_kernel, dim3(unsigned(blocks), unsigned(ceil_div(tokens, kTokens)), unsigned(sums.pieces)), kOwnThreads, sizeof(Shared), on,
               static_cast<const bf16 *>(x), tokens, in, in / sums.pieces, adapters, sums);
}

} // namespace arbor
