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

#include "cublaslt.h"
#include "memory.cuh"

namespace arbor {

namespace {

constexpr size_t kWorkspace = 64 << 20;
constexpr int kProposals = 8;            // for each size asked about
constexpr int64_t kReferenceRows = 2048; // the size at which the reference algorithm is chosen
constexpr int64_t kFewRows = 32;         // the same for rows that decode
constexpr int64_t kCompared = 16384;     // outputs whose bits are compared at least
constexpr int kMostRounds = 32;          // of noise, to get there
constexpr size_t kMostPlans = 8192;

struct Plan {
  lt::Algo algo{};
  size_t workspace = 0;
  bool known = false;
};

int32_t type_of(int32_t type) { return type == ARBOR_BF16 ? lt::kBf16 : lt::kF32; }
int64_t bytes_of(int32_t type) { return type == ARBOR_BF16 ? 2 : 4; }

// Plans are shared by numbers of rows that lie close together.
int64_t bucket(int64_t rows) {
  if (rows <= 8) return 8;
  int64_t size = 16;
  while (size < rows) {
    if (size + size / 2 >= rows && size >= 32) return size + size / 2;
    size *= 2;
  }
  return size;
}

uint32_t alignment(const void *data, int64_t row_bytes) {
  const uint64_t both = reinterpret_cast<uint64_t>(data) | uint64_t(row_bytes) | 256;
  return uint32_t(both & (~both + 1));
}

__device__ __forceinline__ uint32_t hash(uint32_t x, uint32_t seed) {
  uint32_t z = x * 0x9e3779b1u + seed * 0x632be5abu;
  z = (z ^ (z >> 15)) * 0x85ebca6bu;
  z = (z ^ (z >> 13)) * 0xc2b2ae35u;
  return z ^ (z >> 16);
}

// Values in −1 … 1 from a hash of their place. Every other row has a large value and its negative besides: where their weights are equal they cancel,
// and what the order of the sum did to the rest shows even in bf16. (Short sums of like numbers nearly always round to the same bf16.)
template <class T> __global__ void fill_noise(T *out, int64_t count, int64_t depth, uint32_t seed) {
  constexpr float kLarge = 1 << 22;
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  float value = float(int32_t(hash(uint32_t(i), seed))) * (1.0f / 2147483648.0f);
  const uint32_t row = uint32_t(i / depth), k = uint32_t(i % depth);
  if (row % 2 == 1 && depth > 1) {
    const uint32_t one = hash(row, ~seed) % uint32_t(depth), other = (one + 1 + hash(~row, seed) % uint32_t(depth - 1)) % uint32_t(depth);
    if (k == one) value = kLarge;
    if (k == other) value = -kLarge;
  }
  out[i] = from_float<T>(value);
}

__global__ void count_differences(const uint32_t *a, const uint32_t *b, int64_t words, int32_t *differences) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < words && a[i] != b[i]) atomicAdd(differences, 1);
}

// Odd shapes in bf16, which cuBLASLt reads no 16 bytes of at a time: one thread a sum, in order.
struct Plain {
  int64_t rows, columns, depth, a_row, a_step, b_row, b_step, out_ld;
  float alpha, beta;
};
template <class Out> __global__ void plain_product(Out *out, const bf16 *a, const bf16 *b, Plain p) {
  const int64_t column = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, row = blockIdx.y;
  if (column >= p.columns) return;
  float sum = 0;
  for (int64_t k = 0; k < p.depth; k++) sum += to_float(a[row * p.a_row + k * p.a_step]) * to_float(b[k * p.b_step + column * p.b_row]);
  Out *place = out + row * p.out_ld + column;
  *place = from_float<Out>(p.alpha * sum + (p.beta == 0 ? 0.0f : p.beta * to_float(*place)));
}

} // namespace

class Products {
public:
  using Signature = std::tuple<int64_t, int64_t, bool, bool, int32_t, int32_t, int64_t, int64_t, uint32_t, bool, bool>;

  // `flush`: memory of twice the level-2 cache's size.
  Products(const lt::Library &lt, lt::Handle handle, void *workspace, void *flush, size_t flush_bytes)
      : lt_(lt), handle_(handle), workspace_(workspace), flush_(flush), flush_bytes_(flush_bytes) {}
  ~Products() {
    lt_.destroy(handle_);
    cudaFree(workspace_);
    cudaFree(flush_);
  }

