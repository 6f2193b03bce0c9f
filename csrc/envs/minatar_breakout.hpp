#pragma once
// MinAtar's Breakout: three rows of bricks, +1 for each; the ball moves one cell along a diagonal every step and the game is
// over when it passes the paddle. A board without bricks is filled again when the ball next comes down.
//
// Draws: a game begins with one number below 2, the ball's corner.

#include "minatar.hpp"

namespace rlp::minatar {

class Breakout {
 public:
  static constexpr std::int32_t channels = 4;  // paddle, ball, its cell one step ago, bricks
  static constexpr std::size_t saved = 11;

  RLP_HD void reset(Stream& stream) noexcept {
    *this = Breakout();
    if (stream.below(2) == 1) {
      x_ = last_x_ = side - 1;
      dx_ = -1;
    }
  }

  RLP_HD Outcome step(Move move, bool, Stream&) noexcept {
    if (move == Move::left) paddle_ = clamp(paddle_ - 1, 0, side - 1);
    if (move == Move::right) paddle_ = clamp(paddle_ + 1, 0, side - 1);

    Outcome outcome;
    std::int32_t x = x_ + dx_, y = y_ + dy_;
    if (!on_board(x)) {
      x = clamp(x, 0, side - 1);
      dx_ = -dx_;
    }
    bool in_brick = false;
    if (y < 0) {
      y = 0;
      dy_ = -dy_;
    } else if (is_brick(y, x)) {
      in_brick = true;
      if (!struck_) {  // one brick at a time: right after a hit the ball passes through the next
        outcome.reward = 1.0f;
        brick_[y - 1] &= ~(1u << x);
        y = y_;
        dy_ = -dy_;
      }
    } else if (y == side - 1) {
      if ((brick_[0] | brick_[1] | brick_[2]) == 0) brick_[0] = brick_[1] = brick_[2] = full_row;
      if (x_ == paddle_) {  // straight above it
        y = y_;
        dy_ = -dy_;
      } else if (x == paddle_) {  // at its edge
        y = y_;
        dx_ = -dx_;
        dy_ = -dy_;
      } else {
        outcome.terminated = true;
      }
    }
    struck_ = in_brick;
    last_x_ = x_;
    last_y_ = y_;
    x_ = x;
    y_ = y;
    return outcome;
  }

  RLP_HD void draw(std::uint8_t* frame) const noexcept {
    light(frame, 0, side - 1, paddle_);
    light(frame, 1, y_, x_);
    light(frame, 2, last_y_, last_x_);
    for (std::int32_t k = 0; k < 3; ++k) light(frame, 3, k + 1, brick_[k]);
  }

  void save(std::int64_t* out) const noexcept {
    const std::int64_t all[saved] = {paddle_, x_, y_, dx_, dy_, last_x_, last_y_, struck_, brick_[0], brick_[1], brick_[2]};
    for (std::size_t k = 0; k < saved; ++k) out[k] = all[k];
  }

  bool load(const std::int64_t* in) noexcept {
    constexpr std::int64_t high[saved] = {9, 9, 8, 1, 1, 9, 8, 1, full_row, full_row, full_row};
    for (std::size_t k = 0; k < saved; ++k) {
      const bool direction = k == 3 || k == 4;
      if (direction ? in[k] != 1 && in[k] != -1 : !within(in[k], 0, high[k])) return false;
    }
    std::int32_t* const fields[] = {&paddle_, &x_, &y_, &dx_, &dy_, &last_x_, &last_y_};
    for (std::size_t k = 0; k < 7; ++k) *fields[k] = static_cast<std::int32_t>(in[k]);
    struck_ = in[7] != 0;
    for (std::size_t k = 0; k < 3; ++k) brick_[k] = static_cast<Row>(in[8 + k]);
    return true;
  }

 private:
  [[nodiscard]] RLP_HD bool is_brick(std::int32_t row, std::int32_t column) const noexcept {
    return within(row, 1, 3) && has(brick_[row - 1], column);
  }

  std::int32_t paddle_ = 4;
  std::int32_t x_ = 0, y_ = 3, dx_ = 1, dy_ = 1;  // the ball
  std::int32_t last_x_ = 0, last_y_ = 3;
  bool struck_ = false;                             // the ball's last move hit or crossed a brick
  Row brick_[3] = {full_row, full_row, full_row};  // rows 1, 2, 3
};

}  // namespace rlp::minatar
