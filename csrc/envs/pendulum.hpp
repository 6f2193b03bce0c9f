#pragma once
// Pendulum: swing a pendulum up and hold it there with a motor too weak to lift it at once. Rules of Gymnasium's Pendulum-v1.
//
// The action in [-1, 1] is half the torque, which Gymnasium takes in [-2, 2]. Reward -(angle^2 + 0.1 velocity^2 + 0.001 torque^2) of
// the state before the step, the angle from upright in [-pi, pi). Semi-implicit Euler with 0.05 s a step; velocities are clipped at 8.
// Never terminates. Starts at an angle uniform in [-pi, pi), with a velocity uniform in [-1, 1). Dynamics: gravity (10 there), length, torque.

#include "control.hpp"

namespace rlp {

template <typename Dynamics>
class PendulumWith : public Dynamics {
 public:
  using Cell = float;
  static constexpr std::size_t action_size = 1;
  static constexpr std::size_t saved = 3;
  static constexpr double max_velocity = 8.0;

  explicit PendulumWith(std::int32_t limit) noexcept : clock_{limit} {}

  [[nodiscard]] RLP_HD std::size_t frame_size() const noexcept { return 3; }

  RLP_HD void reset(Stream& stream) noexcept {
    double u[2];
    stream.uniform(u, 2);
    angle_ = control::stretch(u[0], -control::pi, control::pi);
    velocity_ = control::stretch(u[1], -1.0, 1.0);
    clock_.steps = 0;
  }

  RLP_HD Outcome step(const float* action, Stream&) noexcept {
    constexpr double dt = 0.05;
    const double fall = 3.0 * (10.0 * Dynamics::gravity) / (2.0 * Dynamics::length);
    const auto lift = static_cast<float>(3.0 / (Dynamics::length * Dynamics::length));
    // Exact without a factor; Gymnasium's terms in the torque alone are float32, too.
    const float torque = static_cast<float>(2.0 * Dynamics::force) * action[0];
    const double turned = normalised(angle_);
    const double cost = turned * turned + 0.1 * (velocity_ * velocity_) + static_cast<double>(0.001f * (torque * torque));
    velocity_ += (fall * std::sin(angle_) + static_cast<double>(lift * torque)) * dt;
    velocity_ = control::clamp(velocity_, -max_velocity, max_velocity);
    angle_ += velocity_ * dt;
    return {static_cast<float>(-cost), false, clock_.tick()};
  }

  // float32 [3]: cosine and sine of the angle from upright, angular velocity (rad/s).
  RLP_HD void draw(float* frame) const noexcept {
    frame[0] = static_cast<float>(std::cos(angle_));
    frame[1] = static_cast<float>(std::sin(angle_));
    frame[2] = static_cast<float>(velocity_);
  }

  void save(std::int64_t* out) const noexcept {
    out[0] = clock_.steps;
    out[1] = control::bits(angle_);
    out[2] = control::bits(velocity_);
  }

  bool load(const std::int64_t* in) noexcept {
    angle_ = control::number(in[1]);
    velocity_ = control::number(in[2]);
    return clock_.load(in[0]) && std::isfinite(angle_) && control::within(velocity_, max_velocity);
  }

 private:
  // The angle in [-pi, pi): Python's %, whose result has the divisor's sign.
  RLP_HD static double normalised(double angle) noexcept {
    double rest = std::fmod(angle + control::pi, 2 * control::pi);
    if (rest < 0.0) rest += 2 * control::pi;
    return rest - control::pi;
  }

  control::Clock clock_;
  double angle_ = 0.0, velocity_ = 0.0;
};
using Pendulum = PendulumWith<control::Standard>;

}  // namespace rlp
