#pragma once
// MinAtar's Asterix: enemies and gold cross the middle eight rows, at most one a row. +1 for gold touched; touching an enemy
// ends the game. With ramping they come sooner, and move faster at every second level.
//
// Draws: when something is due, a uniform for its direction and one for its kind; and where a row is free, which of those.

#include "minatar.hpp"

namespace rlp::minatar {

class Asterix {
 public:
  static constexpr std::int32_t lanes = 8;     // rows 1, ..., 8
  static constexpr std::int32_t channels = 4;  // player, enemies, the cells behind enemies and gold, gold
  static constexpr std::size_t saved = 6 + lanes;

  RLP_HD void reset(Stream&) noexcept { *this = Asterix(); }

  RLP_HD Outcome step(Move move, bool ramping, Stream& stream) noexcept {
    if (spawn_in_ == 0) {
      spawn(stream);
      spawn_in_ = first_spawn_every - level_;
    }
    if (move == Move::left) x_ = clamp(x_ - 1, 0, side - 1);
    if (move == Move::right) x_ = clamp(x_ + 1, 0, side - 1);
    if (move == Move::up) y_ = clamp(y_ - 1, 1, lanes);
    if (move == Move::down) y_ = clamp(y_ + 1, 1, lanes);

    Outcome outcome;
    touch(outcome);
    if (move_in_ == 0) {
      move_in_ = clamp(first_move_every - level_ / 2, 1, first_move_every);
      for (Lane& lane : lane_) {
        if (lane.kind == Kind::nothing) continue;
        lane.x += lane.right ? 1 : -1;
        if (!on_board(lane.x)) lane = Lane();
      }
      touch(outcome);
    }
    --spawn_in_;
    --move_in_;
    if (ramping && level_ < last_level && --ramp_in_ < -1) {
      ramp_in_ = ramp_every;
      ++level_;
    }
    return outcome;
  }

  RLP_HD void draw(std::uint8_t* frame) const noexcept {
    light(frame, 0, y_, x_);
    for (std::int32_t k = 0; k < lanes; ++k) {
      const Lane& lane = lane_[k];
      if (lane.kind == Kind::nothing) continue;
      light(frame, lane.kind == Kind::gold ? 3 : 1, k + 1, lane.x);
      const std::int32_t behind = lane.right ? lane.x - 1 : lane.x + 1;
      if (on_board(behind)) light(frame, 2, k + 1, behind);
    }
  }

  // A lane is one integer: 0 where it is empty, else 1 + x + 10 right + 20 gold.
  void save(std::int64_t* out) const noexcept {
    const std::int64_t all[] = {x_, y_, spawn_in_, move_in_, ramp_in_, level_};
    for (const std::int64_t value : all) *out++ = value;
    for (const Lane& lane : lane_)
      *out++ = lane.kind == Kind::nothing ? 0 : 1 + lane.x + 10 * lane.right + 20 * (lane.kind == Kind::gold);
  }

  bool load(const std::int64_t* in) noexcept {
    constexpr std::int64_t low[] = {0, 1, 0, 0, -1, 0};
    constexpr std::int64_t high[] = {side - 1, lanes, first_spawn_every, first_move_every, ramp_every, last_level};
    std::int32_t* const fields[] = {&x_, &y_, &spawn_in_, &move_in_, &ramp_in_, &level_};
    for (std::size_t k = 0; k < 6; ++k)
      if (!within(in[k], low[k], high[k])) return false;
    for (std::size_t k = 6; k < saved; ++k)
      if (!within(in[k], 0, 40)) return false;
    for (std::size_t k = 0; k < 6; ++k) *fields[k] = static_cast<std::int32_t>(in[k]);
    for (std::size_t k = 0; k < lanes; ++k) {
      const auto bits = static_cast<std::int32_t>(in[6 + k]) - 1;
      lane_[k] = bits < 0 ? Lane() : Lane{bits >= 20 ? Kind::gold : Kind::enemy, bits % 10, bits / 10 % 2 == 1};
    }
    return true;
  }

 private:
  static constexpr std::int32_t first_spawn_every = 10, first_move_every = 5;  // steps
  static constexpr std::int32_t last_level = first_spawn_every - 1;

  enum class Kind : std::uint8_t { nothing, enemy, gold };
  struct Lane {
    Kind kind = Kind::nothing;
    std::int32_t x = 0;
    bool right = false;
  };

  RLP_HD void spawn(Stream& stream) noexcept {
    const bool right = stream.uniform() < 0.5, gold = stream.uniform() < 1.0 / 3.0;
    std::int32_t open[lanes], n = 0;
    for (std::int32_t k = 0; k < lanes; ++k)
      if (lane_[k].kind == Kind::nothing) open[n++] = k;
    if (n == 0) return;
    lane_[open[stream.below(static_cast<std::uint32_t>(n))]] = {gold ? Kind::gold : Kind::enemy, right ? 0 : side - 1, right};
  }

  // What is in the player's cell: gold is taken, an enemy is the end.
  RLP_HD void touch(Outcome& outcome) noexcept {
    Lane& lane = lane_[y_ - 1];
    if (lane.kind == Kind::nothing || lane.x != x_) return;
    if (lane.kind == Kind::gold) {
      lane = Lane();
      outcome.reward += 1.0f;
    } else {
      outcome.terminated = true;
    }
  }

  std::int32_t x_ = 5, y_ = 5;  // the player
  std::int32_t spawn_in_ = first_spawn_every, move_in_ = first_move_every;
  std::int32_t ramp_in_ = ramp_every;
  std::int32_t level_ = 0;  // one step less between arrivals for each, and between moves for every second
  Lane lane_[lanes];
};

}  // namespace rlp::minatar
