// One product as a call of cuBLASLt: its descriptions, the algorithms proposed for it, and the call itself.
#pragma once

#include <vector>

#include "cublaslt.h"
#include "decode_product.cuh"
#include "products.cuh"

namespace arbor {

constexpr size_t kWorkspace = 64 << 20;

// An algorithm, for some sizes of a product.
struct Plan {
  lt::Algo algo{};
  size_t workspace = 0;
  bool known = false;
  bool own = false; // no algorithm of cuBLASLt's, but decode_product.cuh
  DecodeBlocks blocks{}; // of the own kind
};

inline DecodeOutputs decode_outputs(const Product &p) { return {p.out, p.out_ld, p.terms, p.out_type == ARBOR_BF16}; }

inline int32_t type_of(int32_t type) { return type == ARBOR_BF16 ? lt::kBf16 : lt::kF32; }
inline int64_t bytes_of(int32_t type) { return type == ARBOR_BF16 ? 2 : 4; }

// The largest power of two, up to 256, that divides the address and the bytes of a row.
inline uint32_t alignment(const void *data, int64_t row_bytes) {
  const uint64_t both = reinterpret_cast<uint64_t>(data) | uint64_t(row_bytes) | 256;
  return uint32_t(both & (~both + 1));
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
    const int64_t depth = p.terms > 1 ? p.depth / p.terms : p.depth;
    create(a, p.b.type, p.columns, depth, p.b.transposed, p.b.ld);
    create(b, p.a.type, depth, p.rows, p.a.transposed, p.a.ld);
    create(d, p.out_type, p.columns, p.rows, false, p.out_ld);
    if (p.terms > 1) batch(a, p.terms, depth), batch(b, p.terms, depth), batch(d, p.terms, p.rows * p.out_ld);
  }
  ~Call() {
    if (desc) lt.desc_destroy(desc);
    for (lt::Layout layout : {a, b, d})
      if (layout) lt.layout_destroy(layout);
  }

private:
  void create(lt::Layout &layout, int32_t type, int64_t rows, int64_t columns, bool transposed, int64_t ld) {
    lt.layout_create(&layout, type_of(type), uint64_t(transposed ? columns : rows), uint64_t(transposed ? rows : columns), ld);
  }
  // Terms of a sum: each begins `stride` numbers behind the one before.
  void batch(lt::Layout layout, int32_t count, int64_t stride) {
    lt.layout_set(layout, lt::kBatchCount, &count, sizeof count);
    lt.layout_set(layout, lt::kBatchStride, &stride, sizeof stride);
  }
};

// A call that needs nothing but its pointers.
struct Ready {
  Call call;
  Plan plan;
  Ready(const lt::Library &library, const Product &p, const Plan &wanted) : call(library, p), plan(wanted) {}
};

// cuBLASLt on the current device, with the memory that its algorithms work in.
class CublasLt {
public:
  CublasLt(const lt::Library &library, lt::Handle handle, void *workspace) : library_(library), handle_(handle), workspace_(workspace) {}
  CublasLt(const CublasLt &) = delete;
  ~CublasLt() {
    library_.destroy(handle_);
    cudaFree(workspace_);
  }

  std::unique_ptr<Ready> ready(const Product &p, const Plan &plan) const { return std::make_unique<Ready>(library_, p, plan); }

  // cuBLASLt's status: 0, or why it refuses.
  int32_t enqueue(arbor_stream *stream, const Product &p, const Ready &ready) const {
    if (ready.plan.own)
      return decode_product(stream, static_cast<const bf16 *>(p.a.data), static_cast<const bf16 *>(p.b.data), p.b.ld, decode_outputs(p), p.rows, p.depth, ready.plan.blocks) ? 0 : -1;
    const Call &c = ready.call;
    return library_.matmul(handle_, c.desc, &p.alpha, p.b.data, c.a, p.a.data, c.b, &p.beta, p.out, c.d, p.out, c.d, &ready.plan.algo, workspace_,
                           kWorkspace, cuda_stream(stream));
  }
  int32_t enqueue(arbor_stream *stream, const Product &p, const Plan &plan) const { return enqueue(stream, p, Ready(library_, p, plan)); }

  // Up to `count` proposals, best first.
  std::vector<Plan> propose(const Product &p, uint32_t reductions, int count) const {
    Call c(library_, p);
    lt::Preference preference = nullptr;
    library_.preference_create(&preference);
    const size_t workspace = kWorkspace;
    library_.preference_set(preference, lt::kMaxWorkspace, &workspace, sizeof workspace);
    library_.preference_set(preference, lt::kReductionMask, &reductions, sizeof reductions);
    const uint32_t b = alignment(p.b.data, p.b.ld * bytes_of(p.b.type)), a = alignment(p.a.data, p.a.ld * bytes_of(p.a.type));
    const uint32_t out = alignment(p.out, p.out_ld * bytes_of(p.out_type));
    int32_t attribute = lt::kMinAlignmentA;
    for (const uint32_t one : {b, a, out, out}) library_.preference_set(preference, attribute++, &one, sizeof one);
    std::vector<lt::Heuristic> found(static_cast<size_t>(count));
    int usable = 0;
    library_.heuristic(handle_, c.desc, c.a, c.b, c.d, c.d, preference, count, found.data(), &usable);
    library_.preference_destroy(preference);
    std::vector<Plan> plans;
    for (int i = 0; i < usable; i++)
      if (found[size_t(i)].state == 0) plans.push_back({found[size_t(i)].algo, found[size_t(i)].workspace, true});
    return plans;
  }

private:
  const lt::Library &library_;
  lt::Handle handle_;
  void *workspace_;
};

} // namespace arbor
