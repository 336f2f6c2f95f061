// Which of cuBLASLt's algorithms computes a product. Where rows are tokens a row must not depend on how many there are, nor on which algorithm
// the clock preferred today: a reference algorithm is fixed for each weight's shape, and a faster one is taken for some number of rows only when
// it gives the reference's bits on random rows. Plans are made when a shape is first met and kept.

#include "products.cuh"

#include <algorithm>
#include <cstring>
#include <map>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "cublaslt_call.cuh"
#include "memory.cuh"
#include "plain_product.cuh"
#include "product_trial.cuh"

namespace arbor {

namespace {

constexpr int kProposals = 8;            // for each size asked about
constexpr int64_t kReferenceRows = 2048; // the size at which the reference algorithm is chosen
constexpr int64_t kFewRows = 32;         // the same for rows that decode
constexpr int64_t kTiled = 256, kTile = 128;
constexpr size_t kMostPlans = 8192;

// Plans are shared by numbers of rows that lie close together: from a few hundred on, by those that fill as many tiles.
int64_t bucket(int64_t rows) {
  if (rows <= 8) return 8;
  if (rows > kTiled) return ceil_div(rows, kTile) * kTile;
  int64_t size = 16;
  while (size < rows) {
    if (size + size / 2 >= rows && size >= 32) return size + size / 2;
    size *= 2;
  }
  return size;
}

uint32_t alignment_of(const Product &p) {
  return std::min({alignment(p.a.data, p.a.ld * bytes_of(p.a.type)), alignment(p.b.data, p.b.ld * bytes_of(p.b.type)),
                   alignment(p.out, p.out_ld * bytes_of(p.out_type)), 16u});
}

int64_t usual_depth(const Product &p) { return p.usual_depth > 0 ? p.usual_depth : p.depth; }

// What products have in common that share a reference: all but the number of rows, and room behind the depth.
using Signature = std::tuple<int64_t, int64_t, bool, bool, int32_t, int32_t, int64_t, int64_t, uint32_t, bool, bool, int32_t>;
Signature signature(const Product &p) {
  return {p.family > 0 ? p.family : p.columns, p.by_row ? usual_depth(p) : 0, p.a.transposed, p.b.transposed, p.a.type, p.out_type, p.b.ld,
          p.family > 0 ? 0 : p.out_ld, alignment_of(p), p.beta != 0, p.few_rows, p.terms};
}

// All that a call's descriptions hang on: calls of equal numbers share them.
struct Exact {
  int64_t rows, columns, depth, usual, a_ld, b_ld, out_ld, family;
  uint64_t kinds;

  Exact(const Product &p, uint32_t aligned)
      : rows(p.rows), columns(p.columns), depth(p.depth), usual(usual_depth(p)), a_ld(p.a.ld), b_ld(p.b.ld), out_ld(p.out_ld), family(p.family) {
    kinds = uint64_t(p.a.transposed) | uint64_t(p.b.transposed) << 1 | uint64_t(p.by_row) << 2 | uint64_t(p.beta != 0) << 3 | uint64_t(p.few_rows) << 4 |
            uint64_t(p.a.type) << 8 | uint64_t(p.out_type) << 16 | uint64_t(aligned) << 24 | uint64_t(p.terms) << 32;
  }
  bool operator==(const Exact &other) const { return std::memcmp(this, &other, sizeof *this) == 0; }
};
struct HashExact {
  size_t operator()(const Exact &e) const {
    uint64_t hash = e.kinds;
    for (const int64_t number : {e.rows, e.columns, e.depth, e.usual, e.a_ld, e.b_ld, e.out_ld, e.family})
      hash = (hash ^ uint64_t(number)) * 0x9e3779b97f4a7c15ull, hash ^= hash >> 29;
    return size_t(hash);
  }
};

int32_t refused(const char *op, const Product &p, int32_t status) {
  return fail(ARBOR_UNSUPPORTED, std::string(op) + ": cuBLASLt refuses a product [" + std::to_string(p.rows) + ", " + std::to_string(p.depth) + "] x [" +
                                     std::to_string(p.depth) + ", " + std::to_string(p.columns) + "], status " + std::to_string(status));
}

// Sums over k in one piece, but for few rows.
uint32_t reductions(const Product &p) { return p.few_rows && p.terms == 0 ? lt::kAnyReduction : 0; }

} // namespace

class Products {
public:
  Products(const lt::Library &library, lt::Handle handle, void *workspace, int64_t level_2_bytes) : lt_(library, handle, workspace), level_2_bytes_(level_2_bytes) {}

  int32_t run(arbor_stream *stream, const char *op, const Product &p) {
    if (p.rows == 0 || p.columns == 0) return ARBOR_OK;
    const uint32_t aligned = alignment_of(p);
    if (p.a.type == ARBOR_BF16 && aligned < 16) return plain_product(stream, op, p);
    const Exact exact(p, aligned);
    const auto known = ready_.find(exact);
    if (known != ready_.end()) return issue(stream, op, p, *known->second);
    const Plan *plan = nullptr;
    const int32_t code = p.by_row ? by_row(stream, op, p, plan) : proposed(op, p, plan);
    if (code != ARBOR_OK) return code;
    if (ready_.size() >= kMostPlans) ready_.clear();
    auto ready = lt_.ready(p, *plan);
    // A plan made for its bucket's first size may not suit another size of it; the reference, whose bits it has, suits all.
    if (lt_.enqueue(stream, p, *ready) != 0) {
      if (p.by_row)
        ready->plan = references_[signature(p)];
      else if (!first_proposal(p, lt::kAnyReduction, ready->plan))
        return refused(op, p, 0);
      const int32_t again = issue(stream, op, p, *ready);
      if (again != ARBOR_OK) return again;
    }
    ready_.emplace(exact, std::move(ready));
    return ARBOR_OK;
  }

private:
  CublasLt lt_;
  int64_t level_2_bytes_;
  std::unordered_map<Exact, std::unique_ptr<Ready>, HashExact> ready_;
  std::map<Signature, Plan> references_;
  std::map<std::pair<Signature, std::tuple<int64_t, int64_t, int64_t>>, Plan> plans_; // by columns, depth and rows
  std::map<std::pair<Signature, std::pair<int64_t, int64_t>>, Plan> proposals_;

