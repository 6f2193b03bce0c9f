#pragma once
// MountainCar: a car too weak for the hill, which has to swing up to the flag. Moore 1990; rules of Gymnasium's MountainCar-v0 and
// MountainCarContinuous-v0.
//
// The valley is x in [-1.2, 0.6], its floor near -0.52; speeds are clipped at 0.07 a step. Starts at rest, x uniform in [-0.6, -0.4).
// Dynamics: gravity and the engine's force; there is no length to change.

#include "control.hpp"

namespace rlp {

// Actions 0, 1, 2 accelerate by -0.001, 0, 0.001. Reward -1 a step. Terminated at x >= 0.5 where the car does not roll back.
template <typename Dynamics>
class MountainCarWith : public Dynamics {
 public:
  using Cell = float;
  static constexpr std::size_t saved = 3;
  static constexpr double left = -1.2, right = 0.6, goal = 0.5, max_speed = 0.07;

  explicit MountainCarWith(std::int32_t limit) noexcept : clock_{limit} {}

  [[nodiscard]] RLP_HD std::int64_t actions() const noexcept { return 3; }
  [[nodiscard]] RLP_HD std::size_t frame_size() const noexcept { return 2; }

  RLP_HD void reset(Stream& stream) noexcept {
    x_ = control::stretch(stream.uniform(), -0.6, -0.4);
    speed_ = 0.0;
    clock_.steps = 0;
  }

  RLP_HD Outcome step(std::int64_t action, Stream&) noexcept {
    const double force = 0.001 * Dynamics::force, gravity = 0.0025 * Dynamics::gravity;
    speed_ += static_cast<double>(action - 1) * force + std::cos(3.0 * x_) * -gravity;
    speed_ = control::clamp(speed_, -max_speed, max_speed);
    x_ = control::clamp(x_ + speed_, left, right);
    if (x_ == left && speed_ < 0.0) speed_ = 0.0;
    return {-1.0f, arrived(), clock_.tick()};
  }

  // float32 [2]: position, speed.
  RLP_HD void draw(float* frame) const noexcept {
    frame[0] = static_cast<float>(x_);
    frame[1] = static_cast<float>(speed_);
  }

  void save(std::int64_t* out) const noexcept {
    out[0] = clock_.steps;
    out[1] = control::bits(x_);
    out[2] = control::bits(speed_);
  }

  bool load(const std::int64_t* in) noexcept {
    x_ = control::number(in[1]);
    speed_ = control::number(in[2]);
    return clock_.load(in[0]) && x_ >= left && x_ <= right && control::within(speed_, max_speed) && !arrived();
  }

 private:
  [[nodiscard]] RLP_HD bool arrived() const noexcept { return x_ >= goal && speed_ >= 0.0; }

  control::Clock clock_;
  double x_ = -0.5, speed_ = 0.0;
};
using MountainCar = MountainCarWith<control::Standard>;

// The action is a force in [-1, 1], worth 0.0015 a step. Reward -0.1 force^2, and 100 at the flag, which is at x >= 0.45.
//
// Gymnasium keeps this game's state in float32 after the first step, which it takes in float64 from a float64 start; with
// NumPy 2's promotion each intermediate result but the cosine is then a float32. The same here, rounding for rounding.
template <typename Dynamics>
class MountainCarContinuousWith : public Dynamics {
 public:
  using Cell = float;
  static constexpr std::size_t action_size = 1;
  static constexpr std::size_t saved = 3;
  static constexpr float left = -1.2f, right = 0.6f, goal = 0.45f, max_speed = 0.07f;

  explicit MountainCarContinuousWith(std::int32_t limit) noexcept : clock_{limit} {}

  [[nodiscard]] RLP_HD std::size_t frame_size() const noexcept { return 2; }

  RLP_HD void reset(Stream& stream) noexcept {
    start_ = control::stretch(stream.uniform(), -0.6, -0.4);
    x_ = static_cast<float>(start_);
    speed_ = 0.0f;
    clock_.steps = 0;
  }

  RLP_HD Outcome step(const float* action, Stream&) noexcept {
    const double gravity = 0.0025 * Dynamics::gravity;
    const float push = action[0] * static_cast<float>(0.0015 * Dynamics::force);
    if (clock_.steps == 0) {  // too slow and too far from the ends for any bound to matter
      speed_ = push - static_cast<float>(gravity * std::cos(3.0 * start_));
      x_ = static_cast<float>(start_ + static_cast<double>(speed_));
    } else {
      speed_ += push - static_cast<float>(gravity * std::cos(static_cast<double>(3.0f * x_)));
      speed_ = speed_ > max_speed ? max_speed : speed_ < -max_speed ? -max_speed : speed_;
      x_ += speed_;
      x_ = x_ > right ? right : x_ < left ? left : x_;
      if (x_ == left && speed_ < 0.0f) speed_ = 0.0f;
    }
    const double force = static_cast<double>(action[0]);
    const double reward = (arrived() ? 100.0 : 0.0) - force * force * 0.1;
    return {static_cast<float>(reward), arrived(), clock_.tick()};
  }

  // float32 [2]: position, speed.
  RLP_HD void draw(float* frame) const noexcept {
    frame[0] = x_;
    frame[1] = speed_;
  }

  // Before the first step the position is a float64.
  void save(std::int64_t* out) const noexcept {
    out[0] = clock_.steps;
    out[1] = control::bits(clock_.steps == 0 ? start_ : static_cast<double>(x_));
    out[2] = control::bits(static_cast<double>(speed_));
  }

  bool load(const std::int64_t* in) noexcept {
    if (!clock_.load(in[0])) return false;
    start_ = control::number(in[1]);
    const double speed = control::number(in[2]);
    if (!control::within(start_, 2.0) || !control::within(speed, 1.0)) return false;  // before they become floats
    x_ = static_cast<float>(start_);
    speed_ = static_cast<float>(speed);
    if (static_cast<double>(speed_) != speed) return false;
    if (clock_.steps == 0) return start_ >= -0.6 && start_ <= -0.4 && speed_ == 0.0f;
    return static_cast<double>(x_) == start_ && x_ >= left && x_ <= right && speed_ >= -max_speed && speed_ <= max_speed &&
           !arrived();
  }

 private:
  [[nodiscard]] RLP_HD bool arrived() const noexcept { return x_ >= goal && speed_ >= 0.0f; }

  control::Clock clock_;
  double start_ = -0.5;  // the position until the first step
  float x_ = -0.5f, speed_ = 0.0f;
};
using MountainCarContinuous = MountainCarContinuousWith<control::Standard>;

}  // namespace rlp
