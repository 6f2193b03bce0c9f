#pragma once
// MinAtar's Seaquest: a submarine among fish, enemy submarines and divers. +1 for each enemy shot; surfacing with six divers
// pays a tenth of the oxygen's twentieths, and every surfacing takes a diver and fills the tank. Over when anything
// touches the submarine, the oxygen is spent, or it surfaces with no diver. With ramping, enemies come sooner after every
// surfacing, and move faster after every second one, down to a limit.
//
// MinAtar takes things out of its lists by value, and so could take one for its double. In play no two that matter are alike when
// one is taken out: own bullets are five steps apart, and whatever swims is told apart by its place and its timers.
//
// Draws: when an enemy is due, a uniform for its direction, one for its kind, and a number below 8, its row; then, when a
// diver is due, a uniform and a number below 8.

#include "minatar.hpp"

namespace rlp::minatar {

class Seaquest {
 public:
  // Submarine's front, its back, own bullets, the cells behind whatever swims, enemies' bullets, fish, enemy submarines,
  // oxygen, divers on board, divers.
  static constexpr std::int32_t channels = 10;

  using Small = std::int8_t;  // so that the lists stay in the cache
  struct Bullet {
    Small x = 0, y = 0;
    bool right = false;
  };
  struct Swimmer {
    Small x = 0, y = 0;
    bool right = false;
    Small move_in = 0, shoot_in = 0;  // steps; only submarines shoot
  };
  // A bullet moves every step, so it is gone after ten: own ones, five steps apart, are at most two at once. A diver takes
  // 60 steps to cross and comes every 30. An enemy takes at most 60 steps to cross and one comes a step at most; it shoots
  // every eleventh step, so of bullets from the last ten steps there is at most one an enemy.
  using Shots = Few<Bullet, 4>;
  using Divers = Few<Swimmer, 4>;
  using Bullets = Few<Bullet, 64>;
  using Swimmers = Few<Swimmer, 64>;
  static constexpr std::size_t scalars = 10;
  static constexpr std::size_t saved = scalars + 5 + Shots::room + Divers::room + Bullets::room + 2 * Swimmers::room;

  RLP_HD void reset(Stream&) noexcept { *this = Seaquest(); }

  RLP_HD Outcome step(Move move, bool ramping, Stream& stream) noexcept {
    if (enemy_in_ == 0) {
      spawn_enemy(stream);
      enemy_in_ = first_enemy_every - level_;
    }
    if (diver_in_ == 0) {
      const bool right = stream.uniform() < 0.5;
      divers_.push(arriving(right, row_below_surface(stream), swimmer_steps, 0));
      diver_in_ = diver_every;
    }
    act(move);

    Outcome outcome;
    fly(outcome);
    meet_divers();
    meet_submarines(outcome);
    meet_bullets(outcome);
    meet_fish(outcome);

    if (enemy_in_ > 0) --enemy_in_;
    if (diver_in_ > 0) --diver_in_;
    if (reload_ > 0) --reload_;
    if (oxygen_ <= 0) outcome.terminated = true;
    if (y_ > 0) {
      --oxygen_;
      surfaced_ = false;
    } else if (!surfaced_) {
      if (aboard_ == 0) {
        outcome.terminated = true;
      } else {
        surface(ramping, outcome);
      }
    }
    return outcome;
  }

  RLP_HD void draw(std::uint8_t* frame) const noexcept {
    light(frame, 0, y_, x_);
    light(frame, 1, y_, right_ ? x_ - 1 : x_ + 1);
    const std::int32_t gauge = (oxygen_ > 0 ? oxygen_ : 0) * side / full_tank;
    for (std::int32_t column = 0; column < gauge; ++column) light(frame, 7, side - 1, column);
    for (std::int32_t k = 0; k < aboard_; ++k) light(frame, 8, side - 1, side - 2 - k);
    draw_all(frame, shots_, 2, false);
    draw_all(frame, bullets_, 4, false);
    draw_all(frame, fish_, 5, true);
    draw_all(frame, submarines_, 6, true);
    draw_all(frame, divers_, 9, true);
  }

