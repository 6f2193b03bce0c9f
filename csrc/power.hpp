#pragma once
// Powers of priorities, the same on the CPU and on the GPU for the exponents that are in use.

#include <cmath>

#include "host_device.hpp"

namespace rlp {

// x^alpha for x >= 0. Exact for alpha 0 and 1 and rounded once for 0.5, so the same to the bit everywhere; any other exponent is
// the library's pow, whose last bits differ: glibc promises 1 ulp, CUDA 2 (so 3 between them, 4e-16 relative).
RLP_HD inline double power(double x, double alpha) noexcept {
  if (alpha == 0.0) return x == x ? 1.0 : x;  // NaN stays NaN, to be refused
  if (alpha == 1.0) return x;
  if (alpha == 0.5) return std::sqrt(x);
  return std::pow(x, alpha);
}

}  // namespace rlp
