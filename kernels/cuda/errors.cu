#include "errors.cuh"

namespace arbor {

static thread_local std::string last_error;

int32_t fail(arbor_code code, const std::string &text) {
  last_error = text;
  return code;
}

int32_t bad_argument(const char *op) { return fail(ARBOR_BAD_ARGUMENT, std::string(op) + ": a pointer is null or a size is out of range"); }

int32_t unsupported(const char *op, const char *what) { return fail(ARBOR_UNSUPPORTED, std::string(op) + ": " + what); }

std::string explain(cudaError_t error) {
  std::string text = cudaGetErrorString(error);
  switch (error) {
  case cudaErrorIllegalAddress:
  case cudaErrorLaunchFailure:
  case cudaErrorAssert:
  case cudaErrorECCUncorrectable:
  case cudaErrorUnknown:
    return text + ". The device can't go on in this process: start the server again; runs resume from their checkpoints.";
  case cudaErrorNoKernelImageForDevice:
    return text + ". The library was built for other GPUs: delete ~/.arbor/native and start again.";
  case cudaErrorInsufficientDriver:
    return text + ". Update the NVIDIA driver, or build with an older CUDA toolkit.";
  default:
    return text;
  }
}

int32_t failed(const char *op, cudaError_t error) {
  return fail(error == cudaErrorMemoryAllocation ? ARBOR_OUT_OF_MEMORY : ARBOR_FAILED, std::string(op) + ": " + explain(error));
}

static const char *place_of(int32_t op) {
  switch (op) {
  case kFaultEmbed: return "arbor_embed: token id";
  case kFaultGather: return "arbor_gather_rows: row";
  case kFaultRope: return "arbor_rope_store_kv: position or slot";
  case kFaultAttention: return "arbor_attention: a slot or segment's end";
  case kFaultLogprob: return "arbor_logprob: row or target";
  case kFaultSample: return "arbor_sample: place or token of the history";
  default: return "";
  }
}

std::string text_of(const Fault &fault) {
  return std::string(place_of(fault.op)) + " " + std::to_string(fault.value) + " is outside 0 to " + std::to_string(fault.limit - 1);
}

} // namespace arbor

const char *arbor_last_error(void) { return arbor::last_error.c_str(); }
