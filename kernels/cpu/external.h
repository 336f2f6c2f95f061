// The seam to a matrix library that the build found (oneDNN, a CBLAS). The default is our own product of gemm.cpp.
#pragma once

namespace arbor {

struct Gemm;

// True when an external library did it. Only plain (strided) operands go there.
bool external_gemm(const Gemm &gemm);

// Whether weights should stay in the plain layout, because an external library computes.
bool external_in_use();

// For people.
const char *gemm_name();

} // namespace arbor
