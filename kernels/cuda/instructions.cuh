// The PTX instructions that CUDA C++ has no word for, and nothing else: the tests' stand-in for a GPU (test/emulator) replaces this one file.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "tile_map.cuh"

namespace arbor {

// Waits until the kernels before have ended and all they wrote is to be seen; the kernel behind may then be made ready. In this order, so that what is two
// launches old may be read before the wait.
__device__ __forceinline__ void after_kernels_before() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;\n\tgriddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// What is loaded before is not asked for later, nor the other way around.
__device__ __forceinline__ void loads_stay_here() { asm volatile("" ::: "memory"); }

// ---- copies into shared memory -------------------------------------------------------------------------------------------------

__device__ __forceinline__ uint32_t shared_address(const void *p) { return uint32_t(__cvta_generic_to_shared(p)); }

// 16 bytes, in the background; zeros when not `valid` (`from` must be an address even so).
__device__ __forceinline__ void copy_piece(void *to, const void *from, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(to)), "l"(from), "r"(valid ? 16 : 0) : "memory");
}
__device__ __forceinline__ void copy_number(void *to, const void *from, bool valid) { // 4 bytes
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;\n" ::"r"(shared_address(to)), "l"(from), "r"(valid ? 4 : 0) : "memory");
}
__device__ __forceinline__ void close_copies() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }
// Waits until all but the last `Open` closed groups of this thread's copies have arrived.
template <int Open> __device__ __forceinline__ void wait_copies() { asm volatile("cp.async.wait_group %0;\n" ::"n"(Open) : "memory"); }

// ---- tensor cores --------------------------------------------------------------------------------------------------------------

// Four 8 x 8 matrices, a lane's address giving one row of one of them.
__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row)
               : "memory");
}
__device__ __forceinline__ void load_transposed(uint32_t (&r)[4], uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row)
               : "memory");
}
// c[16 x 8] += a[16 x 16] b[16 x 8], fragments as PTX lays them out (mma.cuh).
__device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// ---- Hopper's: tiles by the copy engine, products by four warps together ---------------------------------------------------------

// What a tile's arrival is waited for at, in shared memory. One thread makes it ready for `tiles` of so many bytes in all, again before each further use.
typedef uint64_t Arrival;

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define ARBOR_HOPPER(...) __VA_ARGS__
#else
#define ARBOR_HOPPER(...)
#endif

// Arrivals that so many threads come to in each use.
__device__ __forceinline__ void make_arrivals(Arrival *arrivals, int count, int threads = 1) {
  for (int i = 0; i < count; i++) ARBOR_HOPPER(asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(arrivals + i)), "r"(threads) : "memory"));
  ARBOR_HOPPER(asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"));
}
__device__ __forceinline__ void arrive(Arrival *arrival) {
  ARBOR_HOPPER(asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(shared_address(arrival)) : "memory"));
}
__device__ __forceinline__ void expect_bytes(Arrival *arrival, int bytes) {
  ARBOR_HOPPER(asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(shared_address(arrival)), "r"(bytes) : "memory"));
}
// Uses of one arrival have parities 0, 1, 0, …
__device__ __forceinline__ void wait_for(Arrival *arrival, int parity) {
  ARBOR_HOPPER(asm volatile("{\n.reg .pred p;\nagain:\nmbarrier.try_wait.parity.shared.b64 p, [%0], %1;\n@p bra done;\nbra again;\ndone:\n}\n" ::"r"(shared_address(arrival)),
                            "r"(parity)
                            : "memory"));
}
// A tile, at a multiple of 1024 bytes.
__device__ __forceinline__ void copy_tile(void *to, const TileMap *map, int column, int row, Arrival *arrival) {
  ARBOR_HOPPER(asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(shared_address(to)),
                            "l"(map), "r"(shared_address(arrival)), "r"(column), "r"(row)
                            : "memory"));
}

