// One LoRA adapter on a run of rows of a linear: y += scale (x aᵀ) bᵀ, and its gradients. A fused weight has several parts: `a` stacks their
// A's, `b` their B's, and part p reads its own `rank` columns of xa.

#include <vector>

#include "gemm.h"
#include "stream.h"

namespace arbor {
namespace {

struct Part {
  int64_t first, out; // rows of b, columns of y
};

std::vector<Part> split(int64_t part0, int64_t part1, int64_t part2, int64_t part3) {
  std::vector<Part> parts;
  int64_t first = 0;
  for (const int64_t out : {part0, part1, part2, part3}) {
    if (out > 0) parts.push_back({first, out});
    first += out;
  }
  return parts;
}

} // namespace
} // namespace arbor

int32_t arbor_lora(arbor_stream *stream, int32_t type, void *y, void *xa, const void *x, const float *a, const float *b, int64_t rows,
                   int64_t in, int64_t out, int64_t rank, double scale, int64_t part0, int64_t part1, int64_t part2, int64_t part3) {
  using namespace arbor;
  const bool valid = given(y, xa, x, a, b) && rows >= 0 && in > 0 && rank > 0 && part0 > 0 && part1 >= 0 && part2 >= 0 && part3 >= 0 &&
                     part0 + part1 + part2 + part3 == out;
  return enqueue(stream, "arbor_lora", type, valid, [=] {
    const std::vector<Part> parts = split(part0, part1, part2, part3);
    const int64_t width = int64_t(parts.size()) * rank; // of xa
    float *ys = static_cast<float *>(y), *xas = static_cast<float *>(xa);
    gemm({rows, width, in, {static_cast<const float *>(x), in, 1}, MatrixB::strided(a, 1, in), MatrixC::overwrite(xas, width)});
    for (size_t p = 0; p < parts.size(); p++)
      gemm({rows, parts[p].out, rank, {xas + int64_t(p) * rank, width, 1, float(scale)},
            MatrixB::strided(b + parts[p].first * rank, 1, rank), MatrixC::accumulate(ys + parts[p].first, out)});
  });
}

int32_t arbor_lora_backward(arbor_stream *stream, int32_t type, void *dx, float *da, float *db, const void *dy, const void *x,
                            const void *xa, const float *a, const float *b, int64_t rows, int64_t in, int64_t out, int64_t rank,
                            double scale, int64_t part0, int64_t part1, int64_t part2, int64_t part3) {
  using namespace arbor;
  const bool valid = given(da, db, dy, x, xa, a, b) && rows >= 0 && in > 0 && rank > 0 && part0 > 0 && part1 >= 0 && part2 >= 0 &&
                     part3 >= 0 && part0 + part1 + part2 + part3 == out;
  return enqueue(stream, "arbor_lora_backward", type, valid, [=] {
    const std::vector<Part> parts = split(part0, part1, part2, part3);
    const int64_t width = int64_t(parts.size()) * rank;
    const float *dys = static_cast<const float *>(dy), *xs = static_cast<const float *>(x), *xas = static_cast<const float *>(xa);
    std::vector<float> dxa(size_t(rows * width)); // scale · dy b
    for (size_t p = 0; p < parts.size(); p++) {
      const auto [first, part_out] = parts[p];
      const int64_t at = int64_t(p) * rank;
      gemm({rows, rank, part_out, {dys + first, out, 1, float(scale)}, MatrixB::strided(b + first * rank, rank, 1),
            MatrixC::overwrite(dxa.data() + at, width)});
      gemm({part_out, rank, rows, {dys + first, 1, out, float(scale)}, MatrixB::strided(xas + at, width, 1),
            MatrixC::accumulate(db + first * rank, rank)});
    }
    gemm({width, in, rows, {dxa.data(), 1, width}, MatrixB::strided(xs, in, 1), MatrixC::accumulate(da, in)});
    if (dx)
      gemm({rows, in, width, {dxa.data(), width, 1}, MatrixB::strided(a, in, 1), MatrixC::accumulate(static_cast<float *>(dx), in)});
  });
}
