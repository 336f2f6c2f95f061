// Gradients of adapters in five launches: the pass over dy, dyb from its sums, the pass over x, dx += dyb a, and the sums of both passes into da and db.
// Where adapters are inside the product (lora_inside.cu), dyb and dx come of that.

#include "lora_gradients.cuh"

#include <initializer_list>

#include "lora_add_mma.cuh"
#include "lora_inside.cuh"
#include "mma.cuh"

namespace arbor {
namespace {

constexpr int kThreads = 256, kSlices = 4;             // threads that share what they sum
constexpr int kPlaces = kThreads / kSlices;            // of four numbers, a block's
constexpr int kDyBlocks = 4 * 132, kXBlocks = 2 * 132; // of a pass, at most
constexpr int32_t kLeastRows = 64, kMostRows = 512;    // a block's of a pass

struct Shares {
  float4 at[kSlices][kPlaces];
};

// Sums of `count` pieces, four columns of them: a slice of the pieces in order, then the slices. For threads of the first slice. `stride`: floats from a
// piece to the next.
__device__ __forceinline__ float4 sum_pieces(Shares &shares, const float *sums, int64_t stride, int32_t count) {
  constexpr int kAtOnce = 8;
  const int slice = threadIdx.x / kPlaces, place = threadIdx.x % kPlaces, each = (count + kSlices - 1) / kSlices;
  const int32_t end = min(count, (slice + 1) * each);
  float4 total = make_float4(0, 0, 0, 0);
  for (int32_t start = slice * each; start < end; start += kAtOnce) { // loads under way together, added in order
    float4 values[kAtOnce];
#pragma unroll
    for (int j = 0; j < kAtOnce; j++)
      values[j] = start + j < end ? *reinterpret_cast<const float4 *>(sums + (start + j) * stride) : make_float4(0, 0, 0, 0);
#pragma unroll
    for (int j = 0; j < kAtOnce; j++) total.x += values[j].x, total.y += values[j].y, total.z += values[j].z, total.w += values[j].w;
  }
  shares.at[slice][place] = total;
  __syncthreads();
#pragma unroll
  for (int s = 1; s < kSlices; s++) {
    const float4 share = shares.at[s][place];
    total.x += share.x, total.y += share.y, total.z += share.z, total.w += share.w;
  }
  return total;
}

// The number of the thread's place of four among all.
__device__ __forceinline__ int64_t place_of_thread() { return int64_t(blockIdx.x) * kPlaces + threadIdx.x % kPlaces; }

// dyb = scale dy b, rounded. blockIdx.y: the adapter.
__global__ void sum_dyb_kernel(const __grid_constant__ Gradients gradients) {
  __shared__ Shares shares;
  const Adapter &adapter = gradients.adapters.at[blockIdx.y];
  const GradientPlace &place = gradients.places[blockIdx.y];
  const int32_t padded = padded_width(adapter);
  const int64_t i = place_of_thread(), row = i / (padded / 4), size = int64_t(adapter.row_count) * adapter.rank;
  const int32_t column = int32_t(i % (padded / 4)) * 4, part = column / adapter.rank;
  int32_t before = 0, blocks = 0;
  if (row < adapter.row_count && part < adapter.part_count) {
    for (int32_t p = 0; p < part; p++) before += blocks_of_part(adapter, p);
    blocks = blocks_of_part(adapter, part);
  }
  after_kernels_before();
  const float4 sum = sum_pieces(shares, gradients.sums + place.dyb_sums + before * size + row * adapter.rank + column % adapter.rank, size, blocks);
  if (row >= adapter.row_count || threadIdx.x >= kPlaces) return;
  *reinterpret_cast<uint2 *>(gradients.dyb + place.dyb + row * padded + column) =
      make_uint2(pack_pair(adapter.scale * sum.x, adapter.scale * sum.y), pack_pair(adapter.scale * sum.z, adapter.scale * sum.w));
}

// db and da. blockIdx.y: the adapter.
__global__ void add_sums_kernel(const __grid_constant__ Gradients gradients) {
  __shared__ Shares shares;
  const Adapter &adapter = gradients.adapters.at[blockIdx.y];
  const GradientPlace &place = gradients.places[blockIdx.y];
  const int64_t i = place_of_thread() * 4, db_size = gradients.out * adapter.rank, da_size = gradients.in * adapter.width();
  const bool is_db = i < db_size, there = i < db_size + da_size;
  const int64_t at = is_db ? i : i - db_size;
  const int32_t blocks = !there ? 0 : row_blocks(adapter, is_db ? place.dy_rows : place.x_rows);
  after_kernels_before();
  const float4 sum = sum_pieces(shares, gradients.sums + (is_db ? place.db_sums : place.da_sums) + at, is_db ? db_size : da_size, blocks);
  if (blocks == 0 || threadIdx.x >= kPlaces) return;
  float4 &to = *reinterpret_cast<float4 *>((is_db ? adapter.db : adapter.da) + at);
  const float scale = is_db ? adapter.scale : 1.0f;
  to = make_float4(fmaf(scale, sum.x, to.x), fmaf(scale, sum.y, to.y), fmaf(scale, sum.z, to.z), fmaf(scale, sum.w, to.w));
}

// Rows a block passes over where `beside` blocks lie side by side: as few as `most` blocks allow, so that all are under way together.
int32_t rows_of_block(int64_t rows, int64_t beside, int64_t most) {
  const int64_t down = max(int64_t(1), most / beside);
  return int32_t(min(int64_t(kMostRows), max(int64_t(kLeastRows), ceil_div(ceil_div(rows, down), kPassRows) * kPassRows)));
}

} // namespace

GradientSizes plan_gradients(Gradients &plan, int64_t in, int64_t out, const Adapters &adapters) {
  plan.adapters = adapters, plan.in = in, plan.out = out;
  GradientSizes sizes;
  for (int32_t i = 0; i < adapters.count; i++) {
    const Adapter &a = adapters.at[i];
    GradientPlace &place = plan.places[i];
    const int64_t rows = a.row_count, x_blocks = ceil_div(in, kXColumns) * ceil_div(a.width(), 48);
    place.dy_rows = rows_of_block(rows, blocks_across(a), kDyBlocks), place.x_rows = rows_of_block(rows, x_blocks, kXBlocks);
    place.dyb_sums = sizes.sums, sizes.sums += blocks_across(a) * rows * a.rank;
    place.db_sums = sizes.sums, sizes.sums += row_blocks(a, place.dy_rows) * out * a.rank;
    place.da_sums = sizes.sums, sizes.sums += row_blocks(a, place.x_rows) * in * a.width();
    place.dyb = sizes.dyb, sizes.dyb += rows * padded_width(a);
  }
  return sizes;
}

void sum_dyb(cudaStream_t on, const Gradients &gradients) {
  int64_t most = 0;
  for (int32_t i = 0; i < gradients.adapters.count; i++)
    most = max(most, int64_t(gradients.adapters.at[i].row_count) * padded_width(gradients.adapters.at[i]) / 4);
  if (most > 0) launch_after(sum_dyb_kernel, dim3(unsigned(ceil_div(most, kPlaces)), unsigned(gradients.adapters.count)), kThreads, 0, on, gradients);
}

void add_sums(cudaStream_t on, const Gradients &gradients) {
  int64_t most = 0;
  for (int32_t i = 0; i < gradients.adapters.count; i++) {
    const Adapter &a = gradients.adapters.at[i];
    most = max(most, (gradients.out * a.rank + gradients.in * a.width()) / 4);
  }
  if (most > 0) launch_after(add_sums_kernel, dim3(unsigned(ceil_div(most, kPlaces)), unsigned(gradients.adapters.count)), kThreads, 0, on, gradients);
}

bool gradients_by_passes(int32_t type, const void *dx, const void *dy, const void *x, int64_t in, int64_t out, const Adapter &adapter) {
  if (type != ARBOR_BF16 || adapter.rank > kMostRank || (dx && adapter.width() > kMostTerms) || in % 8 != 0 || !adds_rounded(adapter, out)) return false;
  uint64_t aligned = 0;
  for (const void *at : std::initializer_list<const void *>{dx, dy, x, adapter.xa, adapter.da, adapter.db}) aligned |= reinterpret_cast<uint64_t>(at);
  return aligned % 16 == 0;
}

namespace {

// `come_to_dyb` is called when the sums of the pass over dy are there. dx, if given, has the product already.
template <class ComeToDyb>
int32_t pass(arbor_stream *stream, bf16 *dx, const bf16 *dy, const bf16 *x, int64_t in, int64_t out, const Adapters &adapters,
             const ComeToDyb &come_to_dyb) {
  Gradients gradients;
  const GradientSizes sizes = plan_gradients(gradients, in, out, adapters);
  void *memory = scratch(stream, 1, sizes.sums * 4 + sizes.dyb * 2);
  if (!memory) return ARBOR_OUT_OF_MEMORY;
  gradients.dyb = static_cast<bf16 *>(memory);
  gradients.sums = reinterpret_cast<float *>(gradients.dyb + sizes.dyb); // dyb's rows are of 32 bytes
  const cudaStream_t on = cuda_stream(stream);
  pass_over_dy(on, dy, gradients);
  if (const int32_t code = come_to_dyb(gradients); code != ARBOR_OK) return code;
  if (x) {
    pass_over_x(on, x, gradients);
    add_sums(on, gradients);
  }
  if (dx) {
    LowRanks all;
    for (int32_t i = 0; i < adapters.count; i++) {
      const Adapter &a = adapters.at[i];
      if (a.row_count == 0) continue;
      LowRank &one = all.at[all.count++];
      one.y = dx + a.row_start * in, one.low = gradients.dyb + gradients.places[i].dyb, one.high = a.a;
      one.y_ld = in, one.k_step = in, one.column_step = 1;
      one.rows = a.row_count, one.columns = int32_t(in), one.low_ld = padded_width(a), one.terms = a.width(), one.scale = 1;
    }
    add_low_ranks(on, all);
  }
  return launched(stream, "arbor_linear_backward");
}

} // namespace

int32_t add_gradients_by_passes(arbor_stream *stream, bf16 *dx, const bf16 *dy, const bf16 *x, int64_t in, int64_t out, const Adapters &adapters) {
  return pass(stream, dx, dy, x, in, out, adapters, [&](const Gradients &gradients) {
    sum_dyb(cuda_stream(stream), gradients);
    return int32_t(ARBOR_OK);
  });
}

int32_t multiply_back_adapted(arbor_stream *stream, bf16 *dx, const bf16 *dy, const bf16 *x, const void *weight, int64_t tokens, int64_t in, int64_t out,
                              const Adapters &adapters) {
  return pass(stream, nullptr, dy, x, in, out, adapters,
              [&](const Gradients &gradients) { return multiply_back_inside(stream, dx, dy, weight, tokens, gradients); });
}

} // namespace arbor