// Products are computed in the background: begun, asked for, closed as a group, waited for. Until then nobody touches what they read or write.
__device__ __forceinline__ void begin_products() { ARBOR_HOPPER(asm volatile("wgmma.fence.sync.aligned;" ::: "memory")); }
__device__ __forceinline__ void close_products() { ARBOR_HOPPER(asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory")); }
template <int Open> __device__ __forceinline__ void wait_products() { ARBOR_HOPPER(asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Open) : "memory")); }
// What products leave in c is asked for neither earlier nor later than here.
template <int N> __device__ __forceinline__ void hold(float (&c)[N][4]) {
#pragma unroll
  for (int n = 0; n < N; n++) ARBOR_HOPPER(asm volatile("" : "+f"(c[n][0]), "+f"(c[n][1]), "+f"(c[n][2]), "+f"(c[n][3])::"memory"));
}
// This thread's copies have arrived: behind the next barrier products may read them.
__device__ __forceinline__ void show_copies() { ARBOR_HOPPER(asm volatile("fence.proxy.async.shared::cta;" ::: "memory")); }

#define ARBOR_FOUR(i) "+f"(c[i][0]), "+f"(c[i][1]), "+f"(c[i][2]), "+f"(c[i][3])
#define ARBOR_SUMS ARBOR_FOUR(0), ARBOR_FOUR(1), ARBOR_FOUR(2), ARBOR_FOUR(3), ARBOR_FOUR(4), ARBOR_FOUR(5), ARBOR_FOUR(6), ARBOR_FOUR(7)
#define ARBOR_M64N64K16 \
  "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}, "

// How products find a tile: rows of 128 bytes, swizzled, 8 of them 1024 bytes from the next 8.
__device__ __forceinline__ uint64_t described(const void *tile) {
  return uint64_t((shared_address(tile) & 0x3ffff) >> 4) | uint64_t(1) << 16 | uint64_t(64) << 32 | uint64_t(1) << 62;
}
// c[64 x N] += a tile of 64 rows times one of N rows, transposed: inner products of rows of 64 numbers, in order. A warp has 16 rows of c, a thread what
// `mma` gives it of each 8 columns. All four warps call it. Of the 64 rows Asked are asked for: sums of the others are any.
template <int N, int Asked = 64> __device__ __forceinline__ void add_tile_products(float (&c)[N / 8][4], const void *left, const void *right) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  const uint64_t a = described(left), b = described(right);
#pragma unroll
  for (int k = 0; k < 4; k++) { // 16 numbers are 32 bytes, in a description's units 2
    if constexpr (N == 8)
      asm volatile("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0,%1,%2,%3}, %4, %5, 1, 1, 1, 0, 0;" : ARBOR_FOUR(0) : "l"(a + 2 * k), "l"(b + 2 * k));
    else if constexpr (N == 16)
      asm volatile("wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7}, %8, %9, 1, 1, 1, 0, 0;"
                   : ARBOR_FOUR(0), ARBOR_FOUR(1)
                   : "l"(a + 2 * k), "l"(b + 2 * k));
    else if constexpr (N == 32)
      asm volatile("wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15}, %16, %17, 1, 1, 1, 0, 0;"
                   : ARBOR_FOUR(0), ARBOR_FOUR(1), ARBOR_FOUR(2), ARBOR_FOUR(3)
                   : "l"(a + 2 * k), "l"(b + 2 * k));
    else
      asm volatile(ARBOR_M64N64K16 "%32, %33, 1, 1, 1, 0, 0;" : ARBOR_SUMS : "l"(a + 2 * k), "l"(b + 2 * k));
  }
#endif
}
// c[64 x 64] += w[64 x 16], each warp's 16 rows as a left operand of `mma`, times 16 rows of a tile: weighted sums of rows of 64 numbers.
__device__ __forceinline__ void add_weighted_tile_rows(float (&c)[8][4], const uint32_t (&w)[4], const void *rows) {
  ARBOR_HOPPER(asm volatile(ARBOR_M64N64K16 "{%32,%33,%34,%35}, %36, 1, 1, 1, 1;" : ARBOR_SUMS : "r"(w[0]), "r"(w[1]), "r"(w[2]), "r"(w[3]), "l"(described(rows))));
}
#undef ARBOR_M64N64K16
#undef ARBOR_SUMS
#undef ARBOR_FOUR
#undef ARBOR_HOPPER

// 2^x to about two units in the last place; 0 for minus infinity.
__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
  return y;
}

} // namespace arbor
