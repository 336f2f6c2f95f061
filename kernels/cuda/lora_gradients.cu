// Gradients of adapters in five launches: the pass over dy, dyb from its sums, the pass over x, dx += dyb a, and the sums of both passes into da and db.

#include "lora_gradients.cuh"

#include "lora_add_mma.cuh"
#include "mma.cuh"

namespace arbor {
namespace {

constexpr int kThreads = 256;
constexpr int kWantedDy = 2 * 132, kWantedX = 2 * 132; // blocks of a pass
constexpr int32_t kLeastRows = 64, kMostRows = 512; // a block's of a pass

// Sums of `count` pieces, four columns of them, in order. `stride`: floats from a piece to the next.
__device__ __forceinline__ float4 sum_pieces(const float *sums, int64_t stride, int32_t count) {
  constexpr int kAtOnce = 8;
  float4 total = make_float4(0, 0, 0, 0);
  for (int32_t start = 0; start < count; start += kAtOnce) { // loads under way together, added in order
    float4 values[kAtOnce];
#pragma unroll
    for (int j = 0; j < kAtOnce; j++)
      values[j] = start + j < count ? *reinterpret_cast<const float4 *>(sums + (start + j) * stride) : make_float4(0, 0, 0, 0);
#pragma unroll
    for (int j = 0; j < kAtOnce; j++) total.x += values[j].x, total.y += values[j].y, total.z += values[j].z, total.w += values[j].w;
  }
  return total;
}

// dyb = scale dy b, rounded. blockIdx.y: the adapter.
__global__ void sum_dyb_kernel(const __grid_constant__ Gradients gradients) {
  const Adapter &adapter = gradients.adapters.at[blockIdx.y];
  const GradientPlace &place = gradients.places[blockIdx.y];
  const int32_t padded = padded_width(adapter);
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x, row = i / (padded / 4);
  if (row >= adapter.row_count) return;
  const int32_t column = int32_t(i % (padded / 4)) * 4, part = column / adapter.rank;
  float4 sum = make_float4(0, 0, 0, 0);
  if (part < adapter.part_count) {
    int32_t before = 0;
    for (int32_t p = 0; p < part; p++) before += blocks_of_part(adapter, p);
    const int64_t size = int64_t(adapter.row_count) * adapter.rank;
    sum = sum_pieces(gradients.sums + place.dyb_sums + before * size + row * adapter.rank + column % adapter.rank, size, blocks_of_part(adapter, part));
  }
  *reinterpret_cast<uint2 *>(gradients.dyb + place.dyb + row * padded + column) =
      make_uint2(pack_pair(adapter.scale * sum.x, adapter.scale * sum.y), pack_pair(adapter.scale * sum.z, adapter.scale * sum.w));
}

__device__ __forceinline__ void add_to(float *to, float scale, const float4 &sum) {
  float4 &place = *reinterpret_cast<float4 *>(to);
  place = make_float4(fmaf(scale, sum.x, place.x), fmaf(scale, sum.y, place.y), fmaf(scale, sum.z, place.z), fmaf(scale, sum.w, place.w));
}

// db and da. blockIdx.y: the adapter.
__global__ void add_sums_kernel(const __grid_constant__ Gradients gradients) {
  const Adapter &adapter = gradients.adapters.at[blockIdx.y];
  const GradientPlace &place = gradients.places[blockIdx.y];
  if (adapter.row_count == 0) return;
  int64_t i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * 4;
  const int64_t db_size = gradients.out * adapter.rank, da_size = gradients.in * adapter.width();
  if (i < db_size) {
    add_to(adapter.db + i, adapter.scale, sum_pieces(gradients.sums + place.db_sums + i, db_size, row_blocks(adapter, place.dy_rows)));
    return;
  }
  i -= db_size;
  if (i < da_size) add_to(adapter.da + i, 1, sum_pieces(gradients.sums + place.da_sums + i, da_size, row_blocks(adapter, place.x_rows)));
}

// Rows a block passes over where `beside` blocks lie side by side.
int32_t rows_of_block(int64_t rows, int64_t beside, int64_t wanted) {
  const int64_t down = max(int64_t(1), ceil_div(wanted, beside));
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
    place.dy_rows = rows_of_block(rows, blocks_across(a), kWantedDy), place.x_rows = rows_of_block(rows, x_blocks, kWantedX);
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
  if (most > 0) sum_dyb_kernel<<<dim3(unsigned(ceil_div(most, kThreads)), unsigned(gradients.adapters.count)), kThreads, 0, on>>>(gradients);
}

void add_sums(cudaStream_t on, const Gradients &gradients) {
  int64_t most = 0;
  for (int32_t i = 0; i < gradients.adapters.count; i++) {
    const Adapter &a = gradients.adapters.at[i];
    most = max(most, (gradients.out * a.rank + gradients.in * a.width()) / 4);
  }
  if (most > 0) add_sums_kernel<<<dim3(unsigned(ceil_div(most, kThreads)), unsigned(gradients.adapters.count)), kThreads, 0, on>>>(gradients);
}

bool gradients_by_passes(int32_t type, const void *dx, const void *dy, const void *x, int64_t in, int64_t out, const Adapters &adapters) {
  if (type != ARBOR_BF16 || in % 8 != 0 || out % 8 != 0) return false;
  uint64_t aligned = reinterpret_cast<uint64_t>(dx) | reinterpret_cast<uint64_t>(dy) | reinterpret_cast<uint64_t>(x);
  for (int32_t i = 0; i < adapters.count; i++) {
    const Adapter &a = adapters.at[i];
    aligned |= reinterpret_cast<uint64_t>(a.xa) | reinterpret_cast<uint64_t>(a.da) | reinterpret_cast<uint64_t>(a.db);
    if (a.rank % 8 != 0 || a.rank > kMostRank || (dx && a.width() > kMostTerms)) return false;
    for (int32_t p = 0; p < a.part_count; p++)
      if (a.parts[p] % 8 != 0) return false;
  }
  return aligned % 16 == 0;
}

int32_t add_gradients_by_passes(arbor_stream *stream, bf16 *dx, const bf16 *dy, const bf16 *x, int64_t in, int64_t out, const Adapters &adapters) {
  Gradients gradients;
  const GradientSizes sizes = plan_gradients(gradients, in, out, adapters);
  void *memory = scratch(stream, 1, sizes.sums * 4 + sizes.dyb * 2);
  if (!memory) return ARBOR_OUT_OF_MEMORY;
  gradients.dyb = static_cast<bf16 *>(memory);
  gradients.sums = reinterpret_cast<float *>(gradients.dyb + sizes.dyb); // dyb's rows are of 32 bytes
  const cudaStream_t on = cuda_stream(stream);
  pass_over_dy(on, dy, gradients);
  sum_dyb(on, gradients);
  pass_over_x(on, x, gradients);
  add_sums(on, gradients);
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

} // namespace arbor
