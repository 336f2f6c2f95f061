// The contract of a native library (kernels/cpu, kernels/cuda): ops on an in-order stream. src/engine/ops/native.ts is written
// from this file, and reads its prototypes from here. What each op computes is said in src/engine/ops/ops.ts.
//
//   op              forward                 backward                      file
//   fill            arbor_fill                                            fill.cpp
//   copy            arbor_copy                                            copy.cpp
//   gatherRows      arbor_gather_rows                                     gather_rows.cpp
//   embed           arbor_embed             arbor_embed_backward          embed.cpp
//   rmsNorm         arbor_rms_norm          arbor_rms_norm_backward       rms_norm.cpp
//   linear          arbor_linear            arbor_linear_backward         linear.cpp
//     + adapters    arbor_linear            arbor_linear_backward         lora.cpp
//   ropeStoreKv     arbor_rope_store_kv     arbor_rope_store_kv_backward  rope_store_kv.cpp
//   attention       arbor_attention         arbor_attention_backward      attention.cpp, attention_backward.cpp
//   swiglu          arbor_swiglu            arbor_swiglu_backward         swiglu.cpp
//   logprob         arbor_logprob           arbor_logprob_backward        logprob.cpp
//   sample          arbor_sample                                          sample.cpp
//   sumSquares      arbor_sum_squares                                     sum_squares.cpp
//   adamw           arbor_adamw                                           adamw.cpp
//   prepareWeight   arbor_prepare_weight                                  prepare_weight.cpp
//   stream, memory  arbor_open … arbor_replay                             stream.cpp
//   several GPUs    arbor_group_id … arbor_group_leave                    all_reduce.cpp
//
// Rules. Every op checks its sizes, enqueues and returns ARBOR_OK or a negative status whose text arbor_last_error() gives on the same
// thread. What fails later, on the stream, stops the ops behind it and is reported by the next arbor_status. Nothing here ends the
// process or lets an exception out. Matrices are row-major; sizes are elements unless they say bytes; an optional pointer may be null.
// `type` is the type of the activations (void pointers); weights carry their own type and layout.
#ifndef ARBOR_OPS_H
#define ARBOR_OPS_H

#include <stdint.h>

#if defined(__cplusplus)
#define ARBOR_API extern "C" __attribute__((visibility("default")))
#else
#define ARBOR_API
#endif

typedef enum arbor_code {
  ARBOR_OK = 0,
  ARBOR_BUSY = 1, // arbor_wait: not yet
  ARBOR_BAD_ARGUMENT = -1,
  ARBOR_OUT_OF_MEMORY = -2,
  ARBOR_UNSUPPORTED = -3,
  ARBOR_FAILED = -4,
} arbor_code;

typedef enum arbor_type {
  ARBOR_F32 = 0,
  ARBOR_BF16 = 1,
  ARBOR_I32 = 2,
  ARBOR_F32_PANELS = 3, // a prepared weight: [out / 16][in][16], rows of the last panel padded with zeros
  // A prepared weight in bf16: [out / 16][in / 2][16][2], `out` padded with zeros to 16, `in` to 32. 64 bytes hold 16 outputs of two inputs,
  // as VDPBF16PS and a B tile of AMX read them. A product with it rounds its other operand to bf16 (nearest even) and sums in f32.
  ARBOR_BF16_PANELS = 4,
  // A prepared weight in bf16 as a GPU keeps those that adapters come to: [out, in] with room for these behind every row and behind the last.
  ARBOR_BF16_ROOMY = 5,
} arbor_type;

typedef struct arbor_stream arbor_stream;
typedef struct arbor_capture arbor_capture;

// ---- library, stream and memory ----------------------------------------------------------------------------------------------

// Text of the last failure on this thread; never null.
ARBOR_API const char *arbor_last_error(void);
// For people: instruction set, matrix products, threads; or the GPU.
ARBOR_API const char *arbor_description(void);
// How many devices there are; a status when the driver doesn't answer. A CPU has one.
ARBOR_API int32_t arbor_device_count(void);

// Null when it fails. `device` counts from 0; a CPU has one.
ARBOR_API arbor_stream *arbor_open(int32_t device);
// Waits for the work in flight, then ends the stream.
ARBOR_API int32_t arbor_close(arbor_stream *stream);

