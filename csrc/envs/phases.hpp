#pragma once
// Non-stationary environments: an environment's time is cut into phases of equally many steps, and something about it is another thing
// in each. What a phase is like is a pure function of its number and of what all environments of a run share, so that all are
// in the same phase, and a resumed run is, too.

#include <cstddef>
#include <cstdint>

#include "../host_device.hpp"

namespace rlp {

// Which phase an environment is in, by the steps that it has taken: phase p is its steps [(p - first) n, (p - first + 1) n).
// The game under way when a phase ends is truncated, unless it terminates on that very step: no return is of two phases.
struct PhaseClock {
  static constexpr std::size_t saved = 2;
  static constexpr std::int64_t most = std::int64_t{1} << 40;  // phases, and steps of one

  std::int64_t steps;  // of each phase, in [1, most]
  std::int64_t phase;  // the number of the current one
  std::int64_t left = steps;

  // One step more: did a phase end with it? Then the next has begun.
  RLP_HD bool tick() noexcept {
    if (--left > 0) return false;
    left = steps;
    ++phase;
    return true;
  }

  void save(std::int64_t* out) const noexcept {
    out[0] = phase;
    out[1] = left;
  }

  // Also says false, having changed nothing, for a phase or a rest of one that cannot be.
  bool load(const std::int64_t* in) noexcept {
    if (in[0] < 0 || in[0] > most || in[1] < 1 || in[1] > steps) return false;
    phase = in[0];
    left = in[1];
    return true;
  }
};

}  // namespace rlp