  int32_t run(arbor_stream *stream, const char *op, const Product &p) {
    if (p.rows == 0 || p.columns == 0) return ARBOR_OK;
    const uint32_t least = aligned(p);
    if (p.a.type == ARBOR_BF16 && least < 16) return plain(stream, op, p);
    const Exact exact = exactly(p, least);
    const auto known = ready_.find(exact);
    if (known != ready_.end()) return issue(stream, op, p, *known->second);
    const Plan *plan = nullptr;
    const int32_t code = p.by_row ? by_row(stream, op, p, plan) : proposed(op, p, plan);
    if (code != ARBOR_OK) return code;
    if (ready_.size() >= kMostPlans) ready_.clear();
    auto ready = std::make_unique<Ready>(lt_, p, *plan);
    // A plan made for its bucket's first size may not suit another size of it; the reference, whose bits it has, suits all.
    if (enqueue(stream, p, *ready) != 0) {
      if (p.by_row) ready->plan = references_[signature(p)];
      else if (!propose(p, lt::kAnyReduction, 1, &ready->plan)) return refused(op, p, 0);
      const int32_t again = issue(stream, op, p, *ready);
      if (again != ARBOR_OK) return again;
    }
    ready_.emplace(exact, std::move(ready));
    return ARBOR_OK;
  }

private:
  // All that a call's descriptions hang on: calls of equal numbers share them.
  struct Exact {
    int64_t rows, columns, depth, a_ld, b_ld, out_ld;
    uint64_t kinds;
    bool operator==(const Exact &other) const { return std::memcmp(this, &other, sizeof *this) == 0; }
  };
  struct HashExact {
    size_t operator()(const Exact &e) const {
      uint64_t hash = e.kinds;
      for (const int64_t number : {e.rows, e.columns, e.depth, e.a_ld, e.b_ld, e.out_ld}) hash = (hash ^ uint64_t(number)) * 0x9e3779b97f4a7c15ull, hash ^= hash >> 29;
      return size_t(hash);
    }
  };
  static Exact exactly(const Product &p, uint32_t least) {
    const uint64_t kinds = uint64_t(p.a.transposed) | uint64_t(p.b.transposed) << 1 | uint64_t(p.by_row) << 2 | uint64_t(p.beta != 0) << 3 | uint64_t(p.few_rows) << 4 |
                           uint64_t(p.a.type) << 8 | uint64_t(p.out_type) << 16 | uint64_t(least) << 24;
    return {p.rows, p.columns, p.depth, p.a.ld, p.b.ld, p.out_ld, kinds};
  }

  struct Ready;
  const lt::Library &lt_;
  lt::Handle handle_;
  void *workspace_, *flush_;
  size_t flush_bytes_;
  std::unordered_map<Exact, std::unique_ptr<Ready>, HashExact> ready_;
  std::map<Signature, Plan> references_;
  std::map<std::pair<Signature, int64_t>, Plan> plans_;
  std::map<std::pair<Signature, std::pair<int64_t, int64_t>>, Plan> proposals_;

  static int32_t refused(const char *op, const Product &p, int32_t status) {
    return fail(ARBOR_UNSUPPORTED, std::string(op) + ": cuBLASLt refuses a product [" + std::to_string(p.rows) + ", " + std::to_string(p.depth) +
                                       "] x [" + std::to_string(p.depth) + ", " + std::to_string(p.columns) + "], status " + std::to_string(status));
  }

  static uint32_t aligned(const Product &p) {
    return std::min({alignment(p.a.data, p.a.ld * bytes_of(p.a.type)), alignment(p.b.data, p.b.ld * bytes_of(p.b.type)),
                     alignment(p.out, p.out_ld * bytes_of(p.out_type)), 16u});
  }

  static Signature signature(const Product &p) {
    return {p.columns, p.by_row ? p.depth : 0, p.a.transposed, p.b.transposed, p.a.type, p.out_type, p.b.ld, p.out_ld, aligned(p), p.beta != 0, p.few_rows};
  }

