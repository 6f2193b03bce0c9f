#pragma once
// What the classic-control games share. Their rules are Gymnasium's (1.4; classic_control), their states float64 as there, their
// frames the observation in float32. Products and sums are grouped as there, and nothing is contracted (CMakeLists.txt),
// so that what differs is the last bit of a sine or cosine and no more.

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "../env_batch.hpp"

namespace rlp::control {

inline constexpr double pi = 3.14159265358979323846;

// u in [0, 1) stretched to [low, high), as NumPy's Generator.uniform does it.
RLP_HD inline double stretch(double u, double low, double high) noexcept { return low + (high - low) * u; }

RLP_HD inline double clamp(double x, double low, double high) noexcept { return x < low ? low : x > high ? high : x; }

// By what a game's dynamics differ from Gymnasium's: factors of gravity, of lengths, and of what an action does. A game is a
// template over one of these two. Standard's ones are known to the compiler, which drops them: x * 1.0 is x to the bit.
struct Standard {
  static constexpr double gravity = 1.0, length = 1.0, force = 1.0;
};
struct Scaled {
  double gravity = 1.0, length = 1.0, force = 1.0;
};

// Neither NaN nor beyond [-bound, bound].
inline bool within(double x, double bound) noexcept { return x >= -bound && x <= bound; }

// How many steps an episode has had, and at how many it is truncated: Gymnasium's TimeLimit. An episode that terminates
// on its last step is both terminated and truncated, as there.
struct Clock {
  std::int32_t limit;
  std::int32_t steps = 0;

  // One step more: is that the last?
  RLP_HD bool tick() noexcept { return ++steps >= limit; }

  // `saved` as the steps of an episode that goes on.
  bool load(std::int64_t saved) noexcept {
    if (saved < 0 || saved >= limit) return false;
    steps = static_cast<std::int32_t>(saved);
    return true;
  }
};

// A double among the integers of save() and load(), to the bit.
inline std::int64_t bits(double x) noexcept { return std::bit_cast<std::int64_t>(x); }
inline double number(std::int64_t saved) noexcept { return std::bit_cast<double>(saved); }

}  // namespace rlp::control