  int32_t issue(arbor_stream *stream, const char *op, const Product &p, const Ready &ready) {
    const int32_t status = lt_.enqueue(stream, p, ready);
    return status == 0 ? int32_t(ARBOR_OK) : refused(op, p, status);
  }

  bool first_proposal(const Product &p, uint32_t reductions, Plan &plan) {
    const std::vector<Plan> found = lt_.propose(p, reductions, 1);
    if (!found.empty()) plan = found[0];
    return !found.empty();
  }

  int32_t proposed(const char *op, const Product &p, const Plan *&plan) {
    if (proposals_.size() > kMostPlans) proposals_.clear();
    Plan &slot = proposals_[{signature(p), {p.rows, p.depth}}];
    if (!slot.known && !first_proposal(p, lt::kAnyReduction, slot)) return refused(op, p, 0);
    plan = &slot;
    return ARBOR_OK;
  }

  int32_t by_row(arbor_stream *stream, const char *op, const Product &p, const Plan *&plan) {
    Plan &slot = plans_[{signature(p), {p.columns, p.depth, bucket(p.rows)}}];
    plan = &slot;
    if (slot.known) return ARBOR_OK;
    Plan &reference = references_[signature(p)];
    if (p.terms > 0 && has_warpgroups(stream)) reference.own = reference.known = true;
    if (!reference.known) {
      Product usual = p;
      usual.rows = p.few_rows ? kFewRows : kReferenceRows;
      usual.depth = usual_depth(p);
      if (p.usual_depth > 0) usual.a.data = nullptr, usual.a.ld = usual.depth; // as it is without the room
      if (p.family > 0) usual.columns = usual.out_ld = p.family;
      if (!first_proposal(usual, reductions(p), reference) && !first_proposal(usual, lt::kAnyReduction, reference)) return refused(op, p, 0);
    }
    slot = is_recording(stream) ? reference : fastest(stream, p, reference);
    return ARBOR_OK;
  }

  Plan fastest(arbor_stream *stream, const Product &p, const Plan &reference) {
    Product largest = p;
    largest.rows = bucket(p.rows);
    const bool few = reference.own && p.rows <= kMostDecodeRows;
    return fastest_equal(stream, lt_, largest, reference, few ? own_candidates(stream, p, reference) : candidates(p, reference), level_2_bytes_);
  }

  static std::vector<Plan> own_candidates(arbor_stream *stream, const Product &p, const Plan &reference) {
    std::vector<Plan> others;
    for (const DecodeBlocks &blocks : other_blocks(stream, decode_outputs(p))) others.push_back(reference), others.back().blocks = blocks;
    return others;
  }

  // What is proposed for more rows may suit few as well: fewer rows alone would have it divide the sum.
  std::vector<Plan> candidates(const Product &p, const Plan &reference) {
    std::vector<Plan> known{reference};
    for (int64_t rows = p.rows; rows <= 8 * kReferenceRows; rows = rows < 64 ? 128 : 2 * rows) {
      Product larger = p;
      larger.rows = rows, larger.beta = 0;
      larger.a.data = nullptr, larger.a.ld = p.depth; // as the trial has it: aligned as well as can be
      for (const Plan &plan : lt_.propose(larger, reductions(p), kProposals)) {
        const auto same = [&](const Plan &other) { return std::memcmp(&plan.algo, &other.algo, sizeof plan.algo) == 0; };
        if (std::none_of(known.begin(), known.end(), same)) known.push_back(plan);
      }
      if (rows >= kReferenceRows) break;
    }
    known.erase(known.begin());
    return known;
  }
};

void DeleteProducts::operator()(Products *products) const { delete products; }

std::unique_ptr<Products, DeleteProducts> open_products(int64_t level_2_bytes, std::string &problem) {
  const lt::Library *library = lt::load(problem);
  if (!library) return nullptr;
  lt::Handle handle = nullptr;
  void *workspace = nullptr;
  if (library->create(&handle) != 0 || cudaMalloc(&workspace, kWorkspace) != cudaSuccess) {
    problem = "no device memory for cuBLASLt's workspace; another process may hold the GPU";
    return nullptr;
  }
  return std::unique_ptr<Products, DeleteProducts>(new Products(*library, handle, workspace, level_2_bytes));
}

std::string products_name() {
  std::string problem;
  const lt::Library *library = lt::load(problem);
  return library ? "cuBLASLt " + std::to_string(library->version()) : problem;
}

int32_t product(arbor_stream *stream, const char *op, const Product &wanted) { return products_of(stream).run(stream, op, wanted); }

} // namespace arbor
