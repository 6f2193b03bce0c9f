#pragma once
// Acrobot: two links hanging from a joint, driven at the second joint alone; swing the tip above the line. Sutton 1996; rules of
// Gymnasium's Acrobot-v1 (the equations of Sutton and Barto's book).
//
// Actions 0, 1, 2 apply a torque of -1, 0, 1. One step of the fourth-order Runge-Kutta method, 0.2 s. Angles wrap to [-pi, pi], velocities
// are clipped at 4 pi and 9 pi. Reward -1 a step, 0 on the last; terminated where -cos(theta1) - cos(theta1 + theta2) > 1. Starts with
// each of the four numbers uniform in [-0.1, 0.1), rounded to float32 as there. Dynamics: gravity, the length of both links (their centres
// at the half, masses and moments of inertia as they are; the line stays one link above the joint), the torque.

#include "control.hpp"

namespace rlp {

template <typename Dynamics>
class AcrobotWith : public Dynamics {
 public:
  using Cell = float;
  static constexpr std::size_t saved = 5;
  static constexpr double max_velocity1 = 4 * control::pi, max_velocity2 = 9 * control::pi;

  explicit AcrobotWith(std::int32_t limit) noexcept : clock_{limit} {}

  [[nodiscard]] RLP_HD std::int64_t actions() const noexcept { return 3; }
  [[nodiscard]] RLP_HD std::size_t frame_size() const noexcept { return 6; }

  RLP_HD void reset(Stream& stream) noexcept {
    double u[4];
    stream.uniform(u, 4);
    for (int k = 0; k < 4; ++k) s_.v[k] = static_cast<double>(static_cast<float>(control::stretch(u[k], -0.1, 0.1)));
    clock_.steps = 0;
  }

  RLP_HD Outcome step(std::int64_t action, Stream&) noexcept {
    constexpr double dt = 0.2;
    const double torque = static_cast<double>(action - 1) * Dynamics::force;
    const State k1 = derivative(s_, torque);
    const State k2 = derivative(moved(s_, dt / 2.0, k1), torque);
    const State k3 = derivative(moved(s_, dt / 2.0, k2), torque);
    const State k4 = derivative(moved(s_, dt, k3), torque);
    for (int k = 0; k < 4; ++k) s_.v[k] += dt / 6.0 * (k1.v[k] + 2 * k2.v[k] + 2 * k3.v[k] + k4.v[k]);
    s_.v[0] = wrapped(s_.v[0]);
    s_.v[1] = wrapped(s_.v[1]);
    s_.v[2] = control::clamp(s_.v[2], -max_velocity1, max_velocity1);
    s_.v[3] = control::clamp(s_.v[3], -max_velocity2, max_velocity2);
    const bool over = above();
    return {over ? 0.0f : -1.0f, over, clock_.tick()};
  }

  // float32 [6]: cosine and sine of the first link's angle from hanging, of the second link's from the first, both velocities (rad/s).
  RLP_HD void draw(float* frame) const noexcept {
    frame[0] = static_cast<float>(std::cos(s_.v[0]));
    frame[1] = static_cast<float>(std::sin(s_.v[0]));
    frame[2] = static_cast<float>(std::cos(s_.v[1]));
    frame[3] = static_cast<float>(std::sin(s_.v[1]));
    frame[4] = static_cast<float>(s_.v[2]);
    frame[5] = static_cast<float>(s_.v[3]);
  }

  void save(std::int64_t* out) const noexcept {
    out[0] = clock_.steps;
    for (int k = 0; k < 4; ++k) out[1 + k] = control::bits(s_.v[k]);
  }

  bool load(const std::int64_t* in) noexcept {
    for (int k = 0; k < 4; ++k) s_.v[k] = control::number(in[1 + k]);
    return clock_.load(in[0]) && control::within(s_.v[0], control::pi) && control::within(s_.v[1], control::pi) &&
           control::within(s_.v[2], max_velocity1) && control::within(s_.v[3], max_velocity2) && !above();
  }

 private:
  struct State {
    double v[4] = {0.0, 0.0, 0.0, 0.0};  // theta1, theta2 and their velocities; or the derivatives of these
  };

  RLP_HD static State moved(State s, double by, const State& along) noexcept {
    for (int k = 0; k < 4; ++k) s.v[k] += by * along.v[k];
    return s;
  }

  // Links of length 1 (times `length`), mass 1, moment of inertia 1, centres at 1/2.
  [[nodiscard]] RLP_HD State derivative(const State& s, double torque) const noexcept {
    const double gravity = 9.8 * Dynamics::gravity, length = Dynamics::length, area = length * length;
    const double theta1 = s.v[0], theta2 = s.v[1], velocity1 = s.v[2], velocity2 = s.v[3];
    const double cosine = std::cos(theta2), sine = std::sin(theta2);
    const double d1 = 0.25 * area + (1.25 * area + area * cosine) + 1.0 + 1.0;
    const double d2 = 0.25 * area + 0.5 * area * cosine + 1.0;
    const double phi2 = 0.5 * length * gravity * std::cos(theta1 + theta2 - control::pi / 2.0);
    const double phi1 = -0.5 * area * (velocity2 * velocity2) * sine - area * velocity2 * velocity1 * sine +
                        1.5 * length * gravity * std::cos(theta1 - control::pi / 2.0) + phi2;
    const double acceleration2 =
        (torque + d2 / d1 * phi1 - 0.5 * area * (velocity1 * velocity1) * sine - phi2) / (0.25 * area + 1.0 - d2 * d2 / d1);
    const double acceleration1 = -(d2 * acceleration2 + phi1) / d1;
    return {{velocity1, velocity2, acceleration1, acceleration2}};
  }

  RLP_HD static double wrapped(double angle) noexcept {
    while (angle > control::pi) angle -= 2 * control::pi;
    while (angle < -control::pi) angle += 2 * control::pi;
    return angle;
  }

  [[nodiscard]] RLP_HD bool above() const noexcept { return -std::cos(s_.v[0]) - std::cos(s_.v[1] + s_.v[0]) > 1.0; }

  control::Clock clock_;
  State s_;
};
using Acrobot = AcrobotWith<control::Standard>;

}  // namespace rlp