  static int32_t plain(arbor_stream *stream, const char *op, const Product &p) {
    Plain plain{p.rows, p.columns, p.depth, p.a.ld, 1, 1, p.b.ld, p.out_ld, p.alpha, p.beta};
    if (p.a.transposed) plain.a_row = 1, plain.a_step = p.a.ld;
    if (p.b.transposed) plain.b_row = p.b.ld, plain.b_step = 1;
    if (p.rows > 65535) return unsupported(op, "a product of more than 65,535 rows needs widths that are multiples of 8");
    const dim3 grid(unsigned(ceil_div(p.columns, 128)), unsigned(p.rows));
    const auto *a = static_cast<const bf16 *>(p.a.data), *b = static_cast<const bf16 *>(p.b.data);
    if (p.out_type == ARBOR_BF16)
      plain_product<<<grid, 128, 0, cuda_stream(stream)>>>(static_cast<bf16 *>(p.out), a, b, plain);
    else
      plain_product<<<grid, 128, 0, cuda_stream(stream)>>>(static_cast<float *>(p.out), a, b, plain);
    return launched(stream, op);
  }

  // The descriptions of one call, freed with it.
  struct Call {
    const lt::Library &lt;
    lt::Desc desc = nullptr;
    lt::Layout a = nullptr, b = nullptr, d = nullptr;
    // cuBLAS thinks in columns: it computes outᵀ = Bᵀ Aᵀ, so its A is our b.
    Call(const Call &) = delete;
    Call(const lt::Library &library, const Product &p) : lt(library) {
      lt.desc_create(&desc, lt::kCompute32F, lt::kF32);
      const int32_t a_op = p.b.transposed ? 1 : 0, b_op = p.a.transposed ? 1 : 0;
      lt.desc_set(desc, lt::kTransA, &a_op, sizeof a_op);
      lt.desc_set(desc, lt::kTransB, &b_op, sizeof b_op);
      if (p.b.transposed)
        lt.layout_create(&a, type_of(p.b.type), uint64_t(p.depth), uint64_t(p.columns), p.b.ld);
      else
        lt.layout_create(&a, type_of(p.b.type), uint64_t(p.columns), uint64_t(p.depth), p.b.ld);
      if (p.a.transposed)
        lt.layout_create(&b, type_of(p.a.type), uint64_t(p.rows), uint64_t(p.depth), p.a.ld);
      else
        lt.layout_create(&b, type_of(p.a.type), uint64_t(p.depth), uint64_t(p.rows), p.a.ld);
      lt.layout_create(&d, type_of(p.out_type), uint64_t(p.columns), uint64_t(p.rows), p.out_ld);
    }
    ~Call() {
      if (desc) lt.desc_destroy(desc);
      for (lt::Layout layout : {a, b, d})
        if (layout) lt.layout_destroy(layout);
    }
  };

  // A call that needs nothing but its pointers.
  struct Ready {
    Call call;
    Plan plan;
    Ready(const lt::Library &library, const Product &p, const Plan &wanted) : call(library, p), plan(wanted) {}
  };

  int32_t enqueue(arbor_stream *stream, const Product &p, const Ready &ready) {
    const Call &c = ready.call;
    return lt_.matmul(handle_, c.desc, &p.alpha, p.b.data, c.a, p.a.data, c.b, &p.beta, p.out, c.d, p.out, c.d, &ready.plan.algo, workspace_,
                      kWorkspace, cuda_stream(stream));
  }

  int32_t issue(arbor_stream *stream, const char *op, const Product &p, const Ready &ready) {
    const int32_t status = enqueue(stream, p, ready);
    return status == 0 ? int32_t(ARBOR_OK) : refused(op, p, status);
  }

  int32_t call(arbor_stream *stream, const Product &p, const Plan &plan) { return enqueue(stream, p, Ready(lt_, p, plan)); }

