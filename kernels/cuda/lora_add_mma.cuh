// Products of few terms that are added to large matrices, bf16 on tensor cores.
#pragma once

#include "lora.cuh"

namespace arbor {

constexpr int kMostTerms = 64;

// y[row, column] += scale Σ low[row, k] high(k, column) for `terms` k, summed in f32 and rounded once. Rows of y and low begin at multiples of 16 bytes.
struct LowRank {
  bf16 *y;
  const bf16 *low;
  const float *high; // rounded to bf16 when used
  int64_t y_ld, k_step, column_step; // of `high`: from one k to the next, from one column to the next
  int32_t rows, columns, low_ld, terms;
  float scale;
};

constexpr int kMostLowRank = 48; // of one launch

struct LowRanks {
  int32_t count = 0;
  LowRank at[kMostLowRank];
};

void add_low_ranks(cudaStream_t on, const LowRanks &all);

} // namespace arbor
