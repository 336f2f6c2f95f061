// Tries algorithms for a product on noise: which of them give the reference's bits, and which of those is the fastest.
#pragma once

#include "cublaslt_call.cuh"

namespace arbor {

// Of the candidates with the bits of `reference`, the fastest on weights that lie in no cache; `reference` where there is no memory for a trial. Waits
// for the device. `p` has the largest number of rows that the plan is for.
Plan fastest_equal(arbor_stream *stream, const CublasLt &lt, const Product &p, const Plan &reference, std::vector<Plan> candidates, int64_t level_2_bytes);

} // namespace arbor