// On the stream's device, at least 64-byte aligned; null when there is none.
ARBOR_API void *arbor_alloc(arbor_stream *stream, int64_t bytes);
// Bytes of the device's own memory: 0 = free now, 1 = in all. A CPU has none and answers 0.
ARBOR_API int64_t arbor_memory(arbor_stream *stream, int32_t what);
// Freed when the stream gets there; with a null stream, at once.
ARBOR_API int32_t arbor_free(arbor_stream *stream, void *memory);

// `from` (host) may be reused as soon as the call returns.
ARBOR_API int32_t arbor_upload(arbor_stream *stream, void *to, const void *from, int64_t bytes);
// Enqueues the copy into `to` (host), which must stay alive until it is done. Returns a ticket (> 0) for arbor_wait, or a status.
ARBOR_API int64_t arbor_download(arbor_stream *stream, void *to, const void *from, int64_t bytes);
// Waits until everything up to the ticket is done: ARBOR_OK, or ARBOR_BUSY after `microseconds` (< 0: no limit).
ARBOR_API int32_t arbor_wait(arbor_stream *stream, int64_t ticket, int64_t microseconds);
// The first error up to the ticket, if any; it is then forgotten and the stream goes on.
ARBOR_API int32_t arbor_status(arbor_stream *stream, int64_t ticket);

// Between begin and end, ops are recorded and not run.
ARBOR_API int32_t arbor_capture_begin(arbor_stream *stream);
ARBOR_API arbor_capture *arbor_capture_end(arbor_stream *stream);
ARBOR_API int32_t arbor_replay(arbor_stream *stream, arbor_capture *capture);
ARBOR_API int32_t arbor_capture_free(arbor_stream *stream, arbor_capture *capture);

// ---- weights -----------------------------------------------------------------------------------------------------------------

// The precision of frozen weights in which this library is fastest on this CPU: ARBOR_F32 or ARBOR_BF16.
ARBOR_API int32_t arbor_best_precision(void);
// The layout this library likes best for a frozen weight at a precision (ARBOR_F32 or ARBOR_BF16), and the bytes a [out, in] weight takes. `adapted`
// (0 or 1): linears with adapters are all that reads it.
ARBOR_API int32_t arbor_weight_type(int32_t precision, int32_t adapted);
ARBOR_API int64_t arbor_weight_bytes(int32_t weight_type, int64_t out, int64_t in);
// Synchronous: `to` is fresh device memory, `from` the plain f32 [out, in] on the host.
ARBOR_API int32_t arbor_prepare_weight(arbor_stream *stream, void *to, int32_t weight_type, const float *from, int64_t out, int64_t in);

// ---- ops ---------------------------------------------------------------------------------------------------------------------

ARBOR_API int32_t arbor_fill(arbor_stream *stream, int32_t type, void *target, int64_t count, double value);
ARBOR_API int32_t arbor_copy(arbor_stream *stream, void *to, const void *from, int64_t bytes);
ARBOR_API int32_t arbor_gather_rows(arbor_stream *stream, void *out, const void *from, const int32_t *rows, int64_t count,
                                    int64_t from_rows, int64_t row_bytes);

ARBOR_API int32_t arbor_embed(arbor_stream *stream, int32_t type, void *out, const void *table, int32_t table_type,
                              const int32_t *ids, int64_t tokens, int64_t vocab, int64_t hidden);
ARBOR_API int32_t arbor_embed_backward(arbor_stream *stream, int32_t type, float *d_table, const void *d_out, const int32_t *ids,
                                       int64_t tokens, int64_t vocab, int64_t hidden);

// `delta` null: y = norm(x), `sum` unused.
ARBOR_API int32_t arbor_rms_norm(arbor_stream *stream, int32_t type, void *y, float *rstd, void *sum, const void *x,
                                 const void *delta, const float *weight, int64_t tokens, int64_t hidden, double eps);
ARBOR_API int32_t arbor_rms_norm_backward(arbor_stream *stream, int32_t type, void *dx, const void *dy, const void *x,
                                          const float *weight, const float *rstd, const void *d_residual, float *d_weight,
                                          int64_t tokens, int64_t hidden);

