// Flash attention (Dao, 2023) for any segments: a block has a tile of packed rows of one segment and passes over the keys that they see, 64 at
// a time. The copies of a block of keys and values run while the one before is computed. Each of its warps has 16 rows, whose scores,
// weights and sums never leave its registers. Where four warps can multiply together they do; a row's bits are the same.

#include "attention_softmax.cuh"
#include "attention_warpgroups.cuh"

namespace arbor {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps, kRows = 16 * kWarps, kKeys = 64;
static_assert(kRows == kMmaRows, "tiles are planned so");

// One tile of rows, two of keys and two of values.
template <int D> constexpr size_t kShared = (kRows + 4 * kKeys) * D * sizeof(bf16);

// A warp's products: by itself ...
template <int D> struct Alone {
  typedef Whole<D, kRows> RowLayout;
  typedef Whole<D, kKeys> KeyLayout;
  static constexpr int kTogether = 1; // warps that go the same way
  static constexpr size_t kSpare = 0;
  static __device__ __forceinline__ unsigned char *tiles(unsigned char *memory) { return memory; }
  static __device__ __forceinline__ void arrived() {}
  static __device__ __forceinline__ void score(float (&scores)[kKeys / 8][4], const bf16 *queries, int warp, const bf16 *keys, int lane) {
    add_inner_products<D, kKeys>(scores, queries, 16 * warp, keys, 0, lane);
  }
  static __device__ __forceinline__ void sum(float (&sums)[D / 8][4], const uint32_t (&weights)[kKeys / 16][4], const bf16 *values, int lane) {
    add_weighted_rows<D, kKeys>(sums, weights, values, 0, lane);
  }
};
// ... and with the three others of its group.
template <int D> struct Together {
  typedef Panels<D, kRows> RowLayout;
  typedef Panels<D, kKeys> KeyLayout;
  static constexpr int kTogether = 4;
  static constexpr size_t kSpare = kGroupSpare;
  static __device__ __forceinline__ unsigned char *tiles(unsigned char *memory) { return at_tile(memory); }
  static __device__ __forceinline__ void arrived() { show_copies(); }
  static __device__ __forceinline__ void score(float (&scores)[kKeys / 8][4], const bf16 *queries, int warp, const bf16 *keys, int) {
    hold(scores);
    begin_products();
    add_inner_products_together<D>(scores, queries + warp / 4 * kPanel, kRows * 64, keys, kPanel);
    close_products();
    wait_products<0>();
    hold(scores);
  }
  static __device__ __forceinline__ void sum(float (&sums)[D / 8][4], const uint32_t (&weights)[kKeys / 16][4], const bf16 *values, int) {
    hold(sums);
    begin_products();
    add_weighted_rows_together<D, kKeys>(sums, weights, values, kPanel);
    close_products();
    wait_products<0>();
    hold(sums);
  }
};

// Writes a warp's rows, through its own rows of the tile of queries, that the stores be whole pieces.
template <int D, class Layout>
__device__ __forceinline__ void store_rows(Sums<D> &sums, const PackedRows &rows, int warp, int lane, bf16 *tile, bf16 *out, float *lse,
                                           float scale) {
#pragma unroll
  for (int row = 0; row < 2; row++) {
    const float total = sum_of_four(sums.total[row]);
    const int r = 16 * warp + 8 * row + (lane >> 2);
    if (lse && (lane & 3) == 0 && r < rows.count) lse[rows.at(r)] = sums.peak[row] * scale * kLn2 + logf(total);
    const float by = 1 / total;
#pragma unroll
    for (int n = 0; n < D / 8; n++)
      *reinterpret_cast<uint32_t *>(tile + Layout::at(r, n) + 2 * (lane & 3)) =
          pack_pair(sums.out[n][2 * row] * by, sums.out[n][2 * row + 1] * by);
  }
  __syncwarp();
  for (int i = lane; i < 16 * D / 8; i += 32) {
    const int r = 16 * warp + i / (D / 8), piece = i % (D / 8);
    if (r < rows.count) store_pack(out + int64_t(rows.at(r)) * D + 8 * piece, load_pack(tile + Layout::at(r, piece)));
  }
}

template <int D, class Products>
__global__ void __launch_bounds__(kThreads, 2) prefill_kernel(AttentionShape shape, AttentionTiles tiles, const bf16 *q, const bf16 *k,
                                                              const bf16 *v, bf16 *out, float *lse, float scale) {
  extern __shared__ __align__(256) unsigned char memory[];
  bf16 *const queries = reinterpret_cast<bf16 *>(Products::tiles(memory)), *const keys = queries + kRows * D, *const values = keys + 2 * kKeys * D;
  after_kernels_before();
  // Backwards: the last tiles of a segment see the most keys, and long blocks are better begun early.
  const int t = tiles.counts[0] - 1 - int(blockIdx.x) / shape.kv_heads, kv_head = int(blockIdx.x) % shape.kv_heads;
  if (t < 0) return;
  const QueryTile tile = tiles.queries[t];
  Segment segment;
  if (!read_segment(shape, tile.segment, segment)) return;
  const PackedRows rows(shape, segment, kv_head, tile.first, kRows);
  const int thread = int(threadIdx.x), lane = thread & 31, warp = thread >> 5, length = rows.seen(kRows - 1);

  KeyCopies<D, kKeys, kThreads, typename Products::KeyLayout> copies(shape, shape.context + segment.context_start, length, thread);
  const bf16 *const k_head = k + kv_head * D, *const v_head = v + kv_head * D;
  const auto copy_block = [&](int block) {
    copies.check_slots();
    copies.copy(keys + (block & 1) * kKeys * D, k_head, values + (block & 1) * kKeys * D, v_head);
    close_copies();
    copies.read_slots((block + 1) * kKeys);
  };
  copies.read_slots(0);
  RowCopies<D, kRows, kThreads, typename Products::RowLayout>(rows, thread).copy(queries, q);
  copy_block(0);

  Sums<D> sums;
  const bool idle = 16 * warp >= rows.count; // it only copies
  const int own = 16 * warp + (lane >> 2), seen[2] = {rows.seen(own), rows.seen(own + 8)};
  const int seen_by_all = rows.seen(16 * warp), first_together = warp / Products::kTogether * Products::kTogether * 16;
  const int seen_by_any = first_together >= rows.count ? 0 : rows.seen(first_together + 16 * Products::kTogether - 1);
  const int blocks = (length + kKeys - 1) / kKeys;
  for (int block = 0; block < blocks; block++) {
    wait_copies<0>();
    Products::arrived();
    __syncthreads(); // this block is here, and nobody reads the one before any more
    if (block + 1 < blocks) copy_block(block + 1);
    const int first = block * kKeys;
    if (first >= seen_by_any) continue;
    float scores[kKeys / 8][4] = {};
    Products::score(scores, queries, warp, keys + (block & 1) * kKeys * D, lane);
    if (first + kKeys > seen_by_all) mask<kKeys>(scores, seen, first, lane);
    soften<D, kKeys>(scores, sums, scale * kLog2e);
    uint32_t weights[kKeys / 16][4];
    as_left_operand<kKeys>(weights, scores);
    Products::sum(sums.out, weights, values + (block & 1) * kKeys * D, lane);
  }
  __syncthreads(); // nobody reads the queries any more
  if (!idle) store_rows<D, typename Products::RowLayout>(sums, rows, warp, lane, queries, out, lse, scale * kLog2e);
}

template <int D, class Products>
bool launch(arbor_stream *stream, const AttentionShape &shape, const AttentionTiles &tiles, const AttentionTensors &t) {
  constexpr size_t kBytes = kShared<D> + Products::kSpare;
  if (!allow_shared(prefill_kernel<D, Products>, kBytes)) return false;
  launch_after(prefill_kernel<D, Products>, unsigned(tiles.query_bound * shape.kv_heads), kThreads, kBytes, cuda_stream(stream), shape, tiles,
               static_cast<const bf16 *>(t.q), static_cast<const bf16 *>(t.k), static_cast<const bf16 *>(t.v), static_cast<bf16 *>(t.out), t.lse,
               1 / sqrtf(float(shape.dim)));
  return true;
}

} // namespace

int32_t attend_prefill(arbor_stream *stream, const AttentionShape &shape, const AttentionTensors &t, bool same_plan) {
  AttentionTiles tiles;
  const int32_t planned = plan_attention(stream, "arbor_attention", shape, same_plan, {kRows, 0}, tiles);
  if (planned != ARBOR_OK) return planned;
  bool done = false;
  if (for_warpgroups(stream, shape.dim))
    ARBOR_BY_PANELS(shape.dim, done = launch<D, Together<D>>(stream, shape, tiles, t));
  else
    ARBOR_BY_WIDTH(shape.dim, done = launch<D, Alone<D>>(stream, shape, tiles, t));
  return done ? launched(stream, "arbor_attention") : unsupported("arbor_attention", "too little shared memory on this device");
}

} // namespace arbor