  // Up to `count` proposals, best first; returns how many.
  int propose(const Product &p, uint32_t reductions, int count, Plan *plans) {
    Call c(lt_, p);
    lt::Preference preference = nullptr;
    lt_.preference_create(&preference);
    const size_t workspace = kWorkspace;
    lt_.preference_set(preference, lt::kMaxWorkspace, &workspace, sizeof workspace);
    lt_.preference_set(preference, lt::kReductionMask, &reductions, sizeof reductions);
    const uint32_t b = alignment(p.b.data, p.b.ld * bytes_of(p.b.type)), a = alignment(p.a.data, p.a.ld * bytes_of(p.a.type));
    const uint32_t out = alignment(p.out, p.out_ld * bytes_of(p.out_type));
    int32_t attribute = lt::kMinAlignmentA;
    for (const uint32_t one : {b, a, out, out}) lt_.preference_set(preference, attribute++, &one, sizeof one);
    std::vector<lt::Heuristic> found(static_cast<size_t>(count));
    int usable = 0;
    lt_.heuristic(handle_, c.desc, c.a, c.b, c.d, c.d, preference, count, found.data(), &usable);
    lt_.preference_destroy(preference);
    int kept = 0;
    for (int i = 0; i < usable; i++)
      if (found[size_t(i)].state == 0) plans[kept++] = {found[size_t(i)].algo, found[size_t(i)].workspace, true};
    return kept;
  }

  int32_t proposed(const char *op, const Product &p, const Plan *&plan) {
    if (proposals_.size() > kMostPlans) proposals_.clear();
    Plan &slot = proposals_[{signature(p), {p.rows, p.depth}}];
    if (!slot.known && !propose(p, lt::kAnyReduction, 1, &slot)) return refused(op, p, 0);
    plan = &slot;
    return ARBOR_OK;
  }

  int32_t by_row(arbor_stream *stream, const char *op, const Product &p, const Plan *&plan) {
    Plan &slot = plans_[{signature(p), bucket(p.rows)}];
    plan = &slot;
    if (slot.known) return ARBOR_OK;
    Plan &reference = references_[signature(p)];
    if (!reference.known) {
      Product usual = p;
      usual.rows = p.few_rows ? kFewRows : kReferenceRows;
      if (!propose(usual, reductions(p), 1, &reference) && !propose(usual, lt::kAnyReduction, 1, &reference)) return refused(op, p, 0);
    }
    slot = is_recording(stream) ? reference : fastest(stream, p, reference);
    return ARBOR_OK;
  }

  // Of the proposals that give the reference's bits, the fastest on weights that lie in no cache, at the largest number of rows that shares the plan.
  // What is proposed for more rows may suit few as well: fewer rows alone would have it divide the sum.
  Plan fastest(arbor_stream *stream, const Product &p, const Plan &reference) {
    const int64_t most_rows = bucket(p.rows);
    const int64_t x_bytes = padded(most_rows * p.depth * bytes_of(p.a.type)), out_bytes = most_rows * p.out_ld * bytes_of(p.out_type);
    char *memory = p.a.transposed ? nullptr : static_cast<char *>(scratch(stream, 0, x_bytes + 2 * padded(out_bytes) + 256));
    if (!memory) return reference;
    Trial trial{p, memory + 256 + x_bytes, memory + 256 + x_bytes + padded(out_bytes), out_bytes, reinterpret_cast<int32_t *>(memory)};
    trial.product.rows = most_rows;
    trial.product.a.data = memory + 256;
    trial.product.a.ld = p.depth;
    trial.product.beta = 0;
    std::vector<Plan> candidates{reference};
    for (int64_t rows = p.rows; rows <= 8 * kReferenceRows; rows = rows < 64 ? 128 : 2 * rows) {
      Product larger = trial.product;
      larger.rows = rows;
      std::vector<Plan> found(kProposals);
      found.resize(size_t(propose(larger, reductions(p), kProposals, found.data())));
      for (const Plan &plan : found) {
        const auto same = [&](const Plan &other) { return std::memcmp(&plan.algo, &other.algo, sizeof plan.algo) == 0; };
        if (std::none_of(candidates.begin(), candidates.end(), same)) candidates.push_back(plan);
      }
      if (rows >= kReferenceRows) break;
    }
    keep_equal(stream, trial, reference, candidates);
    Plan best = reference;
    float best_time = 1e30f;
    trial.product.out = trial.actual;
    for (const Plan &candidate : candidates) {
      const float time = time_of(stream, trial.product, candidate);
      if (time < best_time) best = candidate, best_time = time;
    }
    return best;
  }

  static uint32_t reductions(const Product &p) { return p.few_rows ? lt::kAnyReduction : 0; }

  // A product on noise: the reference's outputs and a candidate's.
  struct Trial {
    Product product;
    char *expected, *actual;
    int64_t bytes;
    int32_t *differences;
  };

  static int64_t padded(int64_t bytes) { return ceil_div(bytes, 256) * 256; }