  void save(std::int64_t* out) const noexcept {
    const std::int64_t all[scalars] = {x_, y_, right_, reload_, oxygen_, aboard_, surfaced_, enemy_in_, diver_in_, level_};
    for (const std::int64_t value : all) *out++ = value;
    out = save_all(shots_, out);
    out = save_all(divers_, out);
    out = save_all(bullets_, out);
    out = save_all(fish_, out);
    save_all(submarines_, out);
  }

  bool load(const std::int64_t* in) noexcept {
    constexpr std::int64_t fewest = -(std::int64_t{1} << 30);
    constexpr std::int64_t low[scalars] = {0, 0, 0, 0, 0, fewest, 0, 0, 0, 0};
    constexpr std::int64_t high[scalars] = {side - 1,    side - 2, 1,           reload_steps, full_tank,
                                            most_aboard, 1,        first_enemy_every, diver_every,  last_level};
    for (std::size_t k = 0; k < scalars; ++k)
      if (!within(in[k], low[k], high[k])) return false;
    if (!on_board(static_cast<std::int32_t>(in[2] == 1 ? in[0] - 1 : in[0] + 1))) return false;
    Seaquest loaded;
    std::int32_t* const fields[] = {&loaded.x_, &loaded.y_, nullptr, &loaded.reload_, &loaded.oxygen_, &loaded.aboard_, nullptr,
                                    &loaded.enemy_in_, &loaded.diver_in_, &loaded.level_};
    for (std::size_t k = 0; k < scalars; ++k)
      if (fields[k] != nullptr) *fields[k] = static_cast<std::int32_t>(in[k]);
    loaded.right_ = in[2] == 1;
    loaded.surfaced_ = in[6] == 1;
    in += scalars;
    if (!load_all(loaded.shots_, in) || !load_all(loaded.divers_, in) || !load_all(loaded.bullets_, in) ||
        !load_all(loaded.fish_, in) || !load_all(loaded.submarines_, in))
      return false;
    *this = loaded;
    return true;
  }

 private:
  static constexpr std::int32_t full_tank = 200, most_aboard = 6, reload_steps = 5, bullet_steps = 10, swimmer_steps = 5;
  static constexpr std::int32_t first_enemy_every = 20, diver_every = 30, first_enemy_steps = 5, least_enemy_steps = 2;
  static constexpr std::int32_t last_level = first_enemy_every - 1;

  template <typename T>
  [[nodiscard]] RLP_HD bool here(const T& other) const noexcept {
    return other.x == x_ && other.y == y_;
  }
  // One cell on; whether it is still on the board.
  template <typename T>
  RLP_HD static bool moved(T& other) noexcept {
    other.x = small(other.x + (other.right ? 1 : -1));
    return on_board(other.x);
  }
  [[nodiscard]] RLP_HD static Small small(std::int32_t x) noexcept { return static_cast<Small>(x); }
  [[nodiscard]] RLP_HD static Swimmer arriving(bool right, std::int32_t y, std::int32_t move_in, std::int32_t shoot_in) noexcept {
    return {small(right ? 0 : side - 1), small(y), right, small(move_in), small(shoot_in)};
  }
  [[nodiscard]] RLP_HD static std::int32_t row_below_surface(Stream& stream) noexcept {
    return 1 + static_cast<std::int32_t>(stream.below(8));
  }

  // Rows are one-way streets: an enemy that would meet another head on does not come.
  template <typename T>
  RLP_HD static bool oncoming(const T& enemies, std::int32_t y, bool right) noexcept {
    for (std::int32_t i = 0; i < enemies.size; ++i)
      if (enemies.item[i].y == y && enemies.item[i].right != right) return true;
    return false;
  }
  RLP_HD void spawn_enemy(Stream& stream) noexcept {
    const bool right = stream.uniform() < 0.5, shoots = stream.uniform() < 1.0 / 3.0;
    const std::int32_t y = row_below_surface(stream);
    if (oncoming(submarines_, y, right) || oncoming(fish_, y, right)) return;
    (shoots ? submarines_ : fish_).push(arriving(right, y, enemy_steps(), shoots ? bullet_steps : 0));
  }

