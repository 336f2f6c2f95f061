// The ways attention is computed: on tensor cores where the type is bf16 and they have the head's width, else one way for all sizes.
#pragma once

#include "attention_plan.cuh"

namespace arbor {

struct AttentionTensors {
  const void *q, *k, *v;
  void *out;
  float *lse; // may be null
};

struct AttentionGradients {
  const void *q, *k, *v, *d_out;
  const float *lse;
  void *dq;
  float *dk, *dv;
  // Between the kernels: Σ dOut · out for each row and head; and for each key share from `first_share` on its sums, f32
  // [share][keys of a tile][dk then dv of all key heads].
  float *delta, *partial;
  int first_share;
  bool direct; // whether slots that are listed once have their sums in dk and dv already
};

// Any segments, bf16; made for those of one row. Its bits are its own.
int32_t attend_decode(arbor_stream *stream, const AttentionShape &shape, const AttentionTensors &t);
// The same bits, for more rows than the multiprocessors have blocks for, at most `most` of them to a tile of 16; false where this is not for them.
bool attend_crowd(arbor_stream *stream, const AttentionShape &shape, const AttentionTensors &t, float *partial, int most);
// Any segments, bf16, made for those of one row, with the bits of attend_prefill.
int32_t attend_in_order(arbor_stream *stream, const AttentionShape &shape, const AttentionTensors &t);
// The same, for more rows than the multiprocessors have blocks for; false where this is not for them.
bool attend_crowd_in_order(arbor_stream *stream, const AttentionShape &shape, const AttentionTensors &t);
// Any segments, bf16.
int32_t attend_prefill(arbor_stream *stream, const AttentionShape &shape, const AttentionTensors &t, bool same_plan);
// Any segments, any width up to kMostSimple.
int32_t attend_simple(arbor_stream *stream, int32_t type, const AttentionShape &shape, const AttentionTensors &t, bool same_plan);
constexpr int kMostSimple = 256;

// dq of all rows, on the stream `on`; the first `count` key shares of dk and dv from `first_share` on. `tiles` are planned as the constants say.
constexpr int kMmaRows = 128, kTogetherRows = 64, kMmaKeys = 64, kMmaStepRows = 64, kSimpleRows = 32, kSimpleKeys = 32;
int32_t query_gradients_mma(arbor_stream *stream, cudaStream_t on, const AttentionShape &shape, const AttentionTiles &tiles,
                            const AttentionGradients &t);
int32_t key_gradients_mma(arbor_stream *stream, const AttentionShape &shape, const AttentionTiles &tiles, const AttentionGradients &t,
                          int count);
int32_t query_gradients_simple(arbor_stream *stream, cudaStream_t on, int32_t type, const AttentionShape &shape, const AttentionTiles &tiles,
                               const AttentionGradients &t);
int32_t key_gradients_simple(arbor_stream *stream, int32_t type, const AttentionShape &shape, const AttentionTiles &tiles,
                             const AttentionGradients &t, int count);
// Both in one launch: dq with the shares that begin at 0.
int32_t gradients_together(arbor_stream *stream, const AttentionShape &shape, const AttentionTiles &tiles, const AttentionGradients &t, int count);

// Whether 16-byte copies can read these addresses.
template <class... Pointers> bool aligned(const Pointers *...pointers) { return (... && (reinterpret_cast<uintptr_t>(pointers) % 16 == 0)); }

// Whether rows of this width go to the tensor cores.
template <class... Pointers> bool for_tensor_cores(int32_t type, int64_t dim, const Pointers *...pointers) {
  return type == ARBOR_BF16 && (dim == 32 || dim == 64 || dim == 128) && aligned(pointers...);
}

// Calls `code` with D bound to the head's width.
#define ARBOR_BY_WIDTH(dim, ...) \
  do {                           \
    if ((dim) == 128) {          \
      constexpr int D = 128;     \
      __VA_ARGS__;               \
    } else if ((dim) == 64) {    \
      constexpr int D = 64;      \
      __VA_ARGS__;               \
    } else {                     \
      constexpr int D = 32;      \
      __VA_ARGS__;               \
    }                            \
  } while (0)

// The shape as the kernels take it; false when its sizes are no sizes, or larger than they count.
inline bool attention_shape(AttentionShape &shape, arbor_stream *stream, const int32_t *segments, const int32_t *context,
                            int64_t segment_count, int64_t context_capacity, int64_t tokens, int64_t slots, int64_t heads, int64_t kv_heads,
                            int64_t dim) {
  constexpr int64_t kMost = INT32_MAX / 2;
  const int64_t sizes[] = {segment_count, context_capacity, tokens, slots, heads, kv_heads, dim};
  for (const int64_t size : sizes)
    if (size < 0 || size > kMost) return false;
  if (kv_heads == 0 || heads == 0 || heads % kv_heads != 0 || dim == 0) return false;
  const int64_t group = heads / kv_heads;
  if (group > kMost / (tokens + 1) / group || heads > kMost / (tokens + 1))
    return false; // rows are numbered in 32 bits (PackedRows::query)
  const uint32_t reciprocal = group == 1 ? 0 : uint32_t(((int64_t(1) << 32) + group - 1) / group);
  shape = {segments, context, int(segment_count), int(context_capacity), int(tokens), int(slots), int(heads), int(kv_heads), int(dim),
           reciprocal, fault_of(stream)};
  return true;
}

} // namespace arbor
