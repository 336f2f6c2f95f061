// dnnl_sgemm (the same in oneDNN 2 and 3) and cblas_sgemm, found by name in a shared library: the build needs neither.

#include "external.h"

#include <cstdlib>
#include <cstring>
#include <vector>

#include <dlfcn.h>

#include "gemm.h"

namespace arbor {
namespace {

// Row-major C [m, n] = alpha op(A) op(B) + beta C; the letters are N or T.
using Dnnl = int (*)(char, char, int64_t, int64_t, int64_t, float, const float *, int64_t, const float *, int64_t, float, float *, int64_t);
using Cblas = void (*)(int, int, int, int, int, int, float, const float *, int, const float *, int, float, float *, int);
constexpr int kRowMajor = 101, kNoTranspose = 111, kTranspose = 112;

struct External {
  std::string name, problem;
  Dnnl dnnl = nullptr;
  Cblas cblas = nullptr;
};

// ARBOR_GEMM_LIBRARY names the file; else the usual names are tried.
void *find(const std::vector<const char *> &usual, const char *symbol) {
  const char *named = std::getenv("ARBOR_GEMM_LIBRARY");
  for (const char *file : named ? std::vector<const char *>{named} : usual)
    if (void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL))
      if (void *found = dlsym(library, symbol)) return found;
  return nullptr;
}

// ARBOR_MAX_ISA holds for oneDNN too, which reads its own variable when it is loaded.
void mask_onednn() {
  constexpr const char *kNames[][2] = {
      {"scalar", "SSE41"}, {"avx2", "AVX2"}, {"avx512", "AVX512_CORE"}, {"avx512bf16", "AVX512_CORE_BF16"}, {"amx", "AVX512_CORE_AMX"}};
  const char *most = std::getenv("ARBOR_MAX_ISA");
  for (const auto &[ours, theirs] : kNames)
    if (most && std::strcmp(most, ours) == 0) setenv("ONEDNN_MAX_CPU_ISA", theirs, 0);
}

External load() {
  External external;
  const char *wish = std::getenv("ARBOR_GEMM");
  if (!wish || std::strcmp(wish, "own") == 0) return external;
  mask_onednn();
  if (std::strcmp(wish, "onednn") == 0)
    external.dnnl = reinterpret_cast<Dnnl>(find({"libdnnl.so.3", "libdnnl.so.2", "libdnnl.so"}, "dnnl_sgemm"));
  else if (std::strcmp(wish, "cblas") == 0)
    external.cblas = reinterpret_cast<Cblas>(
        find({"libopenblas.so.0", "libcblas.so.3", "libblas.so.3", "/System/Library/Frameworks/Accelerate.framework/Accelerate"}, "cblas_sgemm"));
  else
    external.problem = std::string("ARBOR_GEMM is \"") + wish + "\"; it takes own, onednn, cblas";
  if (external.dnnl || external.cblas)
    external.name = wish;
  else if (external.problem.empty())
    external.problem = std::string("ARBOR_GEMM=") + wish + ": no such library was found; ARBOR_GEMM_LIBRARY may name its file";
  return external;
}

const External &external() {
  static const External loaded = load();
  return loaded;
}

} // namespace

bool external_in_use() { return !external().name.empty(); }
std::string gemm_problem() { return external().problem; }
std::string gemm_name() {
  return external_in_use() ? external().name + " matrix products (a row may depend on the other rows)" : "own matrix products";
}

bool external_gemm(const Gemm &g) {
  if (!external_in_use() || g.b.kind != MatrixB::Strided || g.k == 0) return false;
  const bool a_transposed = g.a.column != 1, b_transposed = g.b.n_stride != 1;
  const int64_t lda = a_transposed ? g.a.column : g.a.row, ldb = b_transposed ? g.b.n_stride : g.b.k_stride;
  if (g.c.init && g.c.init != g.c.data)
    for (int64_t r = 0; r < g.m; r++)
      std::memcpy(g.c.data + r * g.c.row, g.c.init + r * g.c.init_row, size_t(g.n) * sizeof(float));
  const float beta = g.c.init ? 1.0f : 0.0f;
  if (external().dnnl)
    return external().dnnl(a_transposed ? 'T' : 'N', b_transposed ? 'T' : 'N', g.m, g.n, g.k, g.a.scale, g.a.data, lda, g.b.data, ldb,
                           beta, g.c.data, g.c.row) == 0;
  external().cblas(kRowMajor, a_transposed ? kTranspose : kNoTranspose, b_transposed ? kTranspose : kNoTranspose, int(g.m), int(g.n),
                   int(g.k), g.a.scale, g.a.data, int(lda), g.b.data, int(ldb), beta, g.c.data, int(g.c.row));
  return true;
}

} // namespace arbor
