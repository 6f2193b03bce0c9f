#pragma once
// Classic control whose dynamics change: each phase has factors of its own for gravity, lengths and forces.

#include <cstddef>
#include <cstdint>

#include "control.hpp"
#include "phases.hpp"

namespace rlp {
namespace control {

// A factor in each phase: phase p has value[p % size].
struct Factors {
  static constexpr std::int32_t room = 8;
  double value[room] = {1.0};
  std::int32_t size = 1;

  [[nodiscard]] RLP_HD double at(std::int64_t phase) const noexcept { return value[phase % size]; }

  // u in [0, 1) stretched to between the least and the greatest of them.
  [[nodiscard]] RLP_HD double between(double u) const noexcept {
    double low = value[0], high = value[0];
    for (std::int32_t k = 1; k < size; ++k) {
      low = value[k] < low ? value[k] : low;
      high = value[k] > high ? value[k] : high;
    }
    return stretch(u, low, high);
  }
};

// What the environments of a run share.
struct Changes {
  std::int64_t phase_steps;  // as in PhaseClock
  std::int64_t first_phase;
  Factors gravity, length, force;
  bool drawn;         // phases after phase 0 draw between the least and the greatest factor instead
  std::uint64_t key;  // from the two blocks 2 * phase, ... of this stream; 0 where nothing is drawn

  [[nodiscard]] RLP_HD Scaled at(std::int64_t phase) const noexcept {
    if (!drawn || phase == 0) return {gravity.at(phase), length.at(phase), force.at(phase)};
    Stream stream{key, static_cast<std::uint64_t>(2 * phase)};
    double u[3];
    stream.uniform(u, 3);
    return {gravity.between(u[0]), length.between(u[1]), force.between(u[2])};
  }
};

// Numbers in an action, where they are continuous.
template <typename G>
struct ActionSize {};
template <Continuous G>
struct ActionSize<G> {
  static constexpr std::size_t action_size = G::action_size;
};

}  // namespace control

// G is a game with control::Scaled dynamics.
template <Env G>
class ContinualControl : public control::ActionSize<G> {
 public:
  using Cell = float;
  static constexpr std::size_t shared = PhaseClock::saved + 1;  // integers before the game's
  static constexpr std::size_t saved = shared + G::saved;

  ContinualControl(std::int32_t limit, const control::Changes& changes) noexcept
      : changes_(changes), clock_{changes.phase_steps, changes.first_phase}, game_(limit) {
    enter();
  }

  [[nodiscard]] RLP_HD std::int64_t actions() const noexcept
    requires Discrete<G>
  {
    return game_.actions();
  }
  [[nodiscard]] RLP_HD std::size_t frame_size() const noexcept { return game_.frame_size(); }
  [[nodiscard]] RLP_HD std::int64_t phase() const noexcept { return clock_.phase; }
  [[nodiscard]] RLP_HD control::Scaled dynamics() const noexcept { return game_; }

  RLP_HD void reset(Stream& stream) noexcept {
    enter();
    game_.reset(stream);
  }

  RLP_HD Outcome step(std::int64_t action, Stream& stream) noexcept
    requires Discrete<G>
  {
    return ticked(game_.step(action, stream));
  }
  RLP_HD Outcome step(const float* action, Stream& stream) noexcept
    requires Continuous<G>
  {
    return ticked(game_.step(action, stream));
  }

  RLP_HD void draw(float* frame) const noexcept { game_.draw(frame); }

  // The clock, the key, the game. The key comes along so that a restored environment goes on under the same dynamics, whatever
  // the seed of the one into which it is loaded.
  void save(std::int64_t* out) const noexcept {
    clock_.save(out);
    out[PhaseClock::saved] = static_cast<std::int64_t>(changes_.key);
    game_.save(out + shared);
  }

  bool load(const std::int64_t* in) noexcept {
    if (!clock_.load(in) || (!changes_.drawn && in[PhaseClock::saved] != 0)) return false;
    changes_.key = static_cast<std::uint64_t>(in[PhaseClock::saved]);
    enter();
    return game_.load(in + shared);
  }

 private:
  RLP_HD Outcome ticked(Outcome outcome) noexcept {
    if (clock_.tick() && !outcome.terminated) outcome.truncated = true;
    return outcome;
  }

  RLP_HD void enter() noexcept { static_cast<control::Scaled&>(game_) = changes_.at(clock_.phase); }

  control::Changes changes_;
  PhaseClock clock_;
  G game_;
};

}  // namespace rlp
