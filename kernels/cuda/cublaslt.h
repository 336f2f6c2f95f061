// The few functions of cuBLASLt that products.cu calls, looked up when the library is loaded: so this library builds without cuBLAS's headers and
// says in words when cuBLAS is missing. Names and values are cuBLASLt's, the same in CUDA 11 to 13.
#pragma once

#include <cuda_runtime.h>
#include <glob.h>

#include <cstdint>

#include "dynamic_library.h"

namespace arbor::lt {

typedef void *Handle;
typedef void *Desc;
typedef void *Layout;
typedef void *Preference;
struct Algo {
  uint64_t data[8];
};
struct Heuristic {
  Algo algo;
  size_t workspace;
  int32_t state; // 0 = usable
  float waves;
  int32_t reserved[4];
};

constexpr int32_t kCompute32F = 68; // CUBLAS_COMPUTE_32F: products of bf16 or f32, summed in f32, no TF32
constexpr int32_t kF32 = 0, kBf16 = 14;
constexpr int32_t kTransA = 3, kTransB = 4;                                     // of a description
constexpr int32_t kMaxWorkspace = 1, kReductionMask = 3, kMinAlignmentA = 5;     // of a preference; B, C, D follow A
constexpr uint32_t kAnyReduction = 7;
constexpr int32_t kBatchCount = 5, kBatchStride = 6; // of a layout

// Every entry point, null until `load` found it.
struct Library {
  size_t (*version)() = nullptr;
  int32_t (*create)(Handle *) = nullptr;
  int32_t (*destroy)(Handle) = nullptr;
  int32_t (*desc_create)(Desc *, int32_t compute, int32_t scale) = nullptr;
  int32_t (*desc_destroy)(Desc) = nullptr;
  int32_t (*desc_set)(Desc, int32_t attribute, const void *, size_t) = nullptr;
  int32_t (*layout_create)(Layout *, int32_t type, uint64_t rows, uint64_t columns, int64_t ld) = nullptr;
  int32_t (*layout_destroy)(Layout) = nullptr;
  int32_t (*layout_set)(Layout, int32_t attribute, const void *, size_t) = nullptr;
  int32_t (*preference_create)(Preference *) = nullptr;
  int32_t (*preference_destroy)(Preference) = nullptr;
  int32_t (*preference_set)(Preference, int32_t attribute, const void *, size_t) = nullptr;
  int32_t (*heuristic)(Handle, Desc, Layout, Layout, Layout, Layout, Preference, int, Heuristic *, int *) = nullptr;
  int32_t (*matmul)(Handle, Desc, const void *alpha, const void *a, Layout, const void *b, Layout, const void *beta, const void *c, Layout, void *d,
                    Layout, const Algo *, void *workspace, size_t, cudaStream_t) = nullptr;
};

// Where cuBLASLt may lie: as the loader finds it, or in a toolkit's folder.
inline std::vector<std::string> places() {
  std::vector<std::string> found;
  for (const std::string &version : {std::to_string(CUDART_VERSION / 1000), std::string("13"), std::string("12")}) found.push_back("libcublasLt.so." + version);
  found.push_back("libcublasLt.so");
  glob_t hits{};
  if (glob("/usr/local/cuda*/lib64/libcublasLt.so*", 0, nullptr, &hits) == 0)
    for (size_t i = 0; i < hits.gl_pathc; i++) found.push_back(hits.gl_pathv[i]);
  globfree(&hits);
  return found;
}

// Null, with `problem` set, when no usable library is found.
inline const Library *load(std::string &problem) {
  static Library library;
  static bool loaded = false;
  if (loaded) return &library;
  DynamicLibrary found("ARBOR_CUBLASLT", places());
  if (!found) {
    problem = "cuBLASLt was not found: install the CUDA toolkit, or `pip install nvidia-cublas` and set ARBOR_CUBLASLT to its libcublasLt.so";
    return nullptr;
  }
  found.find(library.version, "cublasLtGetVersion")
      .find(library.create, "cublasLtCreate")
      .find(library.destroy, "cublasLtDestroy")
      .find(library.desc_create, "cublasLtMatmulDescCreate")
      .find(library.desc_destroy, "cublasLtMatmulDescDestroy")
      .find(library.desc_set, "cublasLtMatmulDescSetAttribute")
      .find(library.layout_create, "cublasLtMatrixLayoutCreate")
      .find(library.layout_destroy, "cublasLtMatrixLayoutDestroy")
      .find(library.layout_set, "cublasLtMatrixLayoutSetAttribute")
      .find(library.preference_create, "cublasLtMatmulPreferenceCreate")
      .find(library.preference_destroy, "cublasLtMatmulPreferenceDestroy")
      .find(library.preference_set, "cublasLtMatmulPreferenceSetAttribute")
      .find(library.heuristic, "cublasLtMatmulAlgoGetHeuristic")
      .find(library.matmul, "cublasLtMatmul");
  if (!found.missing().empty()) problem = "cuBLASLt has no " + found.missing();
  loaded = found.missing().empty();
  return loaded ? &library : nullptr;
}

} // namespace arbor::lt
