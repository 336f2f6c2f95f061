// Attention for any width, f32 arithmetic (attention_simple.cuh): keys pass in blocks of 32 counted from the first entry of a row's context,
// so a row has the same bits in a prefill, in a packed tree and in a decode step.

#include "attention_simple.cuh"

namespace arbor {
namespace {

size_t shared_bytes(int dim) {
  const size_t width = size_t(padded(dim));
  return sizeof(float) * (kSimpleRows * width + 2 * kOthers * (width + 1)) + sizeof(Four) * kSimpleThreads;
}

template <class T, int Columns>
__global__ void __launch_bounds__(kSimpleThreads)
    simple_kernel(AttentionShape shape, AttentionTiles tiles, const T *q, const T *k, const T *v, T *out, float *lse, float scale) {
  extern __shared__ __align__(16) float memory[];
  const int width = padded(shape.dim), lane = int(threadIdx.x) & 31, warp = int(threadIdx.x) >> 5;
  Four *const weights = reinterpret_cast<Four *>(memory) + warp * kOthers;
  float *const queries = memory + 4 * kSimpleThreads, *const keys = queries + kSimpleRows * width,
               *const values = keys + kOthers * (width + 1);
  const int t = tiles.counts[0] - 1 - int(blockIdx.x) / shape.kv_heads, kv_head = int(blockIdx.x) % shape.kv_heads;
  if (t < 0) return;
  const QueryTile tile = tiles.queries[t];
  Segment segment;
  if (!read_segment(shape, tile.segment, segment)) return;
  const PackedRows rows(shape, segment, kv_head, tile.first, kSimpleRows);
  const int length = rows.seen(kSimpleRows - 1), own = warp * kOwn;
  load_rows(queries, width, q, shape.dim, shape.dim, width, RowOfTile{rows});

  float peak[kOwn], total[kOwn], sum[kOwn][Columns] = {};
#pragma unroll
  for (int r = 0; r < kOwn; r++) peak[r] = -INFINITY, total[r] = 0;
  for (int first = 0; first < length; first += kOthers) {
    const SlotOfEntry slots{shape, shape.context + segment.context_start + first, length - first};
    __syncthreads();
    load_rows(keys, width + 1, k + kv_head * shape.dim, shape.kv_width(), shape.dim, width, slots);
    load_rows(values, width + 1, v + kv_head * shape.dim, shape.kv_width(), shape.dim, width, slots);
    __syncthreads();
    if (own >= rows.count) continue;
    float scores[kOwn];
    Four weight;
    inner_products(scores, queries + own * width, keys + lane * (width + 1), width);
#pragma unroll
    for (int r = 0; r < kOwn; r++) {
      const float score = first + lane < rows.seen(own + r) ? scores[r] * scale : -INFINITY;
      const float best = fmaxf(peak[r], warp_max(score)), shrink = expf(peak[r] - best);
      weight.at[r] = expf(score - best);
      total[r] = fmaf(total[r], shrink, warp_sum(weight.at[r]));
      peak[r] = best;
#pragma unroll
      for (int i = 0; i < Columns; i++) sum[r][i] *= shrink;
    }
    __syncwarp();
    weights[lane] = weight;
    __syncwarp();
    add_weighted<Columns>(sum, weights, values, width, lane);
  }
#pragma unroll
  for (int r = 0; r < kOwn; r++) {
    if (own + r >= rows.count) continue;
    const int64_t at = rows.at(own + r);
    if (lse && lane == 0) lse[at] = peak[r] + logf(total[r]);
#pragma unroll
    for (int i = 0; i < Columns; i++)
      if (lane + 32 * i < shape.dim) out[at * shape.dim + lane + 32 * i] = from_float<T>(sum[r][i] / total[r]);
  }
}

} // namespace

int32_t attend_simple(arbor_stream *stream, int32_t type, const AttentionShape &shape, const AttentionTensors &t, bool same_plan) {
  AttentionTiles tiles;
  const int32_t planned = plan_attention(stream, "arbor_attention", shape, same_plan, {kSimpleRows, 0}, tiles);
  if (planned != ARBOR_OK) return planned;
  const size_t shared = shared_bytes(shape.dim);
  ARBOR_BY_TYPE(type, "arbor_attention", ARBOR_BY_COLUMNS(shape.dim, {
                  if (!allow_shared(simple_kernel<T, Columns>, shared))
                    return unsupported("arbor_attention", "too little shared memory on this device");
                  simple_kernel<T, Columns><<<unsigned(tiles.query_bound * shape.kv_heads), kSimpleThreads, shared, cuda_stream(stream)>>>(
                      shape, tiles, static_cast<const T *>(t.q), static_cast<const T *>(t.k), static_cast<const T *>(t.v),
                      static_cast<T *>(t.out), t.lse, 1 / sqrtf(float(shape.dim)));
                }));
  return launched(stream, "arbor_attention");
}

} // namespace arbor
