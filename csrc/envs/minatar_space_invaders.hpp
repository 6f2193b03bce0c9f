#pragma once
// MinAtar's SpaceInvaders: a cannon below a block of 24 aliens that goes to and fro and comes down a row at each edge. +1 for
// each alien shot; the game is over when an alien or a bullet of theirs reaches the cannon, or they turn on the last row.
// They move faster as they grow few; with ramping each new wave moves faster than the last. No draws.

#include "minatar.hpp"

namespace rlp::minatar {

class SpaceInvaders {
 public:
  // Cannon; aliens; aliens again, in the channel of their direction (left, right); own bullets; the aliens' bullets.
  static constexpr std::int32_t channels = 6;
  static constexpr std::size_t saved = 6 + 3 * side;

  RLP_HD void reset(Stream&) noexcept {
    *this = SpaceInvaders();
    new_wave();
  }

  RLP_HD Outcome step(Move move, bool ramping, Stream&) noexcept {
    if (move == Move::left) x_ = clamp(x_ - 1, 0, side - 1);
    if (move == Move::right) x_ = clamp(x_ + 1, 0, side - 1);
    const bool fires = move == Move::fire && reload_ == 0;
    if (fires) reload_ = reload_steps;

    Outcome outcome;
    for (std::int32_t row = 0; row + 1 < side; ++row) shot_[row] = shot_[row + 1];
    shot_[side - 1] = 0;
    if (fires) shot_[side - 2] |= 1u << x_;  // it has left the cannon's row by now
    for (std::int32_t row = side - 1; row > 0; --row) bomb_[row] = bomb_[row - 1];
    bomb_[0] = 0;
    if (at_cannon(bomb_) || at_cannon(alien_)) outcome.terminated = true;

    if (move_in_ == 0) {
      move_in_ = aliens() < move_every_ ? aliens() : move_every_;
      if (advance() || at_cannon(alien_)) outcome.terminated = true;
    }
    if (bomb_in_ == 0) {
      bomb_in_ = bomb_every;
      drop_bomb();
    }
    std::int32_t shot_down = 0;
    for (std::int32_t row = 0; row < side; ++row) {
      const Row both = alien_[row] & shot_[row];
      shot_down += count(both);
      alien_[row] ^= both;
      shot_[row] ^= both;
    }
    outcome.reward = static_cast<float>(shot_down);

    if (reload_ > 0) --reload_;
    --move_in_;
    --bomb_in_;
    if (aliens() == 0) {
      if (ramping && move_every_ > least_move_every) --move_every_;
      new_wave();
    }
    return outcome;
  }

  RLP_HD void draw(std::uint8_t* frame) const noexcept {
    light(frame, 0, side - 1, x_);
    for (std::int32_t row = 0; row < side; ++row) {
      light(frame, 1, row, alien_[row]);
      light(frame, right_ ? 3 : 2, row, alien_[row]);
      light(frame, 4, row, shot_[row]);
      light(frame, 5, row, bomb_[row]);
    }
  }

  void save(std::int64_t* out) const noexcept {
    const std::int64_t all[] = {x_, move_every_, move_in_, bomb_in_, reload_, right_};
    for (const std::int64_t value : all) *out++ = value;
    for (const Row* rows : {alien_, shot_, bomb_})
      for (std::int32_t row = 0; row < side; ++row) *out++ = rows[row];
  }

  bool load(const std::int64_t* in) noexcept {
    constexpr std::int64_t low[] = {0, least_move_every, 0, 0, 0, 0};
    constexpr std::int64_t high[] = {side - 1, first_move_every, first_move_every, bomb_every, reload_steps, 1};
    for (std::size_t k = 0; k < 6; ++k)
      if (!within(in[k], low[k], high[k])) return false;
    for (std::size_t k = 6; k < saved; ++k)
      if (!within(in[k], 0, full_row)) return false;
    bool any = false;  // there is always an alien to drop bombs
    for (std::size_t k = 6; k < 6 + side; ++k) any = any || in[k] != 0;
    if (!any) return false;
    std::int32_t* const fields[] = {&x_, &move_every_, &move_in_, &bomb_in_, &reload_};
    for (std::size_t k = 0; k < 5; ++k) *fields[k] = static_cast<std::int32_t>(in[k]);
    right_ = in[5] == 1;
    for (std::size_t row = 0; row < side; ++row) {
      alien_[row] = static_cast<Row>(in[6 + row]);
      shot_[row] = static_cast<Row>(in[6 + side + row]);
      bomb_[row] = static_cast<Row>(in[6 + 2 * side + row]);
    }
    return true;
  }

 private:
  static constexpr std::int32_t reload_steps = 5, bomb_every = 10, first_move_every = 12, least_move_every = 6;

  RLP_HD void new_wave() noexcept {
    for (std::int32_t row = 0; row < 4; ++row) alien_[row] = 0b0011111100;
  }

  [[nodiscard]] RLP_HD bool at_cannon(const Row* rows) const noexcept { return has(rows[side - 1], x_); }

  [[nodiscard]] RLP_HD std::int32_t aliens() const noexcept {
    std::int32_t n = 0;
    for (const Row row : alien_) n += count(row);
    return n;
  }

  // One cell sideways, or at an edge one row down and about. True where they were on the last row already as they came down.
  RLP_HD bool advance() noexcept {
    const std::int32_t edge = right_ ? side - 1 : 0;
    bool at_edge = false;
    for (const Row row : alien_) at_edge = at_edge || has(row, edge);
    if (!at_edge) {
      for (Row& row : alien_) row = right_ ? row << 1 : row >> 1;
      return false;
    }
    right_ = !right_;
    const Row last = alien_[side - 1];
    for (std::int32_t row = side - 1; row > 0; --row) alien_[row] = alien_[row - 1];
    alien_[0] = last;  // the game is over, and this is what its last frame shows
    return last != 0;
  }

  // From the lowest alien of the column nearest to the cannon; the left one of two.
  RLP_HD void drop_bomb() noexcept {
    for (std::int32_t distance = 0; distance < side; ++distance)
      for (std::int32_t sign = -1; sign <= 1; sign += 2) {
        const std::int32_t column = x_ + sign * distance;
        for (std::int32_t row = side - 1; on_board(column) && row >= 0; --row)
          if (has(alien_[row], column)) {
            bomb_[row] |= 1u << column;
            return;
          }
      }
  }

  std::int32_t x_ = 5;  // the cannon
  std::int32_t move_every_ = first_move_every, move_in_ = first_move_every;
  std::int32_t bomb_in_ = bomb_every, reload_ = 0;
  bool right_ = false;  // where the aliens go
  Row alien_[side] = {}, shot_[side] = {}, bomb_[side] = {};
};

}  // namespace rlp::minatar
