// What the attention kernels do by four warps together (wgmma, compute capability 9.0): products of tiles of 64 rows that lie in panels. Sums run in the
// order of mma.cuh, so bits are those of the kernels for warps by themselves.
#pragma once

#include "attention.cuh"

namespace arbor {

constexpr int kGroupRows = 64, kGroupThreads = 128, kPanel = 64 * 64; // numbers of a tile of 64 rows in a panel

// Asks for c[64 x 64] += 64 rows of `left` times 64 of `right`, transposed; panels are `left_step` and `right_step` numbers apart.
template <int D>
__device__ __forceinline__ void add_inner_products_together(float (&c)[8][4], const bf16 *left, int left_step, const bf16 *right, int right_step) {
#pragma unroll
  for (int panel = 0; panel < D / 64; panel++) add_tile_products<64>(c, left + panel * left_step, right + panel * right_step);
}

// Asks for c[64 x D] += w[64 x K] times K rows of `rows`.
template <int D, int K>
__device__ __forceinline__ void add_weighted_rows_together(float (&c)[D / 8][4], const uint32_t (&w)[K / 16][4], const bf16 *rows, int step) {
#pragma unroll
  for (int k = 0; k < K / 16; k++)
#pragma unroll
    for (int panel = 0; panel < D / 64; panel++)
      add_weighted_tile_rows(reinterpret_cast<float(&)[8][4]>(c[8 * panel]), w[k], rows + panel * step + k * 16 * 64);
}

// The dynamic shared memory from the next multiple of 1024 bytes on: kGroupSpare bytes more have been asked for.
constexpr size_t kGroupSpare = 1024;
__device__ __forceinline__ unsigned char *at_tile(unsigned char *memory) { return memory + (1024 - shared_address(memory) % 1024) % 1024; }

// Calls `code` with D bound to the head's width.
#define ARBOR_BY_PANELS(dim, ...) \
  do {                            \
    if ((dim) == 128) {           \
      constexpr int D = 128;      \
      __VA_ARGS__;                \
    } else {                      \
      constexpr int D = 64;       \
      __VA_ARGS__;                \
    }                             \
  } while (0)

// Whether these kernels take rows of this width here.
inline bool for_warpgroups(arbor_stream *stream, int dim) { return has_warpgroups(stream) && dim % 64 == 0; }

} // namespace arbor