  // Steps that an enemy rests between two moves. One fewer at every second level.
  [[nodiscard]] RLP_HD std::int32_t enemy_steps() const noexcept {
    return clamp(first_enemy_steps - level_ / 2, least_enemy_steps, first_enemy_steps);
  }

  RLP_HD void act(Move move) noexcept {
    if (move == Move::fire && reload_ == 0) {
      shots_.push({small(x_), small(y_), right_});
      reload_ = reload_steps;
    } else if (move == Move::left || move == Move::right) {
      right_ = move == Move::right;
      x_ = clamp(x_ + (right_ ? 1 : -1), 0, side - 1);
    } else if (move == Move::up || move == Move::down) {
      y_ = clamp(y_ + (move == Move::down ? 1 : -1), 0, side - 2);
    }
  }

  // The first enemy in the bullet's cell is shot.
  template <typename T>
  RLP_HD static bool strikes(const Bullet& bullet, T& enemies, Outcome& outcome) noexcept {
    for (std::int32_t i = 0; i < enemies.size; ++i) {
      if (enemies.item[i].x != bullet.x || enemies.item[i].y != bullet.y) continue;
      enemies.erase(i);
      outcome.reward += 1.0f;
      return true;
    }
    return false;
  }
  // An enemy that swam into one of our bullets is shot.
  RLP_HD bool swam_into_shot(const Swimmer& enemy, Outcome& outcome) noexcept {
    for (std::int32_t i = 0; i < shots_.size; ++i) {
      if (shots_.item[i].x != enemy.x || shots_.item[i].y != enemy.y) continue;
      shots_.erase(i);
      outcome.reward += 1.0f;
      return true;
    }
    return false;
  }

  // The newest comes first in all of these: the order decides who is hit where two are in one cell.
  RLP_HD void fly(Outcome& outcome) noexcept {
    for (std::int32_t i = shots_.size; i-- > 0;) {
      Bullet& shot = shots_.item[i];
      if (!moved(shot) || strikes(shot, fish_, outcome) || strikes(shot, submarines_, outcome)) shots_.erase(i);
    }
  }

  RLP_HD void meet_divers() noexcept {
    for (std::int32_t i = divers_.size; i-- > 0;) {
      Swimmer& diver = divers_.item[i];
      bool gone = here(diver) && aboard_ < most_aboard;
      if (gone) {
        ++aboard_;
      } else if (diver.move_in > 0) {
        --diver.move_in;
      } else {
        diver.move_in = swimmer_steps;
        gone = !moved(diver);
        if (here(diver) && aboard_ < most_aboard) {
          ++aboard_;
          gone = true;
        }
      }
      if (gone) divers_.erase(i);
    }
  }

  // An enemy's turn to move. True where it left the board or was shot.
  RLP_HD bool swims_away(Swimmer& enemy, Outcome& outcome) noexcept {
    if (here(enemy)) outcome.terminated = true;
    if (enemy.move_in > 0) {
      --enemy.move_in;
      return false;
    }
    enemy.move_in = small(enemy_steps());
    if (!moved(enemy)) return true;
    if (here(enemy)) {
      outcome.terminated = true;
      return false;
    }
    return swam_into_shot(enemy, outcome);
  }

  RLP_HD void meet_submarines(Outcome& outcome) noexcept {
    for (std::int32_t i = submarines_.size; i-- > 0;) {
      Swimmer& enemy = submarines_.item[i];
      const bool gone = swims_away(enemy, outcome);
      if (enemy.shoot_in > 0) {
        --enemy.shoot_in;
      } else {  // one that was shot this very step shoots all the same
        enemy.shoot_in = bullet_steps;
        if (on_board(enemy.x)) bullets_.push({enemy.x, enemy.y, enemy.right});
      }
      if (gone) submarines_.erase(i);
    }
  }

