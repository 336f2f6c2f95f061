// The seam to another matrix library, for comparison and for machines where it wins: ARBOR_GEMM=onednn or cblas loads it at run time. The default is
// our own product (gemm.cpp), whose rows never depend on their number. Measured in f32 on a Xeon with AVX-512: with one or two threads ours is ahead
// of oneDNN 3.2 at 16 to 64 rows, where decoding lives, level below that, and level to 35 % slower from 256 rows on; with eight threads oneDNN leads from 64 rows.
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
