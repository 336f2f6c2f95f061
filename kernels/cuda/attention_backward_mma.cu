// Gradient of attention on tensor cores, bf16. The weights come again from the scores and the saved logsumexp, ds = weight · (dOut · v − delta);
// both are rounded to bf16 for the products that they enter. One kernel passes over keys and sums dq; the other has a tile of keys, passes
// over its share of the queries that see them and sums dk and dv.

#include "attention_shares.cuh"

namespace arbor {
namespace {

// ---- dq ------------------------------------------------------------------------------------------------------------------------

// A warp has two strips of 16 rows, so that what it reads of keys and values serves both: shared memory's pace is what limits this.
constexpr int kStrips = 2, kWarpRows = 16 * kStrips, kRows = kMmaRows, kQueryWarps = kRows / kWarpRows, kQueryThreads = 32 * kQueryWarps,
              kKeyStep = 32;
// Tiles of queries and of dOut; two each of keys and of values, few enough that two blocks fit.
template <int D> constexpr size_t kQueryShared = (2 * kRows + 4 * kKeyStep) * D * sizeof(bf16);

// What a lane knows of its two rows of a strip.
struct RowState {
  int seen[2];
  float lse[2], delta[2];

  __device__ __forceinline__ void read(const PackedRows &rows, int first, const float *lses, const float *deltas) {
#pragma unroll
    for (int row = 0; row < 2; row++) {
      const int r = first + 8 * row;
      const bool valid = r < rows.count;
      seen[row] = rows.seen(r);
      lse[row] = valid ? lses[rows.at(r)] * kLog2e : 0, delta[row] = valid ? deltas[rows.at(r)] : 0;
    }
  }
};

// Adds what a block of keys, from entry `first` on, gives to the warp's rows of dq.
template <int D>
__device__ __forceinline__ void add_keys(float (&sums)[kStrips][D / 8][4], const RowState (&states)[kStrips], bool masked,
                                         const bf16 *queries, const bf16 *d_outs, const bf16 *keys, const bf16 *values, int first,
                                         int own_row, int lane, float scale) {
  float scores[kStrips][kKeyStep / 8][4] = {}, d_weights[kStrips][kKeyStep / 8][4] = {};
  add_inner_products<D, kKeyStep, kStrips>(scores, queries, own_row, keys, 0, lane);
  add_inner_products<D, kKeyStep, kStrips>(d_weights, d_outs, own_row, values, 0, lane);
  uint32_t ds[kStrips][kKeyStep / 16][4];
#pragma unroll
  for (int strip = 0; strip < kStrips; strip++) {
    const RowState &state = states[strip];
#pragma unroll
    for (int n = 0; n < kKeyStep / 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const float weight = exp2_fast(fmaf(scores[strip][n][i], scale, -state.lse[i >> 1]));
        scores[strip][n][i] = weight * (d_weights[strip][n][i] - state.delta[i >> 1]);
        if (masked && first + 8 * n + 2 * (lane & 3) + (i & 1) >= state.seen[i >> 1]) scores[strip][n][i] = 0;
      }
    as_left_operand<kKeyStep>(ds[strip], scores[strip]);
  }
  add_weighted_rows<D, kKeyStep, kStrips>(sums, ds, keys, 0, lane);
}

template <int D>
__global__ void __launch_bounds__(kQueryThreads, D == 128 ? 2 : 3)
    query_gradients_kernel(AttentionShape shape, AttentionTiles tiles, const bf16 *q, const bf16 *k, const bf16 *v, const bf16 *d_out,
                           const float *lse, const float *delta, bf16 *dq, float scale) {
  extern __shared__ __align__(256) unsigned char memory[];
  bf16 *const queries = reinterpret_cast<bf16 *>(memory), *const d_outs = queries + kRows * D;
  bf16 *const keys = d_outs + kRows * D, *const values = keys + 2 * kKeyStep * D;
  const int t = tiles.counts[0] - 1 - int(blockIdx.x) / shape.kv_heads, kv_head = int(blockIdx.x) % shape.kv_heads;
  if (t < 0) return;
  const QueryTile tile = tiles.queries[t];
  Segment segment;
  if (!read_segment(shape, tile.segment, segment)) return;
  const PackedRows rows(shape, segment, kv_head, tile.first, kRows);
  const int thread = int(threadIdx.x), lane = thread & 31, own_row = (thread >> 5) * kWarpRows, length = rows.seen(kRows - 1);

  KeyCopies<D, kKeyStep, kQueryThreads> copies(shape, shape.context + segment.context_start, length, thread);
  const auto copy_block = [&](int block) {
    copies.check_slots();
    copies.copy(keys + (block & 1) * kKeyStep * D, k + kv_head * D, values + (block & 1) * kKeyStep * D, v + kv_head * D);
    close_copies();
    copies.read_slots((block + 1) * kKeyStep);
  };
  copies.read_slots(0);
  const RowCopies<D, kRows, kQueryThreads> row_copies(rows, thread);
  row_copies.copy(queries, q);
  row_copies.copy(d_outs, d_out);
  copy_block(0);

  RowState states[kStrips];
#pragma unroll
  for (int strip = 0; strip < kStrips; strip++) states[strip].read(rows, own_row + 16 * strip + (lane >> 2), lse, delta);
  const int seen_by_all = rows.seen(own_row), seen_by_any = own_row < rows.count ? rows.seen(own_row + kWarpRows - 1) : 0;
  float sums[kStrips][D / 8][4] = {};
  const int blocks = (length + kKeyStep - 1) / kKeyStep;
  for (int block = 0; block < blocks; block++) {
    wait_copies<0>();
    __syncthreads(); // this block is here, and nobody reads the one before any more
    if (block + 1 < blocks) copy_block(block + 1);
    const int first = block * kKeyStep, stage = (block & 1) * kKeyStep * D;
    if (first < seen_by_any)
      add_keys<D>(sums, states, first + kKeyStep > seen_by_all, queries, d_outs, keys + stage, values + stage, first, own_row, lane,
                  scale * kLog2e);
  }
#pragma unroll
  for (int strip = 0; strip < kStrips; strip++) store_rows<D, Whole<D, kRows>>(sums[strip], rows, own_row + 16 * strip, queries, dq, scale);
}

// ---- dk, dv --------------------------------------------------------------------------------------------------------------------

constexpr int kKeyThreads = kShareThreads, kKeys = kKeyThreads / 32 * 16, kRowStep = kMmaStepRows, kRowPart = 32;
static_assert(kKeys == kMmaKeys, "tiles are planned so");

// Adds what the rows [first, first + kRowPart) of a stage give to the dk and dv of the warp's 16 keys, of which this lane has key and key + 8.
template <int D>
__device__ __forceinline__ void add_part(float (&dk)[D / 8][4], float (&dv)[D / 8][4], const KeyShared<D> &shared, int stage, int first,
                                         int key, float scale) {
  const int lane = int(threadIdx.x) & 31, warp = int(threadIdx.x) >> 5;
  float weights[kRowPart / 8][4] = {}, ds[kRowPart / 8][4] = {};
  add_inner_products<D, kRowPart>(weights, shared.keys, 16 * warp, shared.queries[stage], first, lane);
  add_inner_products<D, kRowPart>(ds, shared.values, 16 * warp, shared.d_outs[stage], first, lane);
#pragma unroll
  for (int n = 0; n < kRowPart / 8; n++) {
    const int r = first + 8 * n + 2 * (lane & 3);
    const float2 lse = *reinterpret_cast<const float2 *>(&shared.lse[stage][r]),
                 delta = *reinterpret_cast<const float2 *>(&shared.delta[stage][r]);
    const int2 seen = *reinterpret_cast<const int2 *>(&shared.seen[stage][r]);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const float weight = exp2_fast(fmaf(weights[n][i], scale, -(i & 1 ? lse.y : lse.x) * kLog2e));
      weights[n][i] = key + 8 * (i >> 1) < (i & 1 ? seen.y : seen.x) ? weight : 0;
      ds[n][i] = weights[n][i] * (ds[n][i] - (i & 1 ? delta.y : delta.x));
    }
  }
  uint32_t left[kRowPart / 16][4];
  as_left_operand<kRowPart>(left, weights);
  add_weighted_rows<D, kRowPart>(dv, left, shared.d_outs[stage], first, lane);
  as_left_operand<kRowPart>(left, ds);
  add_weighted_rows<D, kRowPart>(dk, left, shared.queries[stage], first, lane);
}

template <int D>
__global__ void __launch_bounds__(kKeyThreads)
    key_gradients_kernel(AttentionShape shape, AttentionTiles tiles, const bf16 *q, const bf16 *k, const bf16 *v, const bf16 *d_out,
                         const float *lse, const float *delta, ShareSums to, int first_share, float scale) {
  extern __shared__ __align__(256) unsigned char memory[];
  KeyShared<D> &shared = *reinterpret_cast<KeyShared<D> *>(memory);
  const int own_share = first_share + int(blockIdx.x) / shape.kv_heads, kv_head = int(blockIdx.x) % shape.kv_heads;
  if (own_share >= tiles.counts[4]) return;
  const KeyShare share = tiles.shares[own_share];
  const KeyTile tile = tiles.keys[share.tile];
  const int thread = int(threadIdx.x), lane = thread & 31, warp = thread >> 5;
  ShareRows pass(shape, tile, tiles.spans[share.tile], share);
  if (!pass.settle()) return;
  {
    KeyCopies<D, kKeys, kKeyThreads> copies(shape, shape.context + tile.at, tile.count, thread);
    copies.read_slots(0);
    copies.check_slots();
    copies.copy(shared.keys, k + kv_head * D, shared.values, v + kv_head * D);
  }
  const auto copy_next = [&](int stage) { copy_stage<D, Whole<D, kRowStep>>(shared, stage, pass.take(kv_head), q, d_out, lse, delta); };
  copy_next(0);

  float dk[D / 8][4] = {}, dv[D / 8][4] = {};
  const int key = tile.first + 16 * warp + (lane >> 2);
  for (int stage = 0, more = 1; more; stage ^= 1) {
    wait_copies<0>();
    __syncthreads(); // this stage is here, and nobody reads the other any more
    more = pass.settle();
    if (more) copy_next(stage ^ 1);
#pragma unroll 1
    for (int first = 0; first < kRowStep; first += kRowPart) add_part<D>(dk, dv, shared, stage, first, key, scale * kLog2e);
  }
  to.partial += int64_t(own_share - first_share) * kKeys * 2 * shape.kv_width();
  write_share<D>(dk, dv, to, shape, tiles, tile, kv_head, scale);
}

} // namespace