  RLP_HD void meet_bullets(Outcome& outcome) noexcept {
    for (std::int32_t i = bullets_.size; i-- > 0;) {
      Bullet& bullet = bullets_.item[i];
      if (here(bullet)) outcome.terminated = true;
      if (!moved(bullet)) {
        bullets_.erase(i);
      } else if (here(bullet)) {
        outcome.terminated = true;
      }
    }
  }

  RLP_HD void meet_fish(Outcome& outcome) noexcept {
    for (std::int32_t i = fish_.size; i-- > 0;)
      if (swims_away(fish_.item[i], outcome)) fish_.erase(i);
  }

  // A full boat is paid and emptied; then one diver is taken, of an emptied boat too: it goes on with -1 aboard, and may
  // surface for nothing until it has picked one up. MinAtar has it so.
  RLP_HD void surface(bool ramping, Outcome& outcome) noexcept {
    surfaced_ = true;
    if (aboard_ == most_aboard) {
      aboard_ = 0;
      outcome.reward += static_cast<float>(oxygen_ * side / full_tank);
    }
    oxygen_ = full_tank;
    --aboard_;
    if (ramping && level_ < last_level) ++level_;
  }

  template <typename T>
  RLP_HD static void draw_all(std::uint8_t* frame, const T& list, std::int32_t channel, bool trail) noexcept {
    for (std::int32_t i = 0; i < list.size; ++i) {
      const auto& one = list.item[i];
      light(frame, channel, one.y, one.x);
      const std::int32_t behind = one.right ? one.x - 1 : one.x + 1;
      if (trail && on_board(behind)) light(frame, 3, one.y, behind);
    }
  }

  // A list is its length and one integer a place: x + 10 y + 100 right + 200 move_in + 1200 shoot_in, 0 where nobody is.
  static std::int64_t packed(const Bullet& b) noexcept { return b.x + 10 * b.y + 100 * b.right; }
  static std::int64_t packed(const Swimmer& s) noexcept {
    return s.x + 10 * s.y + 100 * s.right + 200 * s.move_in + 1200 * s.shoot_in;
  }
  static bool unpack(std::int64_t bits, Bullet& b) noexcept {
    if (!within(bits, 0, 199)) return false;
    const auto all = static_cast<std::int32_t>(bits);
    b = {small(all % 10), small(all / 10 % 10), all / 100 == 1};
    return b.y < side - 1;
  }
  static bool unpack(std::int64_t bits, Swimmer& s) noexcept {
    if (!within(bits, 0, 1200 * (bullet_steps + 1) - 1)) return false;
    const auto all = static_cast<std::int32_t>(bits);
    s = {small(all % 10), small(all / 10 % 10), all / 100 % 2 == 1, small(all / 200 % 6), small(all / 1200)};
    return within(s.y, 1, side - 2);
  }
  template <typename T, std::int32_t N>
  static std::int64_t* save_all(const Few<T, N>& list, std::int64_t* out) noexcept {
    *out++ = list.size;
    for (std::int32_t i = 0; i < N; ++i) *out++ = i < list.size ? packed(list.item[i]) : 0;
    return out;
  }
  template <typename T, std::int32_t N>
  static bool load_all(Few<T, N>& list, const std::int64_t*& in) noexcept {
    if (!within(*in, 0, N)) return false;
    list.size = static_cast<std::int32_t>(*in++);
    for (std::int32_t i = 0; i < N; ++i, ++in)
      if (i < list.size ? !unpack(*in, list.item[i]) : *in != 0) return false;
    return true;
  }

  std::int32_t x_ = 5, y_ = 0;  // the submarine's front
  bool right_ = false;
  std::int32_t reload_ = 0;
  std::int32_t oxygen_ = full_tank, aboard_ = 0;
  bool surfaced_ = true;
  std::int32_t enemy_in_ = first_enemy_every, diver_in_ = diver_every;
  std::int32_t level_ = 0;  // surfacings, as far as they made the game harder: one step less between enemies for each
  Shots shots_;
  Divers divers_;
  Bullets bullets_;
  Swimmers fish_, submarines_;
};

}  // namespace rlp::minatar
