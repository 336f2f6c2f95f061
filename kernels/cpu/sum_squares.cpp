// out[0] += Σ x², in double over pieces of fixed length, so that threads don't change the sum.

#include <vector>

#include "pool.h"
#include "simd.h"
#include "stream.h"

int32_t arbor_sum_squares(arbor_stream *stream, float *out, const float *x, int64_t count) {
  using namespace arbor;
  return enqueue(stream, "arbor_sum_squares", ARBOR_F32, given(out, x) && count >= 0, [=] {
    constexpr int64_t kPiece = 4096;
    const int64_t pieces = (count + kPiece - 1) / kPiece;
    std::vector<double> sums(size_t(pieces), 0);
    double *to = sums.data();
    parallel_ranges(pieces, kPiece, [=](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; p++) {
        const int64_t last = (p + 1) * kPiece < count ? (p + 1) * kPiece : count;
        vf lanes{};
        int64_t i = p * kPiece;
        for (; i + kLanes <= last; i += kLanes) lanes = fma(load(x + i), load(x + i), lanes);
        to[p] = double(sum_lanes(lanes));
        for (; i < last; i++) to[p] += double(x[i]) * double(x[i]);
      }
    });
    double total = 0;
    for (const double sum : sums) total += sum;
    out[0] = float(double(out[0]) + total);
  });
}
