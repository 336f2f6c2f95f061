// Adapters of a linear, as arbor_linear is given them.
#pragma once

#include "stream.cuh"

namespace arbor {

constexpr int kParts = 4;         // most members of a fused weight
constexpr int kLoraNumbers = 13;  // doubles an adapter takes in the contract
constexpr int kMostAdapters = 32; // of one launch

struct Adapter {
  int32_t row_start, row_count, rank, part_count;
  int32_t parts[kParts]; // rows of b of each member
  float scale;
  const float *a; // [part_count * rank, in]
  const float *b; // [out, rank]
  float *xa;      // [row_count, part_count * rank]
  float *da, *db;

  __host__ __device__ int32_t width() const { return part_count * rank; }
  __host__ __device__ int64_t outputs() const {
    int64_t all = 0;
    for (int32_t part = 0; part < part_count; part++) all += parts[part];
    return all;
  }
  // The member that an output row belongs to.
  __host__ __device__ int32_t part_of(int64_t row) const {
    int32_t part = 0;
    for (int64_t end = parts[0]; part + 1 < part_count && row >= end; end += parts[part]) part++;
    return part;
  }
};

struct Adapters {
  int32_t count = 0;
  Adapter at[kMostAdapters];
};

// One adapter of a linear with so many outputs. False when a number makes no sense.
bool read_adapter(Adapter &to, const double *numbers, int64_t out);
// All of them. `backward`: gradients must be there.
bool read_adapters(Adapters &to, const double *loras, int64_t count, int64_t tokens, int64_t out, bool backward);

// Whether the kernels of lora_down.cu take it, or all of them: bf16, and widths that 16-byte loads can read.
bool projects_down(int32_t type, const void *x, int64_t in, const Adapter &adapter);
bool projects_down(int32_t type, const void *x, int64_t in, const Adapters &adapters);
// Whether scale xa bᵀ of rows that project down so is of xa and b rounded to bf16: rows of 16 bytes.
bool adds_rounded(const Adapter &adapter, int64_t out);
// xa of all adapters, and rounded to bf16 into `rounded[i]` where that is given.
int32_t project_down_rounded(arbor_stream *stream, const void *x, int64_t tokens, int64_t in, const Adapters &adapters, bf16 *const *rounded);

// Where each adapter's sums of x aᵀ lie in scratch memory: [pieces][row_count][width] from `start[i]` on.
struct PieceSums {
  float *at;
  int32_t pieces;
  int64_t start[kMostAdapters];
};

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

// The pieces' sums of x aᵀ, in scratch memory 1. False when there is none.
bool project_down(arbor_stream *stream, const void *x, int64_t tokens, int64_t in, const Adapters &adapters, PieceSums &sums);

// ---- roomy weights ---------------------------------------------------------------------------------------------------------------

// Rows behind a frozen bf16 weight's own, for adapters' a: of rows that decode the product with the weight computes x aᵀ as well. In training the first
// of them, and columns behind every row, lengthen the sum (lora_inside.cu).
constexpr int64_t kSpareRows = 384, kSpareColumns = 64;

// From a row of a weight to the next.
inline int64_t weight_ld(int32_t weight_type, int64_t in) { return weight_type == ARBOR_BF16_ROOMY ? in + kSpareColumns : in; }

// ---- rows that decode (lora_beside.cu) -----------------------------------------------------------------------------------------

// Whether an adapter's share is computed on tensor cores, of xa and b rounded to bf16 as a prompt's is. It hangs on adapter and weight alone.
constexpr int kUpColumns = 32; // of a warp
inline bool up_on_tensor_cores(const Adapter &adapter, int64_t out) {
  bool even = adapter.rank % 8 == 0 && out % kUpColumns == 0;
  for (int p = 0; p < adapter.part_count; p++) even = even && adapter.parts[p] % kUpColumns == 0;
  return even;
}

// Outputs without what adapters add to them, and where each adapter's x aᵀ is: terms in f32 (DecodeOutputs).
struct Unfinished {
  const float *outputs = nullptr; // [terms, tokens, ld]
  int32_t terms = 1;
  int64_t ld = 0;
  const float *low[kMostAdapters] = {}; // [terms, tokens, low_ld], from the adapter's first column on; null: in `sums`
  bool inside[kMostAdapters] = {};      // of the base's product where rows are a prompt's (lora_inside.cuh), so rounded with it
  int64_t low_ld[kMostAdapters] = {};
  PieceSums sums{};
};

// y = x Wᵀ + bias + Σ scale (x aᵀ) bᵀ, all but the last parts, which the op that reads y does, or whatever else comes before (lora_up.cuh). `laid`: the
// adapters' a have been laid behind the weight (arbor_lay_adapters).
int32_t decode_adapted(arbor_stream *stream, void *y, const void *x, const void *weight, int32_t weight_type, const float *bias, int64_t tokens, int64_t in,
                       int64_t out, const Adapters &adapters, bool laid);

// ---- many rows (lora.cu) --------------------------------------------------------------------------------------------------------

// y += bias + Σ scale (x aᵀ) bᵀ, and xa. `y` is of the activations' type or f32. Without adapters only the bias is added.
int32_t add_adapters(arbor_stream *stream, int32_t type, void *y, int32_t y_type, const void *x, const float *bias, int64_t tokens, int64_t in,
                     int64_t out, const Adapters &adapters);

// dx += Σ scale (dy b) a (where dx is given), da += scale (dy b)ᵀ x, db += scale dyᵀ xa.
int32_t add_adapter_gradients(arbor_stream *stream, int32_t type, void *dx, const void *dy, const void *x, int64_t in, int64_t out,
                              const Adapters &adapters);
// The same with dx = dy W + …, of adapters that go by passes. `weight` is roomy.
int32_t multiply_back_adapted(arbor_stream *stream, bf16 *dx, const bf16 *dy, const bf16 *x, const void *weight, int64_t tokens, int64_t in, int64_t out,
                              const Adapters &adapters);
// The same on tensor cores, in a few launches for all adapters that it takes: bf16, ranks 8 to 32, all that is read and written in rows of 16 bytes.
bool gradients_by_passes(int32_t type, const void *dx, const void *dy, const void *x, int64_t in, int64_t out, const Adapter &adapter);
int32_t add_gradients_by_passes(arbor_stream *stream, bf16 *dx, const bf16 *dy, const bf16 *x, int64_t in, int64_t out, const Adapters &adapters);

} // namespace arbor
