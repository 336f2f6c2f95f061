// kernels/cuda/instructions.cuh for a C++ compiler: what each PTX instruction does, as PTX ISA 8 tells it.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#include "tile_map.cuh"

namespace arbor {

inline void after_kernels_before() {} // a stream's kernels run one after the other

inline void loads_stay_here() {}

inline uint32_t shared_address(const void *p) { return emulator::shared_address(p); }

inline void copy_piece(void *to, const void *from, bool valid) { emulator::copy_later(to, from, 16, valid); }
inline void copy_number(void *to, const void *from, bool valid) { emulator::copy_later(to, from, 4, valid); }
inline void close_copies() { emulator::close_copies(); }
template <int Open> void wait_copies() { emulator::wait_copies(Open); }

// ldmatrix: lane 8m + i gives the address of row i of matrix m; lane l receives of each matrix, seen as rows, columns 2 (l % 4) and the next of
// row l / 4, or with `transposed` rows 2 (l % 4) and the next of column l / 4.
inline void load_four(uint32_t (&r)[4], uint32_t row, bool transposed) {
  const void *own = emulator::at_shared(row);
  const emulator::Answers answers = emulator::meet_warp(emulator::Meeting::load_matrices, ~0u, &own, sizeof own);
  const unsigned lane = emulator::lane(), major = lane / 4, minor = lane % 4 * 2;
  for (unsigned m = 0; m < 4; m++) {
    const auto number = [&](unsigned i, unsigned j) {
      uint16_t bits;
      std::memcpy(&bits, emulator::word_of<const char *>(answers.slots[8 * m + i]) + 2 * j, 2);
      return uint32_t(bits);
    };
    r[m] = transposed ? number(minor, major) | number(minor + 1, major) << 16 : number(major, minor) | number(major, minor + 1) << 16;
  }
}
inline void load_matrices(uint32_t (&r)[4], uint32_t row) { load_four(r, row, false); }
inline void load_transposed(uint32_t (&r)[4], uint32_t row) { load_four(r, row, true); }

// Fragments: lane = 4 group + pair; a[0..3] hold rows group, group + 8, group, group + 8 at columns 2 pair and the next, the last two 8 further on;
// b[0..1] hold column `group` at rows 2 pair and the next, the second 8 further on.
inline void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  struct Fragments {
    uint32_t a[4], b[2];
  };
  const Fragments own = {{a[0], a[1], a[2], a[3]}, {b0, b1}};
  const emulator::Answers answers = emulator::meet_warp(emulator::Meeting::multiply, ~0u, &own, sizeof own);
  const unsigned group = emulator::lane() / 4, pair = emulator::lane() % 4;
  const auto fragments = [&](unsigned lane) { return emulator::word_of<Fragments>(answers.slots[lane]); };
  const auto number = [](uint32_t two, unsigned which) { return __bfloat162float({uint16_t(which ? two >> 16 : two & 0xffff)}); };
  for (unsigned k = 0; k < 16; k++) {
    const unsigned holder = k % 8 / 2, half = k / 8, which = k % 2;
    const Fragments left = fragments(4 * group + holder);
    for (unsigned column = 0; column < 2; column++) {
      const float right = number(fragments(4 * (2 * pair + column) + holder).b[half], which);
      c[column] += number(left.a[2 * half], which) * right;
      c[2 + column] += number(left.a[2 * half + 1], which) * right;
    }
  }
}

// A tile arrives when it is asked for.
typedef emulator::Arrival Arrival;
inline void make_arrivals(Arrival *arrivals, int count, int threads = 1) {
  for (int i = 0; i < count; i++) arrivals[i] = {0, 0, threads, threads};
}
inline void arrive(Arrival *arrival) { emulator::come(arrival, 1, 0); }
inline void expect_bytes(Arrival *arrival, int bytes) { emulator::come(arrival, 1, bytes); }
inline void wait_for(Arrival *arrival, int parity) { emulator::wait_for_use(&arrival->uses, uint64_t(parity)); }
inline int swizzled(int row, int column) { return row * kTileColumns + (((column / 8) ^ (row % 8)) * 8 + column % 8); }
inline void copy_tile(void *to, const TileMap *map, int column, int row, Arrival *arrival) {
  constexpr int kPiece = 8;
  constexpr uint16_t kZeros[kPiece] = {};
  for (int i = 0; i < map->tile_rows; i++)
    for (int j = 0; j < kTileColumns; j += kPiece) {
      const bool inside = row + i < map->rows && column + j < map->columns;
      emulator::copy_words(static_cast<uint16_t *>(to) + swizzled(i, j), inside ? map->matrix + (row + i) * map->ld + column + j : kZeros, kPiece);
    }
  emulator::come(arrival, 0, -map->tile_rows * kTileColumns * 2);
}

// Products are done when they are asked for.
inline void begin_products() {}
inline void close_products() {}
template <int Open> void wait_products() {}
template <int N> void hold(float (&)[N][4]) {}
inline void show_copies() {}

template <int N, int Asked = 64> void add_tile_products(float (&c)[N / 8][4], const void *left, const void *right) {
  const auto number = [](const void *tile, int row, int column) { return __bfloat162float({static_cast<const uint16_t *>(tile)[swizzled(row, column)]}); };
  const int lane = int(emulator::lane()), warp = int(threadIdx.x) / 32 % 4;
  if (16 * warp >= Asked) return; // what lies there may be on its way
  for (int n = 0; n < N / 8; n++)
    for (int i = 0; i < 4; i++)
      for (int k = 0; k < kTileColumns; k++)
        c[n][i] += number(left, 16 * warp + lane / 4 + i / 2 * 8, k) * number(right, 8 * n + lane % 4 * 2 + i % 2, k);
}

inline void add_weighted_tile_rows(float (&c)[8][4], const uint32_t (&w)[4], const void *rows) {
  const int group = int(emulator::lane()) / 4, pair = int(emulator::lane()) % 4 * 2;
  for (int n = 0; n < 8; n++) {
    const auto two = [&](int row) {
      const auto number = [&](int r) { return uint32_t(static_cast<const uint16_t *>(rows)[swizzled(r, 8 * n + group)]); };
      return number(row) | number(row + 1) << 16;
    };
    mma(c[n], w, two(pair), two(pair + 8));
  }
}

inline float exp2_fast(float x) { return std::exp2(x); }

} // namespace arbor
