// Gradients of adapters on tensor cores, bf16: a pass over dy gives sums of dy b and of dyᵀ xa, a pass over x those of (dy b)ᵀ x. Blocks divide rows
// and columns between them; what each has summed is kept apart and added in order afterwards. How rows are divided hangs on the adapter's own shape.
#pragma once

#include "lora.cuh"

namespace arbor {

constexpr int kPassRows = 32;   // a block's are a multiple of it, up to its end
constexpr int kDyColumns = 256; // of dy, a block's: of one member
constexpr int kXColumns = 128;  // of x, a block's
constexpr int kMostRank = 32;   // of the pass over dy

// Where an adapter's sums lie in `Gradients::sums`, and dyb in `Gradients::dyb`.
struct GradientPlace {
  int64_t dyb_sums; // [its blocks across dy][row_count][rank]
  int64_t db_sums;  // [blocks down dy][out][rank]
  int64_t da_sums;  // [blocks down x][width][in]
  int64_t dyb;      // [row_count][padded_width]: scale dy b, rounded, zeros behind it
  int32_t dy_rows, x_rows; // a block's
};

struct Gradients {
  Adapters adapters;
  GradientPlace places[kMostAdapters];
  int64_t in, out;
  float *sums;
  bf16 *dyb;
};
static_assert(sizeof(Gradients) + 16 <= 4096, "a kernel's parameters");

__host__ __device__ inline int32_t padded_width(const Adapter &adapter) { return (adapter.width() + 15) / 16 * 16; }
__host__ __device__ inline int32_t row_blocks(const Adapter &adapter, int32_t rows) { return (adapter.row_count + rows - 1) / rows; }
// Blocks that lie side by side over dy: none holds columns of two members.
__host__ __device__ inline int32_t blocks_of_part(const Adapter &adapter, int32_t part) { return (adapter.parts[part] + kDyColumns - 1) / kDyColumns; }
__host__ __device__ inline int32_t blocks_across(const Adapter &adapter) {
  int32_t blocks = 0;
  for (int32_t p = 0; p < adapter.part_count; p++) blocks += blocks_of_part(adapter, p);
  return blocks;
}

// A block's columns of dy or y.
struct PartColumns {
  int32_t part = 0;
  int64_t first, end; // of dy; the part ends there

  // Of the block `number` of those across.
  __host__ __device__ PartColumns(const Adapter &adapter, int32_t number) {
    int64_t start = 0;
    while (number >= blocks_of_part(adapter, part)) number -= blocks_of_part(adapter, part), start += adapter.parts[part++];
    first = start + int64_t(number) * kDyColumns, end = start + adapter.parts[part];
  }
};

struct GradientSizes {
  int64_t sums = 0; // floats
  int64_t dyb = 0;  // bf16
};
GradientSizes plan_gradients(Gradients &plan, int64_t in, int64_t out, const Adapters &adapters);

// Launches. The sums of dy b and dyᵀ xa, and of (dy b)ᵀ x.
void pass_over_dy(cudaStream_t on, const bf16 *dy, const Gradients &gradients);
void pass_over_x(cudaStream_t on, const bf16 *x, const Gradients &gradients);
// What is added of the sums: dyb, then db and da.
void sum_dyb(cudaStream_t on, const Gradients &gradients);
void add_sums(cudaStream_t on, const Gradients &gradients);

} // namespace arbor