  // Leaves the candidates whose outputs have the reference's bits, on fresh noise until enough of them were compared.
  void keep_equal(arbor_stream *stream, Trial trial, const Plan &reference, std::vector<Plan> &candidates) {
    const int64_t outputs = std::max(trial.product.rows * trial.product.columns, int64_t(1));
    const int rounds = int(std::min(int64_t(kMostRounds), ceil_div(kCompared, outputs)));
    for (int round = 0; round < rounds && candidates.size() > 1; round++) {
      fill(stream, trial.product, uint32_t(round));
      trial.product.out = trial.expected;
      if (call(stream, trial.product, reference) != 0) {
        candidates = {reference};
        return;
      }
      trial.product.out = trial.actual;
      const auto differs = [&](const Plan &plan) { return !same_bits(stream, trial, plan); };
      candidates.erase(std::remove_if(candidates.begin() + 1, candidates.end(), differs), candidates.end());
    }
  }

  static void fill(arbor_stream *stream, const Product &p, uint32_t seed) {
    const int64_t count = p.rows * p.depth;
    const unsigned blocks = unsigned(ceil_div(count, 256));
    void *x = const_cast<void *>(p.a.data);
    if (p.a.type == ARBOR_BF16)
      fill_noise<<<blocks, 256, 0, cuda_stream(stream)>>>(static_cast<bf16 *>(x), count, p.depth, seed);
    else
      fill_noise<<<blocks, 256, 0, cuda_stream(stream)>>>(static_cast<float *>(x), count, p.depth, seed);
  }

  bool same_bits(arbor_stream *stream, const Trial &trial, const Plan &plan) {
    const cudaStream_t s = cuda_stream(stream);
    cudaMemsetAsync(trial.differences, 0, 4, s);
    if (call(stream, trial.product, plan) != 0) return false;
    const int64_t words = trial.bytes / 4;
    count_differences<<<unsigned(ceil_div(words, 256)), 256, 0, s>>>(reinterpret_cast<const uint32_t *>(trial.expected),
                                                                    reinterpret_cast<const uint32_t *>(trial.actual), words, trial.differences);
    int32_t found = 1;
    cudaMemcpyAsync(&found, trial.differences, 4, cudaMemcpyDeviceToHost, s);
    return cudaStreamSynchronize(s) == cudaSuccess && found == 0;
  }

  // The best of three, each with the level-2 cache emptied before.
  float time_of(arbor_stream *stream, const Product &test, const Plan &plan) {
    const cudaStream_t s = cuda_stream(stream);
    cudaEvent_t begin, end;
    cudaEventCreate(&begin);
    cudaEventCreate(&end);
    float best = 1e30f;
    for (int i = 0; i < 3; i++) {
      cudaMemsetAsync(flush_, i, flush_bytes_, s);
      cudaEventRecord(begin, s);
      call(stream, test, plan);
      cudaEventRecord(end, s);
      float time = 0;
      if (cudaEventSynchronize(end) == cudaSuccess && cudaEventElapsedTime(&time, begin, end) == cudaSuccess) best = std::min(best, time);
    }
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    return best;
  }
};

void DeleteProducts::operator()(Products *products) const { delete products; }

std::unique_ptr<Products, DeleteProducts> open_products(int64_t level_2_bytes, std::string &problem) {
  const lt::Library *library = lt::load(problem);
  if (!library) return nullptr;
  lt::Handle handle = nullptr;
  void *workspace = nullptr, *flush = nullptr;
  const size_t flush_bytes = 2 * size_t(level_2_bytes);
  if (library->create(&handle) != 0 || cudaMalloc(&workspace, kWorkspace) != cudaSuccess || cudaMalloc(&flush, flush_bytes) != cudaSuccess) {
    problem = "no device memory for cuBLASLt's workspace; another process may hold the GPU";
    return nullptr;
  }
  return std::unique_ptr<Products, DeleteProducts>(new Products(*library, handle, workspace, flush, flush_bytes));
}

std::string products_name() {
  std::string problem;
  const lt::Library *library = lt::load(problem);
  return library ? "cuBLASLt " + std::to_string(library->version()) : problem;
}

int32_t product(arbor_stream *stream, const char *op, const Product &wanted) { return products_of(stream).run(stream, op, wanted); }

} // namespace arbor