int32_t query_gradients_mma(arbor_stream *stream, cudaStream_t on, const AttentionShape &shape, const AttentionTiles &tiles,
                            const AttentionGradients &t) {
  ARBOR_BY_WIDTH(shape.dim, {
    if (!allow_shared(query_gradients_kernel<D>, kQueryShared<D>)) return unsupported("arbor_attention_backward", "too little shared memory on this device");
    query_gradients_kernel<D><<<unsigned(tiles.query_bound * shape.kv_heads), kQueryThreads, kQueryShared<D>, on>>>(
        shape, tiles, static_cast<const bf16 *>(t.q), static_cast<const bf16 *>(t.k), static_cast<const bf16 *>(t.v),
        static_cast<const bf16 *>(t.d_out), t.lse, t.delta, static_cast<bf16 *>(t.dq), 1 / sqrtf(float(shape.dim)));
  });
  return launched(stream, "arbor_attention_backward");
}

int32_t key_gradients_mma(arbor_stream *stream, const AttentionShape &shape, const AttentionTiles &tiles, const AttentionGradients &t,
                          int count) {
  ARBOR_BY_WIDTH(shape.dim, {
    constexpr size_t kShared = sizeof(KeyShared<D>);
    if (!allow_shared(key_gradients_kernel<D>, kShared)) return unsupported("arbor_attention_backward", "too little shared memory on this device");
    key_gradients_kernel<D><<<unsigned(count * shape.kv_heads), kKeyThreads, kShared, cuda_stream(stream)>>>(
        shape, tiles, static_cast<const bf16 *>(t.q), static_cast<const bf16 *>(t.k), static_cast<const bf16 *>(t.v),
        static_cast<const bf16 *>(t.d_out), t.lse, t.delta, share_sums(t), t.first_share, 1 / sqrtf(float(shape.dim)));
  });
  return launched(stream, "arbor_attention_backward");
}

} // namespace arbor
