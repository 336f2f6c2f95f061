// Sums over several GPUs of this process, one stream each, by NCCL. Nothing here waits: NCCL's own threads connect and launch, and
// arbor_group_status says whether they are through.

#include <cstring>
#include <map>
#include <mutex>

#include "memory.cuh"
#include "nccl_library.h"
#include "stream.cuh"

namespace arbor {
namespace {

std::mutex mutex; // of all below: streams live in threads of their own
std::map<arbor_stream *, nccl::Comm> comms;

const nccl::Library *library_or_fail(const char *op) {
  std::string problem;
  const nccl::Library *library = nccl::load(problem);
  if (!library) fail(ARBOR_UNSUPPORTED, std::string(op) + ": " + problem);
  return library;
}

bool under_way(int32_t result) { return result == nccl::kSuccess || result == nccl::kInProgress; }

int32_t failed(const nccl::Library &library, const char *op, int32_t result, nccl::Comm comm) {
  const char *detail = library.last_error(comm);
  std::string text = std::string(op) + ": NCCL: " + library.error_string(result);
  if (detail && *detail) text += std::string(" (") + detail + ")";
  return fail(ARBOR_FAILED, text);
}

} // namespace
} // namespace arbor

using namespace arbor;

int32_t arbor_group_id(arbor_stream *stream, void *id) {
  ARBOR_ENTER(stream, "arbor_group_id", given(id));
  std::lock_guard<std::mutex> lock(mutex);
  const nccl::Library *library = library_or_fail("arbor_group_id");
  if (!library) return ARBOR_UNSUPPORTED;
  const int32_t result = library->unique_id(static_cast<nccl::Id *>(id));
  return result == nccl::kSuccess ? int32_t(ARBOR_OK) : failed(*library, "arbor_group_id", result, nullptr);
}

int32_t arbor_group_join(arbor_stream *stream, const void *id, int32_t ranks, int32_t rank) {
  ARBOR_ENTER(stream, "arbor_group_join", given(id) && ranks >= 1 && rank >= 0 && rank < ranks);
  std::lock_guard<std::mutex> lock(mutex);
  const nccl::Library *library = library_or_fail("arbor_group_join");
  if (!library) return ARBOR_UNSUPPORTED;
  if (comms.count(stream)) return fail(ARBOR_BAD_ARGUMENT, "arbor_group_join: the stream is in a group; it leaves that one first");
  nccl::Id copy;
  std::memcpy(&copy, id, sizeof copy);
  nccl::Config config;
  nccl::Comm comm = nullptr;
  const int32_t result = library->init(&comm, ranks, copy, rank, &config);
  if (!under_way(result)) return failed(*library, "arbor_group_join", result, nullptr);
  comms[stream] = comm;
  return ARBOR_OK;
}

int32_t arbor_group_status(arbor_stream *stream) {
  ARBOR_ENTER(stream, "arbor_group_status", true);
  std::lock_guard<std::mutex> lock(mutex);
  const auto found = comms.find(stream);
  if (found == comms.end()) return fail(ARBOR_BAD_ARGUMENT, "arbor_group_status: the stream is in no group");
  const nccl::Library &library = *library_or_fail("arbor_group_status");
  int32_t state = nccl::kSuccess;
  const int32_t result = library.async_error(found->second, &state);
  if (result == nccl::kSuccess && state == nccl::kInProgress) return ARBOR_BUSY;
  if (result == nccl::kSuccess && state == nccl::kSuccess) return ARBOR_OK;
  return failed(library, "arbor_group_status", result == nccl::kSuccess ? state : result, found->second);
}

int32_t arbor_group_sum(arbor_stream *stream, const double *tensors, int64_t tensor_count) {
  ARBOR_ENTER(stream, "arbor_group_sum", given(tensors) && tensor_count >= 0);
  std::lock_guard<std::mutex> lock(mutex);
  const auto found = comms.find(stream);
  if (found == comms.end()) return fail(ARBOR_BAD_ARGUMENT, "arbor_group_sum: the stream is in no group");
  if (is_recording(stream)) return unsupported("arbor_group_sum", "a sum over GPUs can't be part of a capture");
  const nccl::Library &library = *library_or_fail("arbor_group_sum");
  int32_t result = library.group_start(); // one launch for all of them, as far as NCCL can
  for (int64_t i = 0; i < tensor_count && under_way(result); i++) {
    auto *data = reinterpret_cast<float *>(uintptr_t(tensors[2 * i]));
    result = library.all_reduce(data, data, size_t(tensors[2 * i + 1]), nccl::kFloat32, nccl::kSum, found->second, cuda_stream(stream));
  }
  const int32_t ended = library.group_end();
  if (under_way(result)) result = ended;
  return under_way(result) ? int32_t(ARBOR_OK) : failed(library, "arbor_group_sum", result, found->second);
}

int32_t arbor_group_leave(arbor_stream *stream) {
  ARBOR_ENTER(stream, "arbor_group_leave", true);
  std::lock_guard<std::mutex> lock(mutex);
  const auto found = comms.find(stream);
  if (found == comms.end()) return ARBOR_OK;
  const nccl::Library &library = *library_or_fail("arbor_group_leave");
  const int32_t result = library.abort(found->second); // ends what is under way, frees all
  comms.erase(found);
  return under_way(result) ? int32_t(ARBOR_OK) : failed(library, "arbor_group_leave", result, nullptr);
}