// y = x Wᵀ + bias + Σ adapters scale (x aᵀ) bᵀ, part by part; xa = x aᵀ. `loras` (host, read at the call) holds 13 numbers for each of the
// `lora_count` adapters: rowStart, rowCount, rank, scale, four parts (rows of b; unused ones 0, their sum is `out`), and the addresses of a, b, xa,
// da, db; the last two are 0 here. `y_type` is `type` or ARBOR_F32. `decode` (1, or 2 when adapters have been laid behind the weight): the rows are
// few, one for each sequence that decodes; a row's bits are then the same among any others that decode, and y is for one reader: arbor_rope_store_kv and
// arbor_swiglu may use it up.
ARBOR_API int32_t arbor_linear(arbor_stream *stream, int32_t type, void *y, int32_t y_type, const void *x, const void *weight,
                               int32_t weight_type, const float *bias, int64_t tokens, int64_t in, int64_t out, const double *loras,
                               int64_t lora_count, int32_t decode);
// Before linears of rows that decode: the adapters' a are laid behind frozen weights of `weight_type`, where a library keeps room for them
// (ARBOR_BF16_ROOMY); those linears are then called with `decode` 2, the same adapters in the same order. `weights` (host) holds for each weight its
// address, out, in and its number of adapters; `loras` theirs, one weight's behind the other's, 13 numbers each as arbor_linear takes them (rows and xa
// are not looked at).
ARBOR_API int32_t arbor_lay_adapters(arbor_stream *stream, int32_t weight_type, const double *weights, int64_t weight_count, const double *loras,
                                     int64_t lora_count);
// dx = dy W + Σ scale (dy b) a; dWeight += dyᵀ x; dBias += Σ dy; da += scale (dy b)ᵀ x; db += scale dyᵀ xa. Each of dx, d_weight, d_bias may be
// null; so may x, when dx is all that is asked for: da and db are then left as they are.
ARBOR_API int32_t arbor_linear_backward(arbor_stream *stream, int32_t type, void *dx, const void *dy, const void *x,
                                        const void *weight, int32_t weight_type, float *d_weight, float *d_bias, int64_t tokens,
                                        int64_t in, int64_t out, const double *loras, int64_t lora_count);

ARBOR_API int32_t arbor_rope_store_kv(arbor_stream *stream, int32_t type, const void *qkv, void *q, void *k, void *v,
                                      const int32_t *positions, const int32_t *slots, const float *rope, int64_t tokens,
                                      int64_t slot_count, int64_t position_count, int64_t heads, int64_t kv_heads,
                                      int64_t head_dim);
ARBOR_API int32_t arbor_rope_store_kv_backward(arbor_stream *stream, int32_t type, void *dqkv, const void *dq, const void *dk,
                                               const void *dv, const int32_t *positions, const int32_t *slots, const float *rope,
                                               int64_t tokens, int64_t slot_count, int64_t position_count, int64_t heads,
                                               int64_t kv_heads, int64_t head_dim);

// `segments` is [segment_count, 4]: rowStart, rowCount, contextStart, contextLength; `context` holds slots. `lse` may be null. `decode` (0 or 1): as
// for arbor_linear, segments of one row each. Without it a query has the same bits in a segment of its own as in a longer one, whatever the sizes.
// `same_plan` (0 or 1): what `segments` and `context` hold is as it was at this function's call before on the stream, so what was made of it then need
// not be made again, where they are the same memory too.
ARBOR_API int32_t arbor_attention(arbor_stream *stream, int32_t type, void *out, float *lse, const void *q, const void *k,
                                  const void *v, const int32_t *segments, const int32_t *context, int64_t segment_count,
                                  int64_t context_capacity, int64_t tokens, int64_t slot_count, int64_t heads, int64_t kv_heads,
                                  int64_t head_dim, int32_t decode, int32_t same_plan);
// For tests: how often, since the library was loaded, a segment of one query read a block of keys that another had already packed.
ARBOR_API int64_t arbor_attention_shared_blocks(void);
// `dk` and `dv` are f32, whatever the type.
ARBOR_API int32_t arbor_attention_backward(arbor_stream *stream, int32_t type, void *dq, void *dk, void *dv, const void *d_out,
                                           const void *out, const void *q, const void *k, const void *v, const float *lse,
                                           const int32_t *segments, const int32_t *context, int64_t segment_count,
                                           int64_t context_capacity, int64_t tokens, int64_t slot_count, int64_t heads,
                                           int64_t kv_heads, int64_t head_dim, int32_t same_plan);

