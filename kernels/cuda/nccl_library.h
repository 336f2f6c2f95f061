// The few functions of NCCL that all_reduce.cu calls, looked up at the first use: so this library builds without NCCL's headers, one GPU needs no
// NCCL, and several say in words when it is missing. Names and values are NCCL's, 2.14 and newer.
#pragma once

#include <cuda_runtime.h>

#include <climits>
#include <cstdint>

#include "dynamic_library.h"

namespace arbor::nccl {

typedef void *Comm;
struct Id {
  char bytes[128];
};

enum Result : int32_t { kSuccess = 0, kInProgress = 7 };
constexpr int32_t kFloat32 = 7, kSum = 0;

// How a communicator is made. NCCL takes the fields that its 2.14 knew and fills in what came later.
struct Config {
  size_t size = sizeof(Config);
  uint32_t magic = 0xcafebeef;
  uint32_t version = 21400;
  int32_t blocking = 0; // calls return, and say kInProgress while NCCL's own thread is at it
};

// Every entry point, null until `load` found it.
struct Library {
  int32_t (*unique_id)(Id *) = nullptr;
  int32_t (*init)(Comm *, int ranks, Id, int rank, Config *) = nullptr;
  int32_t (*async_error)(Comm, int32_t *) = nullptr;
  int32_t (*all_reduce)(const void *from, void *to, size_t count, int32_t type, int32_t op, Comm, cudaStream_t) = nullptr;
  int32_t (*group_start)() = nullptr;
  int32_t (*group_end)() = nullptr;
  int32_t (*abort)(Comm) = nullptr;
  const char *(*error_string)(int32_t) = nullptr;
  const char *(*last_error)(Comm) = nullptr;
};

// NCCL reads these when it starts. One algorithm with one protocol sums in one order; NVLink's multicast, which sums in the switch, is not for every
// machine that has it.
inline void set_defaults() {
  setenv("NCCL_NVLS_ENABLE", "0", 0);
  setenv("NCCL_ALGO", "Ring", 0);
  setenv("NCCL_PROTO", "Simple", 0);
}

// Null, with `problem` set, when no usable library is found.
inline const Library *load(std::string &problem) {
  static Library library;
  static bool loaded = false;
  if (loaded) return &library;
  set_defaults();
  DynamicLibrary found("ARBOR_NCCL", {"libnccl.so.2", "libnccl.so"});
  if (!found) {
    problem = "NCCL was not found: install libnccl2, or `pip install nvidia-nccl-cu" + std::to_string(CUDART_VERSION / 1000) +
              "` (ARBOR_NCCL may name its libnccl.so.2)";
    return nullptr;
  }
  found.find(library.unique_id, "ncclGetUniqueId")
      .find(library.init, "ncclCommInitRankConfig")
      .find(library.async_error, "ncclCommGetAsyncError")
      .find(library.all_reduce, "ncclAllReduce")
      .find(library.group_start, "ncclGroupStart")
      .find(library.group_end, "ncclGroupEnd")
      .find(library.abort, "ncclCommAbort")
      .find(library.error_string, "ncclGetErrorString")
      .find(library.last_error, "ncclGetLastError");
  if (!found.missing().empty()) problem = "this NCCL has no " + found.missing() + "; 2.14 or newer is needed";
  loaded = found.missing().empty();
  return loaded ? &library : nullptr;
}

} // namespace arbor::nccl
