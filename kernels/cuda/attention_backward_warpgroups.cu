// Gradient of attention by four warps together (compute capability 9.0), else as attention_backward_mma.cu: what the weights are multiplied with is read
// from shared memory by the tensor cores themselves, and a block's products run while others of the same multiprocessor are at their exponentials.
// One launch has the blocks of dk and dv and, behind them, those of dq.

#include <algorithm>

#include "attention_shares.cuh"
#include "attention_warpgroups.cuh"

namespace arbor {
namespace {

constexpr int kKeys = kGroupRows, kThreads = kGroupThreads;
static_assert(kKeys == kMmaKeys && kGroupRows == kTogetherRows && kGroupRows == kMmaStepRows && kThreads == kShareThreads, "tiles are planned so");

// ---- dq ------------------------------------------------------------------------------------------------------------------------

template <int D> struct QueryShared {
  bf16 queries[kGroupRows * D], d_outs[kGroupRows * D], keys[2][kKeys * D], values[2][kKeys * D];
};

struct BackwardTensors {
  const bf16 *q, *k, *v, *d_out;
  const float *lse, *delta;
  bf16 *dq;
};

template <int D>
__device__ __forceinline__ void query_gradients(const AttentionShape &shape, const AttentionTiles &tiles, const BackwardTensors &of, int t, int kv_head,
                                                float scale, QueryShared<D> &shared) {
  typedef Panels<D, kGroupRows> Layout;
  const QueryTile tile = tiles.queries[t];
  Segment segment;
  if (!read_segment(shape, tile.segment, segment)) return;
  const PackedRows rows(shape, segment, kv_head, tile.first, kGroupRows);
  const int thread = int(threadIdx.x), lane = thread & 31, own_row = (thread >> 5) * 16, length = rows.seen(kGroupRows - 1);

  KeyCopies<D, kKeys, kThreads, Layout> copies(shape, shape.context + segment.context_start, length, thread);
  const auto copy_block = [&](int block) {
    copies.check_slots();
    copies.copy(shared.keys[block & 1], of.k + kv_head * D, shared.values[block & 1], of.v + kv_head * D);
    close_copies();
    copies.read_slots((block + 1) * kKeys);
  };
  copies.read_slots(0);
  const RowCopies<D, kGroupRows, kThreads, Layout> row_copies(rows, thread);
  row_copies.copy(shared.queries, of.q);
  row_copies.copy(shared.d_outs, of.d_out);
  copy_block(0);

  int seen[2];
  float lses[2], deltas[2];
#pragma unroll
  for (int row = 0; row < 2; row++) {
    const int r = own_row + (lane >> 2) + 8 * row;
    const bool valid = r < rows.count;
    seen[row] = rows.seen(r);
    lses[row] = valid ? of.lse[rows.at(r)] * kLog2e : 0, deltas[row] = valid ? of.delta[rows.at(r)] : 0;
  }
  const int seen_by_all = rows.seen(0), blocks = (length + kKeys - 1) / kKeys;
  float sums[D / 8][4] = {};
  for (int block = 0; block < blocks; block++) {
    const bf16 *const keys = shared.keys[block & 1], *const values = shared.values[block & 1];
    const int first = block * kKeys;
    wait_copies<0>();
    show_copies();
    __syncthreads(); // this block is here, and nobody reads the one before any more
    if (block + 1 < blocks) copy_block(block + 1);
    float ds[kKeys / 8][4] = {}, d_weights[kKeys / 8][4] = {};
    hold(ds), hold(d_weights);
    begin_products();
    add_inner_products_together<D>(ds, shared.queries, kPanel, keys, kPanel);
    close_products();
    add_inner_products_together<D>(d_weights, shared.d_outs, kPanel, values, kPanel);
    close_products();
    wait_products<1>();
    hold(ds);
#pragma unroll
    for (int n = 0; n < kKeys / 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) ds[n][i] = exp2_fast(fmaf(ds[n][i], scale * kLog2e, -lses[i >> 1]));
    if (first + kKeys > seen_by_all) {
#pragma unroll
      for (int n = 0; n < kKeys / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
          if (first + 8 * n + 2 * (lane & 3) + (i & 1) >= seen[i >> 1]) ds[n][i] = 0;
    }
    wait_products<0>();
    hold(d_weights);
#pragma unroll
    for (int n = 0; n < kKeys / 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) ds[n][i] *= d_weights[n][i] - deltas[i >> 1];
    uint32_t left[kKeys / 16][4];
    as_left_operand<kKeys>(left, ds);
    begin_products();
    add_weighted_rows_together<D, kKeys>(sums, left, keys, kPanel);
    close_products();
    wait_products<0>();
    hold(sums);
  }
  __syncthreads(); // nobody reads the queries any more: rows go out through them, in whole pieces
  store_rows<D, Layout>(sums, rows, own_row, shared.queries, of.dq, scale);
}

// ---- dk, dv --------------------------------------------------------------------------------------------------------------------

// Adds what a stage's rows give to dk and dv of the keys, of which this lane has key and key + 8. Rows past the end are zeros, and so is what they give.
template <int D>
__device__ __forceinline__ void add_stage(float (&dk)[D / 8][4], float (&dv)[D / 8][4], const KeyShared<D> &shared, int stage, bool masked, int key,
                                          float scale) {
  const int lane = int(threadIdx.x) & 31;
  float weights[kGroupRows / 8][4] = {}, ds[kGroupRows / 8][4] = {};
  hold(weights), hold(ds);
  begin_products();
  add_inner_products_together<D>(weights, shared.keys, kPanel, shared.queries[stage], kPanel);
  close_products();
  add_inner_products_together<D>(ds, shared.values, kPanel, shared.d_outs[stage], kPanel);
  close_products();
  wait_products<1>();
  hold(weights);
#pragma unroll
  for (int n = 0; n < kGroupRows / 8; n++) {
    const int r = 8 * n + 2 * (lane & 3);
    const float2 lse = *reinterpret_cast<const float2 *>(&shared.lse[stage][r]);
#pragma unroll
    for (int i = 0; i < 4; i++) weights[n][i] = exp2_fast(fmaf(weights[n][i], scale, -(i & 1 ? lse.y : lse.x) * kLog2e));
    if (masked) {
      const int2 seen = *reinterpret_cast<const int2 *>(&shared.seen[stage][r]);
#pragma unroll
      for (int i = 0; i < 4; i++)
        if (key + 8 * (i >> 1) >= (i & 1 ? seen.y : seen.x)) weights[n][i] = 0;
    }
  }
  uint32_t left[kGroupRows / 16][4];
  as_left_operand<kGroupRows>(left, weights);
  begin_products();
  add_weighted_rows_together<D, kGroupRows>(dv, left, shared.d_outs[stage], kPanel);
  close_products();
  wait_products<1>();
  hold(ds);
#pragma unroll
  for (int n = 0; n < kGroupRows / 8; n++) {
    const float2 delta = *reinterpret_cast<const float2 *>(&shared.delta[stage][8 * n + 2 * (lane & 3)]);
#pragma unroll
    for (int i = 0; i < 4; i++) ds[n][i] = weights[n][i] * (ds[n][i] - (i & 1 ? delta.y : delta.x));
  }
  uint32_t right[kGroupRows / 16][4];
  as_left_operand<kGroupRows>(right, ds);
  begin_products();
  add_weighted_rows_together<D, kGroupRows>(dk, right, shared.queries[stage], kPanel);
  close_products();
  wait_products<0>();
  hold(dv), hold(dk);
}

template <int D>
__device__ __forceinline__ void key_gradients(const AttentionShape &shape, const AttentionTiles &tiles, const BackwardTensors &of, const ShareSums &to,
                                              int own_share, int first_share, int kv_head, float scale, KeyShared<D> &shared) {
  const KeyShare share = tiles.shares[own_share];
  const KeyTile tile = tiles.keys[share.tile];
  const int thread = int(threadIdx.x), lane = thread & 31, warp = thread >> 5;
  ShareRows pass(shape, tile, tiles.spans[share.tile], share);
  if (!pass.settle()) return;
  {
    KeyCopies<D, kKeys, kThreads, Panels<D, kKeys>> copies(shape, shape.context + tile.at, tile.count, thread);
    copies.read_slots(0);
    copies.check_slots();
    copies.copy(shared.keys, of.k + kv_head * D, shared.values, of.v + kv_head * D);
  }
  const auto copy_next = [&](int stage) { // whether some of the rows don't see all of the keys
    const PackedRows rows = pass.take(kv_head);
    copy_stage<D, Panels<D, kGroupRows>>(shared, stage, rows, of.q, of.d_out, of.lse, of.delta);
    return tile.first + tile.count > rows.seen(0);
  };
  bool masked = copy_next(0);

  float dk[D / 8][4] = {}, dv[D / 8][4] = {};
  const int key = tile.first + 16 * warp + (lane >> 2);
  for (int stage = 0, more = 1; more; stage ^= 1) {
    wait_copies<0>();
    show_copies();
    __syncthreads(); // this stage is here, and nobody reads the other any more
    more = pass.settle();
    const bool masked_now = masked;
    if (more) masked = copy_next(stage ^ 1);
    add_stage<D>(dk, dv, shared, stage, masked_now, key, scale * kLog2e);
  }
  const ShareSums own = {to.partial + int64_t(own_share - first_share) * kKeys * 2 * shape.kv_width(), to.dk, to.dv};
  write_share<D>(dk, dv, own, shape, tiles, tile, kv_head, scale);
}

// dk and dv take longer: where they have too few blocks left, those of dq run.
template <int D>
__global__ void __launch_bounds__(kThreads, D == 128 ? 2 : 3)
    gradients_kernel(AttentionShape shape, AttentionTiles tiles, BackwardTensors tensors, ShareSums to, int first_share, int key_blocks, float scale) {
  extern __shared__ __align__(256) unsigned char memory[];
  unsigned char *const tile = at_tile(memory);
  after_kernels_before();
  const bool for_keys = int(blockIdx.x) < key_blocks;
  const int number = int(blockIdx.x) - (for_keys ? 0 : key_blocks), kv_head = number % shape.kv_heads;
  if (for_keys) {
    const int share = first_share + number / shape.kv_heads;
    if (share < tiles.counts[4]) key_gradients<D>(shape, tiles, tensors, to, share, first_share, kv_head, scale, *reinterpret_cast<KeyShared<D> *>(tile));
  } else {
    const int t = tiles.counts[0] - 1 - number / shape.kv_heads;
    if (t >= 0) query_gradients<D>(shape, tiles, tensors, t, kv_head, scale, *reinterpret_cast<QueryShared<D> *>(tile));
  }
}

template <int D>
int32_t launch(arbor_stream *stream, const AttentionShape &shape, const AttentionTiles &tiles, const AttentionGradients &t, int count) {
  constexpr size_t kShared = std::max(sizeof(KeyShared<D>), sizeof(QueryShared<D>)) + kGroupSpare;
  if (!allow_shared(gradients_kernel<D>, kShared)) return unsupported("arbor_attention_backward", "too little shared memory on this device");
  const int key_blocks = count * shape.kv_heads, query_blocks = t.first_share == 0 ? tiles.query_bound * shape.kv_heads : 0;
  const BackwardTensors tensors{static_cast<const bf16 *>(t.q), static_cast<const bf16 *>(t.k), static_cast<const bf16 *>(t.v),
                                static_cast<const bf16 *>(t.d_out), t.lse, t.delta, static_cast<bf16 *>(t.dq)};
  launch_after(gradients_kernel<D>, unsigned(key_blocks + query_blocks), kThreads, kShared, cuda_stream(stream), shape, tiles, tensors, share_sums(t),
               t.first_share, key_blocks, 1 / sqrtf(float(shape.dim)));
  return launched(stream, "arbor_attention_backward");
}

} // namespace

int32_t gradients_together(arbor_stream *stream, const AttentionShape &shape, const AttentionTiles &tiles, const AttentionGradients &t, int count) {
  ARBOR_BY_PANELS(shape.dim, { return launch<D>(stream, shape, tiles, t, count); });
}

} // namespace arbor
