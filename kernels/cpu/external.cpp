#include "external.h"
namespace arbor {
bool external_gemm(const Gemm &) { return false; }
bool external_in_use() { return false; }
const char *gemm_name() { return "own matrix products"; }
} // namespace arbor
