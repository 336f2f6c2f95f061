// Tiles of bf16 rows in shared memory and products of them on tensor cores (mma.sync m16n8k16, sm_80 and newer). One warp computes 16 rows
// of a product. Fragment layouts: PTX ISA, "Matrix Fragments for mma.m16n8k16": lane = 4 * group + pair; an accumulator c[n][0..3] holds
// rows `group` (0, 1) and `group + 8` (2, 3) at columns 8n + 2 * pair + {0, 1}.
#pragma once

#include "instructions.cuh"
#include "stream.cuh"

namespace arbor {

// Where the 16-byte piece `piece` of row `row` lies in a tile of rows of D numbers. The piece is XORed with the row, so that the eight rows
// that ldmatrix reads at one piece lie in different banks. A tile begins at a multiple of a row's bytes.
template <int D> __host__ __device__ constexpr int tile_at(int row, int piece) {
  constexpr int kPieces = D / 8, kRowsInBanks = kPieces >= 8 ? 1 : 8 / kPieces;
  return row * D + ((piece ^ (row / kRowsInBanks % (kPieces >= 8 ? 8 : kPieces))) << 3);
}

// ---- products ------------------------------------------------------------------------------------------------------------------

// A lane's address in a 16 x 16 block at `row` whose four matrices go down first (left operand, and right operand transposed) ...
template <int D> __device__ __forceinline__ uint32_t down_address(const bf16 *tile, int row, int lane) {
  return shared_address(tile + tile_at<D>(row + (lane & 15), lane >> 4));
}
// ... or across first (right operand whose rows are columns of the product). For the block i further right it is XORed with 32 i, as tiles begin
// at multiples of a row; for the one 16 rows further down it grows by kDown<D>.
template <int D> __device__ __forceinline__ uint32_t across_address(const bf16 *tile, int row, int lane) {
  return shared_address(tile + tile_at<D>(row + (lane & 7) + (lane >> 4 << 3), lane >> 3 & 1));
}
template <int D> constexpr int kDown = 16 * D * int(sizeof(bf16));

// c[16 x N] += rows [a_row, a_row + 16) of `a` times rows [b_row, b_row + N) of `b`, transposed: inner products of rows of D numbers. For each of
// Strips strips of 16 rows, that what is read of `b` serves them all.
template <int D, int N, int Strips>
__device__ __forceinline__ void add_inner_products(float (&c)[Strips][N / 8][4], const bf16 *a, int a_row, const bf16 *b, int b_row,
                                                   int lane) {
  const uint32_t a_at = down_address<D>(a, a_row, lane), b_at = across_address<D>(b, b_row, lane);
#pragma unroll
  for (int k = 0; k < D / 16; k++) {
    uint32_t left[Strips][4];
#pragma unroll
    for (int strip = 0; strip < Strips; strip++) load_matrices(left[strip], (a_at ^ 32 * k) + strip * kDown<D>);
#pragma unroll
    for (int n = 0; n < N / 16; n++) {
      uint32_t right[4];
      load_matrices(right, (b_at ^ 32 * k) + n * kDown<D>);
#pragma unroll
      for (int strip = 0; strip < Strips; strip++) {
        mma(c[strip][2 * n], left[strip], right[0], right[1]);
        mma(c[strip][2 * n + 1], left[strip], right[2], right[3]);
      }
    }
  }
}
template <int D, int N>
__device__ __forceinline__ void add_inner_products(float (&c)[N / 8][4], const bf16 *a, int a_row, const bf16 *b, int b_row, int lane) {
  add_inner_products<D, N, 1>(reinterpret_cast<float (&)[1][N / 8][4]>(c), a, a_row, b, b_row, lane);
}

// c[16 x D] += w[16 x K] times rows [b_row, b_row + K) of `b`: weighted sums of rows of D numbers. For each of Strips strips.
template <int D, int K, int Strips>
__device__ __forceinline__ void add_weighted_rows(float (&c)[Strips][D / 8][4], const uint32_t (&w)[Strips][K / 16][4], const bf16 *b,
                                                  int b_row, int lane) {
  const uint32_t b_at = down_address<D>(b, b_row, lane);
#pragma unroll
  for (int k = 0; k < K / 16; k++)
#pragma unroll
    for (int n = 0; n < D / 16; n++) {
      uint32_t right[4];
      load_transposed(right, (b_at ^ 32 * n) + k * kDown<D>);
#pragma unroll
      for (int strip = 0; strip < Strips; strip++) {
        mma(c[strip][2 * n], w[strip][k], right[0], right[1]);
        mma(c[strip][2 * n + 1], w[strip][k], right[2], right[3]);
      }
    }
}
template <int D, int K>
__device__ __forceinline__ void add_weighted_rows(float (&c)[D / 8][4], const uint32_t (&w)[K / 16][4], const bf16 *b, int b_row,
                                                  int lane) {
  add_weighted_rows<D, K, 1>(reinterpret_cast<float (&)[1][D / 8][4]>(c), reinterpret_cast<const uint32_t (&)[1][K / 16][4]>(w), b, b_row,
                             lane);
}

__device__ __forceinline__ uint32_t pack_pair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t *>(&pair);
}

// Eight neighbours in f32, rounded to 16 bytes of bf16 when used.
struct EightFloats {
  float4 low, high;
  __device__ __forceinline__ void load(const float *from) {
    low = *reinterpret_cast<const float4 *>(from);
    high = *reinterpret_cast<const float4 *>(from + 4);
  }
  __device__ __forceinline__ void clear() { low = high = make_float4(0, 0, 0, 0); }
  __device__ __forceinline__ uint4 values() const { return make_uint4(pack_pair(low.x, low.y), pack_pair(low.z, low.w), pack_pair(high.x, high.y), pack_pair(high.z, high.w)); }
};

// A product's accumulators, rounded to bf16, as the left operand of the next product.
template <int N> __device__ __forceinline__ void as_left_operand(uint32_t (&w)[N / 16][4], const float (&c)[N / 8][4]) {
#pragma unroll
  for (int k = 0; k < N / 16; k++) {
    w[k][0] = pack_pair(c[2 * k][0], c[2 * k][1]);
    w[k][1] = pack_pair(c[2 * k][2], c[2 * k][3]);
    w[k][2] = pack_pair(c[2 * k + 1][0], c[2 * k + 1][1]);
    w[k][3] = pack_pair(c[2 * k + 1][2], c[2 * k + 1][3]);
  }
}

constexpr float kLog2e = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

} // namespace arbor
