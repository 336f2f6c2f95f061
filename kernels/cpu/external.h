// The seam to another matrix library, for comparison and for machines where it wins: ARBOR_GEMM=onednn or cblas loads it at run time. The default is
// our own product (gemm.cpp): measured on a Xeon with AVX-512, oneDNN 3.2 is 5 to 15 % faster from 256 rows on and 15 to 40 % slower at 8 to
// 64 rows, where decoding lives; and with AVX2 its rows depend on their number.
#pragma once

#include <string>

namespace arbor {

struct Gemm;

// True when an external library did it; it takes plain (strided) operands only.
bool external_gemm(const Gemm &gemm);

// Whether weights should stay in the plain layout, because an external library computes.
bool external_in_use();

// For people.
std::string gemm_name();

// Why what ARBOR_GEMM asks for can't be had; empty when all is well.
std::string gemm_problem();

} // namespace arbor
