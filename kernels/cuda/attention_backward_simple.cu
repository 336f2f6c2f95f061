// Gradient of attention for any width, f32 arithmetic (attention_simple.cuh). The weights come again from the scores and the saved logsumexp;
// ds = weight · (dOut · v − delta). One kernel has queries as its rows and sums dq over keys; the other has keys and sums dk, dv over
// queries.

#include "attention_simple.cuh"

namespace arbor {
namespace {

// A table of four warps' rows or of 32 others takes at most this.
size_t table(int dim) { return sizeof(float) * kOthers * size_t(padded(dim) + 1); }
size_t shared_bytes(int dim) { return 4 * table(dim) + 2 * sizeof(Four) * kSimpleThreads + 4 * sizeof(float) * kOthers; }

template <class T, int Columns>
__global__ void __launch_bounds__(kSimpleThreads)
    query_gradients_kernel(AttentionShape shape, AttentionTiles tiles, const T *q, const T *k, const T *v, const T *d_out, const float *lse,
                           const float *delta, T *dq, float scale) {
  extern __shared__ __align__(16) float memory[];
  const int width = padded(shape.dim), lane = int(threadIdx.x) & 31, warp = int(threadIdx.x) >> 5;
  Four *const weights = reinterpret_cast<Four *>(memory) + warp * kOthers;
  float *const queries = memory + 4 * kSimpleThreads, *const d_outs = queries + kSimpleRows * width;
  float *const keys = d_outs + kSimpleRows * width, *const values = keys + kOthers * (width + 1);
  const int t = tiles.counts[0] - 1 - int(blockIdx.x) / shape.kv_heads, kv_head = int(blockIdx.x) % shape.kv_heads;
  if (t < 0) return;
  const QueryTile tile = tiles.queries[t];
  Segment segment;
  if (!read_segment(shape, tile.segment, segment)) return;
  const PackedRows rows(shape, segment, kv_head, tile.first, kSimpleRows);
  const int length = rows.seen(kSimpleRows - 1), own = warp * kOwn;
  load_rows(queries, width, q, shape.dim, shape.dim, width, RowOfTile{rows});
  load_rows(d_outs, width, d_out, shape.dim, shape.dim, width, RowOfTile{rows});

  float row_lse[kOwn], row_delta[kOwn], sum[kOwn][Columns] = {};
#pragma unroll
  for (int r = 0; r < kOwn; r++) {
    row_lse[r] = own + r < rows.count ? lse[rows.at(own + r)] : 0;
    row_delta[r] = own + r < rows.count ? delta[rows.at(own + r)] : 0;
  }
  for (int first = 0; first < length; first += kOthers) {
    const SlotOfEntry slots{shape, shape.context + segment.context_start + first, length - first};
    __syncthreads();
    load_rows(keys, width + 1, k + kv_head * shape.dim, shape.kv_width(), shape.dim, width, slots);
    load_rows(values, width + 1, v + kv_head * shape.dim, shape.kv_width(), shape.dim, width, slots);
    __syncthreads();
    if (own >= rows.count) continue;
    float scores[kOwn], d_weights[kOwn];
    Four ds;
    inner_products(scores, queries + own * width, keys + lane * (width + 1), width);
    inner_products(d_weights, d_outs + own * width, values + lane * (width + 1), width);
#pragma unroll
    for (int r = 0; r < kOwn; r++)
      ds.at[r] = first + lane < rows.seen(own + r) ? expf(scores[r] * scale - row_lse[r]) * (d_weights[r] - row_delta[r]) * scale : 0;
    __syncwarp();
    weights[lane] = ds;
    __syncwarp();
    add_weighted<Columns>(sum, weights, keys, width, lane);
  }
#pragma unroll
  for (int r = 0; r < kOwn; r++)
#pragma unroll
    for (int i = 0; i < Columns; i++)
      if (own + r < rows.count && lane + 32 * i < shape.dim)
        dq[int64_t(rows.at(own + r)) * shape.dim + lane + 32 * i] = from_float<T>(sum[r][i]);
}

template <class T, int Columns>
__global__ void __launch_bounds__(kSimpleThreads)
    key_gradients_kernel(AttentionShape shape, AttentionTiles tiles, const T *q, const T *k, const T *v, const T *d_out, const float *lse,
                         const float *delta, float *partial, int first_share, float scale) {
  extern __shared__ __align__(16) float memory[];
  const int width = padded(shape.dim), lane = int(threadIdx.x) & 31, warp = int(threadIdx.x) >> 5, own = warp * kOwn;
  Four *const weights = reinterpret_cast<Four *>(memory) + warp * kOthers, *const d_scores = weights + kSimpleThreads;
  float *const keys = memory + 8 * kSimpleThreads, *const values = keys + kSimpleKeys * width;
  float *const queries = values + kSimpleKeys * width, *const d_outs = queries + kOthers * (width + 1);
  const int own_share = first_share + int(blockIdx.x) / shape.kv_heads, kv_head = int(blockIdx.x) % shape.kv_heads;
  if (own_share >= tiles.counts[4]) return;
  const KeyShare share = tiles.shares[own_share];
  const KeyTile tile = tiles.keys[share.tile];
  const int segments = tiles.spans[share.tile].segments;
  const SlotOfEntry slots{shape, shape.context + tile.at, tile.count};
  load_rows(keys, width, k + kv_head * shape.dim, shape.kv_width(), shape.dim, width, slots);
  load_rows(values, width, v + kv_head * shape.dim, shape.kv_width(), shape.dim, width, slots);

  float dk[kOwn][Columns] = {}, dv[kOwn][Columns] = {};
  for (int s = tile.segment; s < tile.segment + segments; s++) {
    Segment segment;
    if (!read_segment(shape, s, segment)) continue;
    const int first_query = segment.seer(tile.first); // that sees any of the keys
    for (int first = first_query * shape.group(); first < segment.row_count * shape.group(); first += kOthers) {
      const PackedRows rows(shape, segment, kv_head, first, kOthers);
      __syncthreads();
      load_rows(queries, width + 1, q, shape.dim, shape.dim, width, RowOfTile{rows});
      load_rows(d_outs, width + 1, d_out, shape.dim, shape.dim, width, RowOfTile{rows});
      __syncthreads();
      const bool valid = lane < rows.count;
      const float row_lse = valid ? lse[rows.at(lane)] : 0, row_delta = valid ? delta[rows.at(lane)] : 0;
      const int seen = valid ? rows.seen(lane) : 0;
      float scores[kOwn], d_weights[kOwn];
      inner_products(scores, keys + own * width, queries + lane * (width + 1), width);
      inner_products(d_weights, values + own * width, d_outs + lane * (width + 1), width);
      Four weight, ds;
#pragma unroll
      for (int r = 0; r < kOwn; r++) {
        weight.at[r] = tile.first + own + r < seen ? expf(scores[r] * scale - row_lse) : 0;
        ds.at[r] = weight.at[r] * (d_weights[r] - row_delta) * scale;
      }
      __syncwarp();
      weights[lane] = weight, d_scores[lane] = ds;
      __syncwarp();
      add_weighted<Columns>(dv, weights, d_outs, width, lane);
      add_weighted<Columns>(dk, d_scores, queries, width, lane);
    }
  }
#pragma unroll
  for (int r = 0; r < kOwn; r++) {
    float *const to = partial + (int64_t(own_share - first_share) * kSimpleKeys + own + r) * 2 * shape.kv_width() + kv_head * shape.dim;
#pragma unroll
    for (int i = 0; i < Columns; i++)
      if (own + r < tile.count && lane + 32 * i < shape.dim) to[lane + 32 * i] = dk[r][i], to[shape.kv_width() + lane + 32 * i] = dv[r][i];
  }
}

} // namespace

int32_t query_gradients_simple(arbor_stream *stream, cudaStream_t on, int32_t type, const AttentionShape &shape, const AttentionTiles &tiles,
                               const AttentionGradients &t) {
  const size_t shared = shared_bytes(shape.dim);
  ARBOR_BY_TYPE(type, "arbor_attention_backward", ARBOR_BY_COLUMNS(shape.dim, {
                  if (!allow_shared(query_gradients_kernel<T, Columns>, shared))
                    return unsupported("arbor_attention_backward", "too little shared memory on this device");
                  query_gradients_kernel<T, Columns>
                      <<<unsigned(tiles.query_bound * shape.kv_heads), kSimpleThreads, shared, on>>>(
                          shape, tiles, static_cast<const T *>(t.q), static_cast<const T *>(t.k), static_cast<const T *>(t.v),
                          static_cast<const T *>(t.d_out), t.lse, t.delta, static_cast<T *>(t.dq), 1 / sqrtf(float(shape.dim)));
                }));
  return launched(stream, "arbor_attention_backward");
}

int32_t key_gradients_simple(arbor_stream *stream, int32_t type, const AttentionShape &shape, const AttentionTiles &tiles,
                             const AttentionGradients &t, int count) {
  const size_t shared = shared_bytes(shape.dim);
  ARBOR_BY_TYPE(type, "arbor_attention_backward", ARBOR_BY_COLUMNS(shape.dim, {
                  if (!allow_shared(key_gradients_kernel<T, Columns>, shared))
                    return unsupported("arbor_attention_backward", "too little shared memory on this device");
                  key_gradients_kernel<T, Columns><<<unsigned(count * shape.kv_heads), kSimpleThreads, shared, cuda_stream(stream)>>>(
                      shape, tiles, static_cast<const T *>(t.q), static_cast<const T *>(t.k), static_cast<const T *>(t.v),
                      static_cast<const T *>(t.d_out), t.lse, t.delta, t.partial, t.first_share, 1 / sqrtf(float(shape.dim)));
                }));
  return launched(stream, "arbor_attention_backward");
}

} // namespace arbor
