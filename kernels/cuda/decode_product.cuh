// x Wᵀ of rows that decode, few as they are: what is waited for is W's way from memory. cuBLASLt begins to ask for it when the kernels before have ended,
// and where W has few rows, most multiprocessors have nothing to do. Here blocks have 64 of W's rows or fewer and a part of k, and ask for all they have
// room for before they wait.
#pragma once

#include <vector>

#include "stream.cuh"

namespace arbor {

// Terms that the sum over k is divided into, so that the device is full. It hangs on the weight alone (`columns`: without adapters' rows behind it), so
// that a row's bits do, too. 0: a weight that these products don't take. In training's order (decodes_in_order): as training has them.
int32_t decode_terms(arbor_stream *stream, int64_t columns, int64_t depth);
// Terms of training and of prompts: two for a deep weight of few rows where rows that decode have their order, as a sum in one piece would take these long;
// else one.
int32_t terms_in_order(arbor_stream *stream, int64_t columns, int64_t depth);

// What a product of so many terms leaves: [terms, rows, columns] in f32, to be added in order; or a single one rounded to bf16.
struct DecodeOutputs {
  void *at;
  int64_t columns;
  int32_t terms;
  bool rounded;
};

// How such a product is dealt out, of which the bits know nothing.
struct DecodeBlocks {
  int32_t columns = 64; // of a block: 64, 32, 16
  int32_t sharing = 0;  // blocks on a multiprocessor at a time; 0: the usual
};

// x [rows, depth] times weight [columns, depth], transposed, all bf16, the weight's rows `weight_ld` apart. False where this device has no such kernel: cuBLASLt's sums have the same bits.
bool decode_product(arbor_stream *stream, const bf16 *x, const bf16 *weight, int64_t weight_ld, const DecodeOutputs &to, int64_t rows, int64_t depth,
                    const DecodeBlocks &blocks);

// What else to try. Where not all blocks are under way at once: more beside one another, so that fewer wait for their turn, but each asks for less ahead.
// Where they leave multiprocessors idle: narrower ones.
std::vector<DecodeBlocks> other_blocks(arbor_stream *stream, const DecodeOutputs &to);

constexpr int64_t kMostDecodeRows = 64; // that it suits: with more, cuBLASLt is faster

} // namespace arbor
