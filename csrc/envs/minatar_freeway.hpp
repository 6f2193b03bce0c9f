#pragma once
// MinAtar's Freeway: a chicken crosses eight lanes of cars. +1 at the far side, where the cars' speeds are drawn anew and the
// chicken is put back, as it is when a car hits it. It moves at most every third step. 2,501 steps are a game, by a clock
// that no frame shows; MinAtar calls that a termination.
//
// Draws, at the beginning and after each crossing: eight numbers below 5, the speeds, then eight uniforms, the directions.

#include "minatar.hpp"

namespace rlp::minatar {

class Freeway {
 public:
  static constexpr std::int32_t lanes = 8;     // rows 1, ..., 8
  static constexpr std::int32_t channels = 7;  // chicken, cars, the cells behind cars: one channel for each of five speeds
  static constexpr std::size_t saved = 3 + 3 * lanes;

  RLP_HD void reset(Stream& stream) noexcept {
    *this = Freeway();
    draw_speeds(stream);
  }

  RLP_HD Outcome step(Move move, bool, Stream& stream) noexcept {
    if (rest_ == 0 && (move == Move::up || move == Move::down)) {
      rest_ = rest_after_move;
      y_ = clamp(y_ + (move == Move::up ? -1 : 1), 0, side - 1);
    }
    Outcome outcome;
    if (y_ == 0) {
      outcome.reward = 1.0f;
      draw_speeds(stream);
      y_ = home;
    }
    for (std::int32_t k = 0; k < lanes; ++k) {
      Car& car = car_[k];
      hit(k);
      if (car.wait > 0) {
        --car.wait;
      } else {
        car.wait = car.every;
        car.x = (car.x + (car.right ? 1 : side - 1)) % side;
        hit(k);
      }
    }
    if (rest_ > 0) --rest_;
    outcome.terminated = --left_ < 0;
    return outcome;
  }

  RLP_HD void draw(std::uint8_t* frame) const noexcept {
    light(frame, 0, y_, column);
    for (std::int32_t k = 0; k < lanes; ++k) {
      const Car& car = car_[k];
      light(frame, 1, k + 1, car.x);
      light(frame, 1 + car.every, k + 1, (car.x + (car.right ? side - 1 : 1)) % side);
    }
  }

  void save(std::int64_t* out) const noexcept {
    *out++ = y_;
    *out++ = rest_;
    *out++ = left_;
    for (const Car& car : car_) {
      *out++ = car.x;
      *out++ = car.wait;
      *out++ = car.right ? car.every : -car.every;
    }
  }

  bool load(const std::int64_t* in) noexcept {
    if (!within(in[0], 1, home) || !within(in[1], 0, rest_after_move) || !within(in[2], 0, steps)) return false;
    const std::int64_t* const cars = in + 3;
    for (std::size_t k = 0; k < lanes; ++k) {
      const std::int64_t every = cars[3 * k + 2] < 0 ? -cars[3 * k + 2] : cars[3 * k + 2];
      if (!within(cars[3 * k], 0, side - 1) || !within(every, 1, slowest) || !within(cars[3 * k + 1], 0, every)) return false;
    }
    y_ = static_cast<std::int32_t>(in[0]);
    rest_ = static_cast<std::int32_t>(in[1]);
    left_ = static_cast<std::int32_t>(in[2]);
    for (std::size_t k = 0; k < lanes; ++k) {
      const auto speed = static_cast<std::int32_t>(cars[3 * k + 2]);
      car_[k] = {static_cast<std::int32_t>(cars[3 * k]), static_cast<std::int32_t>(cars[3 * k + 1]), speed > 0 ? speed : -speed,
                 speed > 0};
    }
    return true;
  }

 private:
  static constexpr std::int32_t column = 4, home = side - 1;  // of the chicken
  static constexpr std::int32_t rest_after_move = 3, steps = 2500, slowest = 5;

  struct Car {
    std::int32_t x = 0, wait = 0;
    std::int32_t every = 1;  // steps to rest between two moves
    bool right = false;
  };

  RLP_HD void draw_speeds(Stream& stream) noexcept {
    for (Car& car : car_) car.wait = car.every = 1 + static_cast<std::int32_t>(stream.below(slowest));
    for (Car& car : car_) car.right = !(stream.uniform() < 0.5);
  }

  RLP_HD void hit(std::int32_t k) noexcept {
    if (y_ == k + 1 && car_[k].x == column) y_ = home;
  }

  std::int32_t y_ = home;
  std::int32_t rest_ = rest_after_move;  // steps until it may move
  std::int32_t left_ = steps;
  Car car_[lanes];
};

}  // namespace rlp::minatar
