// Softmax attention over a plan of segments, grouped heads (its gradient: attention_backward.cu). Here the way is chosen:
//   attention_decode.cu   bf16, rows that decode: a block's warps divide the keys of a few rows among them (attention_crowd.cu: of many)
//   attention_in_order.cu the same with the bits of all others, where that is asked for (stream.cuh; attention_in_order_crowd.cu: of many)
//   attention_prefill.cu  bf16, all others: flash attention (Dao, 2023) on tensor cores
//   attention_simple.cu   f32, and widths that the tensor cores don't have
// In each of them a row's sums have one order, given by its own context alone: what is computed beside it changes nothing. Their orders differ, so the
// caller says which rows decode: a prompt's last token, alone behind those that a cache holds, must have the bits it had behind them in one pass.

#include "attention.cuh"

int32_t arbor_attention(arbor_stream *stream, int32_t type, void *out, float *lse, const void *q, const void *k, const void *v,
                        const int32_t *segments, const int32_t *context, int64_t segment_count, int64_t context_capacity, int64_t tokens,
                        int64_t slot_count, int64_t heads, int64_t kv_heads, int64_t head_dim, int32_t decode, int32_t same_plan) {
  using namespace arbor;
  AttentionShape shape;
  ARBOR_ENTER(stream, "arbor_attention",
              given(out, q, k, v, segments, context) && attention_shape(shape, stream, segments, context, segment_count, context_capacity,
                                                                        tokens, slot_count, heads, kv_heads, head_dim));
  if (type != ARBOR_F32 && type != ARBOR_BF16) return unsupported("arbor_attention", "activations are f32 or bf16");
  if (head_dim > kMostSimple) return unsupported("arbor_attention", "heads have up to 256 numbers");
  if (tokens == 0 || segment_count == 0) return ARBOR_OK;
  const AttentionTensors tensors = {q, k, v, out, lse};
  if (!for_tensor_cores(type, head_dim, out, q, k, v)) return attend_simple(stream, type, shape, tensors, same_plan);
  if (!decode) return attend_prefill(stream, shape, tensors, same_plan);
  return decodes_in_order(stream) ? attend_in_order(stream, shape, tensors) : attend_decode(stream, shape, tensors);
}

// The device shares what its cache holds; nothing is packed.
int64_t arbor_attention_shared_blocks(void) { return 0; }
