// x Wᵀ of rows that decode, few as they are: what is waited for is W's way from memory. cuBLASLt begins to ask for it when the kernels before have ended,
// and where W has few rows, most multiprocessors have nothing to do. Here blocks have 64 of W's rows and a part of k, and ask for all they have room for
// before they wait.
#pragma once

#include <vector>

#include "stream.cuh"

namespace arbor {

// Terms that the sum over k is divided into, so that the device is full. It hangs on the weight alone (`columns`: without adapters' rows behind it), so
// that a row's bits do, too. 0: a weight that these products don't take.
int32_t decode_terms(arbor_stream *stream, int64_t columns, int64_t depth);

// What a product of so many terms leaves: [terms, rows, columns] in f32, to be added in order; or a single one rounded to bf16.
struct DecodeOutputs {
  void *at;
  int64_t columns;
  int32_t terms;
  bool rounded;
};

// x [rows, depth] times weight [columns, depth], transposed, all bf16, the weight's rows `weight_ld` apart. False where this device has no such kernel: cuBLASLt's sums have the same bits.
// `sharing`: blocks on a multiprocessor at a time, of which the bits know nothing; 0: the usual.
bool decode_product(arbor_stream *stream, const bf16 *x, const bf16 *weight, int64_t weight_ld, const DecodeOutputs &to, int64_t rows, int64_t depth,
                    int32_t sharing = 0);

// What else to try where not all blocks are under way at once: with more beside one another fewer wait for their turn, but each asks for less ahead.
std::vector<int32_t> decode_sharings(arbor_stream *stream, const DecodeOutputs &to);

constexpr int64_t kMostDecodeRows = 64; // that it suits: with more, cuBLASLt is faster

} // namespace arbor
