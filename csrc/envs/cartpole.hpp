#pragma once
// CartPole: a cart pushed left or right, to keep a pole upright. Barto, Sutton and Anderson 1983; rules of Gymnasium's CartPole-v1.
//
// Actions 0, 1 push with -10, +10 N. Euler's method with 0.02 s a step. Reward 1 a step, the last one included. Terminated beyond
// 2.4 m or 12 degrees. Starts with each of the four numbers uniform in [-0.05, 0.05). Dynamics: gravity, the pole's length (its mass
// stays), the force.

#include "control.hpp"

namespace rlp {

template <typename Dynamics>
class CartPoleWith : public Dynamics {
 public:
  using Cell = float;
  static constexpr std::size_t saved = 5;
  static constexpr double max_x = 2.4;
  static constexpr double max_theta = 12 * 2 * control::pi / 360;

  explicit CartPoleWith(std::int32_t limit) noexcept : clock_{limit} {}

  [[nodiscard]] RLP_HD std::int64_t actions() const noexcept { return 2; }
  [[nodiscard]] RLP_HD std::size_t frame_size() const noexcept { return 4; }

  RLP_HD void reset(Stream& stream) noexcept {
    double u[4];
    stream.uniform(u, 4);
    x_ = control::stretch(u[0], -0.05, 0.05);
    x_dot_ = control::stretch(u[1], -0.05, 0.05);
    theta_ = control::stretch(u[2], -0.05, 0.05);
    theta_dot_ = control::stretch(u[3], -0.05, 0.05);
    clock_.steps = 0;
  }

  RLP_HD Outcome step(std::int64_t action, Stream&) noexcept {
    constexpr double pole_mass = 0.1, total_mass = pole_mass + 1.0, tau = 0.02;
    const double gravity = 9.8 * Dynamics::gravity, half_length = 0.5 * Dynamics::length, most = 10.0 * Dynamics::force;
    const double pole_moment = pole_mass * half_length;
    const double force = action == 1 ? most : -most;
    const double sine = small_sin(theta_), cosine = small_cos(theta_);
    const double push = (force + pole_moment * (theta_dot_ * theta_dot_) * sine) / total_mass;
    const double theta_acc =
        (gravity * sine - cosine * push) / (half_length * (4.0 / 3.0 - pole_mass * (cosine * cosine) / total_mass));
    const double x_acc = push - pole_moment * theta_acc * cosine / total_mass;
    x_ += tau * x_dot_;
    x_dot_ += tau * x_acc;
    theta_ += tau * theta_dot_;
    theta_dot_ += tau * theta_acc;
    return {1.0f, !upright(), clock_.tick()};
  }

  // float32 [4]: position (m), velocity (m/s), the pole's angle from upright (rad), its velocity (rad/s).
  RLP_HD void draw(float* frame) const noexcept {
    frame[0] = static_cast<float>(x_);
    frame[1] = static_cast<float>(x_dot_);
    frame[2] = static_cast<float>(theta_);
    frame[3] = static_cast<float>(theta_dot_);
  }

  void save(std::int64_t* out) const noexcept {
    out[0] = clock_.steps;
    out[1] = control::bits(x_);
    out[2] = control::bits(x_dot_);
    out[3] = control::bits(theta_);
    out[4] = control::bits(theta_dot_);
  }

  bool load(const std::int64_t* in) noexcept {
    x_ = control::number(in[1]);
    x_dot_ = control::number(in[2]);
    theta_ = control::number(in[3]);
    theta_dot_ = control::number(in[4]);
    return clock_.load(in[0]) && upright() && std::isfinite(x_dot_) && std::isfinite(theta_dot_);
  }

 private:
  // A step begins with the pole within max_theta = 0.21, where what Taylor's series leave out is below a hundredth of the last
  // bit. Nothing but products and sums: the same bits on every machine.
  RLP_HD static double small_sin(double x) noexcept {
    const double y = x * x;
    double tail = -1.0 / 39916800.0;
    tail = tail * y + 1.0 / 362880.0;
    tail = tail * y - 1.0 / 5040.0;
    tail = tail * y + 1.0 / 120.0;
    tail = tail * y - 1.0 / 6.0;
    return x + x * (y * tail);
  }

  RLP_HD static double small_cos(double x) noexcept {
    const double y = x * x;
    double tail = 1.0 / 479001600.0;
    tail = tail * y - 1.0 / 3628800.0;
    tail = tail * y + 1.0 / 40320.0;
    tail = tail * y - 1.0 / 720.0;
    tail = tail * y + 1.0 / 24.0;
    tail = tail * y - 1.0 / 2.0;
    return 1.0 + y * tail;
  }

  [[nodiscard]] RLP_HD bool upright() const noexcept {
    return x_ >= -max_x && x_ <= max_x && theta_ >= -max_theta && theta_ <= max_theta;
  }

  control::Clock clock_;
  double x_ = 0.0, x_dot_ = 0.0, theta_ = 0.0, theta_dot_ = 0.0;
};
using CartPole = CartPoleWith<control::Standard>;

}  // namespace rlp
