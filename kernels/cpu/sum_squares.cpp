// out[0] += Σ x², in double over pieces of fixed length, so that threads don't change the sum.

#include "pool.h"
#include "simd.h"
#include "stream.h"

int32_t arbor_sum_squares(arbor_stream *stream, float *out, const float *x, int64_t count) {
  using namespace arbor;
  return enqueue(stream, "arbor_sum_squares", ARBOR_F32, given(out, x) && count >= 0, [=] {
    constexpr int64_t kPiece = 4096;
    const int64_t pieces = (count + kPiece - 1) / kPiece;
    double *to = reinterpret_cast<double *>(scratch(3, 2 * pieces));
    parallel_ranges(pieces, kPiece, [=](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; p++) {
        const int64_t last = (p + 1) * kPiece < count ? (p + 1) * kPiece : count;
        vf lanes[4] = {}; // four chains, as one would wait for itself
        int64_t i = p * kPiece;
        for (; i + 4 * kLanes <= last; i += 4 * kLanes)
          for (int c = 0; c < 4; c++) lanes[c] = fma(load(x + i + c * kLanes), load(x + i + c * kLanes), lanes[c]);
        to[p] = double(sum_lanes((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])));
        for (; i < last; i++) to[p] += double(x[i]) * double(x[i]);
      }
    });
    double total = 0;
    for (int64_t p = 0; p < pieces; p++) total += to[p];
    out[0] = float(double(out[0]) + total);
  });
}