ARBOR_API int32_t arbor_swiglu(arbor_stream *stream, int32_t type, void *y, const void *gate_up, int64_t tokens, int64_t inner);
// `y` may be null: room for arbor_swiglu's output, for whom it is too large to keep.
ARBOR_API int32_t arbor_swiglu_backward(arbor_stream *stream, int32_t type, void *d_gate_up, void *y, const void *dy, const void *gate_up,
                                        int64_t tokens, int64_t inner);

// `logits` [pairs, vocab] may be null: room to keep them, for a backward pass that then needn't compute them again.
ARBOR_API int32_t arbor_logprob(arbor_stream *stream, int32_t type, float *logprobs, float *entropies, float *lse, float *logits,
                                const void *hidden, const int32_t *rows, const int32_t *targets, const void *head,
                                int32_t head_type, int64_t pairs, int64_t tokens, int64_t vocab, int64_t hidden_size,
                                double temperature);
// `d_entropies`, `d_head` and `logits` may be null. `logprobs` is null where arbor_logprob ran before; else it, `entropies` and `lse` are written
// here as by that op, and `logits` is room.
ARBOR_API int32_t arbor_logprob_backward(arbor_stream *stream, int32_t type, void *d_hidden, float *d_head,
                                         const float *d_logprobs, const float *d_entropies, float *logprobs, float *entropies,
                                         float *lse, float *logits, const void *hidden, const int32_t *rows,
                                         const int32_t *targets, const void *head, int32_t head_type, int64_t pairs,
                                         int64_t tokens, int64_t vocab, int64_t hidden_size, double temperature);

// `floats` [rows, 6] and `ints` [rows, 4] as in ops.ts; `logits` may be overwritten. `allowed` [allowed_rows, ceil(vocab / 32)] may be
// null where no row asks for one.
ARBOR_API int32_t arbor_sample(arbor_stream *stream, float *logits, const float *floats, const int32_t *ints,
                               const int32_t *history, const int32_t *allowed, int32_t *tokens, float *logprobs, int64_t rows,
                               int64_t vocab, int64_t history_capacity, int64_t allowed_rows);

ARBOR_API int32_t arbor_sum_squares(arbor_stream *stream, float *out, const float *x, int64_t count);
ARBOR_API int32_t arbor_adamw(arbor_stream *stream, float *param, const float *grad, float *m, float *v, int64_t count,
                              double learning_rate, double beta1, double beta2, double eps, double weight_decay,
                              double grad_scale, int64_t step);

// ---- several devices ---------------------------------------------------------------------------------------------------------

// Streams of this process, one a device, may form a group that sums tensors. All of this returns at once; arbor_group_status says how far it is.

// Writes the 128 bytes by which a group's members find each other: made by one of them, given to all.
ARBOR_API int32_t arbor_group_id(arbor_stream *stream, void *id);
// Begins to join the `ranks` members; each has a `rank` of its own, counted from 0. A CPU is a group of one: ARBOR_UNSUPPORTED for more.
ARBOR_API int32_t arbor_group_join(arbor_stream *stream, const void *id, int32_t ranks, int32_t rank);
// ARBOR_OK: all have joined, and the sums asked for are on the stream. ARBOR_BUSY: not yet; no op may be enqueued meanwhile. Else what went wrong.
ARBOR_API int32_t arbor_group_status(arbor_stream *stream);
// Sums f32 tensors in place over the group, in one fixed order, so every member gets the same bits. `tensors` (host, read at the call) holds two
// numbers for each of the `tensor_count` tensors, its address and its length; all members name tensors of the same lengths.
ARBOR_API int32_t arbor_group_sum(arbor_stream *stream, const double *tensors, int64_t tensor_count);
// Leaves the group, if the stream is in one; what is being summed is given up, here and by the others. Before arbor_close.
ARBOR_API int32_t arbor_group_leave(arbor_stream *stream);

#endif
