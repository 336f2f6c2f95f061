// Rows of a table, and the gradient of the table: each id's rows are added in their order, by the block of its first row.

#include "stream.cuh"

namespace arbor {
namespace {

template <class T, class Table>
__global__ void embed(T *out, const Table *table, const int32_t *ids, int64_t vocab, int64_t hidden, Fault *fault) {
  const int64_t t = blockIdx.x, id = ids[t];
  if (uint64_t(id) >= uint64_t(vocab)) {
    if (threadIdx.x == 0) report(fault, kFaultEmbed, id, vocab);
    return;
  }
  for (int64_t i = threadIdx.x; i < hidden; i += blockDim.x) out[t * hidden + i] = from_float<T>(to_float(table[id * hidden + i]));
}

constexpr int kThreads = 256;

template <class T> __global__ void embed_backward(float *d_table, const T *d_out, const int32_t *ids, int64_t tokens, int64_t vocab, int64_t hidden,
                                                  Fault *fault) {
  __shared__ int32_t same[kThreads]; // rows of this id among the next kThreads, in order
  __shared__ int32_t counts[kThreads / 32 + 1];
  const int64_t first = blockIdx.x, id = ids[first];
  if (uint64_t(id) >= uint64_t(vocab)) {
    if (threadIdx.x == 0) report(fault, kFaultEmbed, id, vocab);
    return;
  }
  int earlier = 0;
  for (int64_t t = threadIdx.x; t < first; t += kThreads) earlier |= ids[t] == id;
  if (__syncthreads_or(earlier)) return;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  for (int64_t start = first; start < tokens; start += kThreads) {
    const int64_t t = start + threadIdx.x;
    const bool hit = t < tokens && ids[t] == id;
    const uint32_t hits = __ballot_sync(0xffffffffu, hit);
    if (lane == 0) counts[warp] = __popc(hits);
    __syncthreads();
    int before = 0, total = 0;
    for (int w = 0; w < kThreads / 32; w++) {
      before += w < warp ? counts[w] : 0;
      total += counts[w];
    }
    if (hit) same[before + __popc(hits & ((1u << lane) - 1))] = int32_t(t);
    __syncthreads();
    for (int64_t i = threadIdx.x; total > 0 && i < hidden; i += kThreads) {
      float sum = d_table[id * hidden + i];
      for (int n = 0; n < total; n++) sum += to_float(d_out[int64_t(same[n]) * hidden + i]);
      d_table[id * hidden + i] = sum;
    }
    __syncthreads();
  }
}

} // namespace
} // namespace arbor

int32_t arbor_embed(arbor_stream *stream, int32_t type, void *out, const void *table, int32_t table_type, const int32_t *ids, int64_t tokens,
                    int64_t vocab, int64_t hidden) {
  using namespace arbor;
  ARBOR_ENTER(stream, "arbor_embed", given(out, table, ids) && tokens >= 0 && vocab > 0 && hidden > 0);
  if (table_type != ARBOR_F32 && table_type != ARBOR_BF16) return unsupported("arbor_embed", "tables are f32 or bf16");
  if (tokens == 0) return ARBOR_OK;
  ARBOR_BY_TYPE(type, "arbor_embed", {
    if (table_type == ARBOR_BF16)
      embed<<<unsigned(tokens), 128, 0, cuda_stream(stream)>>>(static_cast<T *>(out), static_cast<const bf16 *>(table), ids, vocab, hidden,
                                                               fault_of(stream));
    else
      embed<<<unsigned(tokens), 128, 0, cuda_stream(stream)>>>(static_cast<T *>(out), static_cast<const float *>(table), ids, vocab, hidden,
                                                               fault_of(stream));
  });
  return launched(stream, "arbor_embed");
}

int32_t arbor_embed_backward(arbor_stream *stream, int32_t type, float *d_table, const void *d_out, const int32_t *ids, int64_t tokens, int64_t vocab,
                             int64_t hidden) {
  using namespace arbor;
  ARBOR_ENTER(stream, "arbor_embed_backward", given(d_table, d_out, ids) && tokens >= 0 && vocab > 0 && hidden > 0);
  if (tokens == 0) return ARBOR_OK;
  ARBOR_BY_TYPE(type, "arbor_embed_backward", {
    embed_backward<<<unsigned(tokens), kThreads, 0, cuda_stream(stream)>>>(d_table, static_cast<const T *>(d_out), ids, tokens, vocab, hidden,
                                                                           fault_of(stream));
  });
  return launched(stream, "arbor_embed_backward");
}
