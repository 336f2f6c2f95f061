// Sums over several devices. A CPU's threads are one device, so its group has one member and every sum is what it was.

#include "stream.h"

#include <cstring>

using arbor::fail;
using arbor::given;

int32_t arbor_group_id(arbor_stream *stream, void *id) {
  if (!stream || !given(id)) return fail(ARBOR_BAD_ARGUMENT, "arbor_group_id: no stream, or no room for the id");
  std::memset(id, 0, 128);
  return ARBOR_OK;
}

int32_t arbor_group_join(arbor_stream *stream, const void *id, int32_t ranks, int32_t rank) {
  if (!stream || !given(id) || ranks < 1 || rank < 0 || rank >= ranks)
    return fail(ARBOR_BAD_ARGUMENT, "arbor_group_join: a pointer is null, or the rank is none of the group's");
  if (ranks > 1) return fail(ARBOR_UNSUPPORTED, "arbor_group_join: a CPU is one device; it can't sum with " + std::to_string(ranks - 1) + " others");
  return ARBOR_OK;
}

int32_t arbor_group_status(arbor_stream *stream) { return stream ? int32_t(ARBOR_OK) : fail(ARBOR_BAD_ARGUMENT, "arbor_group_status: no stream"); }

int32_t arbor_group_sum(arbor_stream *stream, const double *tensors, int64_t tensor_count) {
  if (!stream || !given(tensors) || tensor_count < 0)
    return fail(ARBOR_BAD_ARGUMENT, "arbor_group_sum: a pointer is null or the count is negative");
  return ARBOR_OK;
}

int32_t arbor_group_leave(arbor_stream *stream) { return stream ? int32_t(ARBOR_OK) : fail(ARBOR_BAD_ARGUMENT, "arbor_group_leave: no stream"); }
