#pragma once
// MinAtar that changes under the player: another game in each phase, or the same game with its actions in another order. A phase
// begins with a game as a new environment of that kind would begin it, so no sticky action comes from the phase before.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>

#include "minatar.hpp"
#include "minatar_asterix.hpp"
#include "minatar_breakout.hpp"
#include "minatar_freeway.hpp"
#include "minatar_seaquest.hpp"
#include "minatar_space_invaders.hpp"
#include "phases.hpp"

namespace rlp {
namespace minatar {

enum class Title : std::uint8_t { asterix, breakout, freeway, seaquest, space_invaders };

// One of the five: a tagged union, since device code has no std::variant.
class AnyGame {
 public:
  static constexpr std::size_t saved = std::max({MinAtar<Asterix>::saved, MinAtar<Breakout>::saved, MinAtar<Freeway>::saved,
                                                 MinAtar<Seaquest>::saved, MinAtar<SpaceInvaders>::saved});

  // f of the game that there is. The pragma: save() and load() ask it for host code alone, which nvcc would refuse.
#ifdef __CUDACC__
#pragma nv_exec_check_disable
#endif
  template <typename Self, typename F>
  RLP_HD static auto visit(Self& self, const F& f) noexcept {
    switch (self.title_) {
      case Title::asterix:
        return f(self.game_.asterix);
      case Title::breakout:
        return f(self.game_.breakout);
      case Title::freeway:
        return f(self.game_.freeway);
      case Title::seaquest:
        return f(self.game_.seaquest);
      default:
        return f(self.game_.space_invaders);
    }
  }

  RLP_HD AnyGame(Title title, const Settings& settings) noexcept : title_(title), game_(settings) {
    visit(*this, [&](auto& game) { ::new (static_cast<void*>(&game)) Bare<decltype(game)>(settings); });
  }

 private:
  template <typename T>
  using Bare = std::remove_cv_t<std::remove_reference_t<T>>;

  Title title_;
  union Games {
    RLP_HD explicit Games(const Settings& settings) noexcept : asterix(settings) {}
    MinAtar<Asterix> asterix;
    MinAtar<Breakout> breakout;
    MinAtar<Freeway> freeway;
    MinAtar<Seaquest> seaquest;
    MinAtar<SpaceInvaders> space_invaders;
  } game_;
};

// What the player's actions are worth in a phase: order[a] is what action a does. As they are in phase 0; elsewhere each of the
// 720 orders with equal probability, by Fisher and Yates' shuffle from the five blocks 5 * phase, ... of the key's stream.
RLP_HD inline void order_of(std::uint64_t key, std::int64_t phase, std::uint8_t (&order)[moves]) noexcept {
  for (std::int64_t k = 0; k < moves; ++k) order[k] = static_cast<std::uint8_t>(k);
  if (phase == 0) return;
  Stream stream{key, static_cast<std::uint64_t>(5 * phase)};
  for (std::int64_t k = moves - 1; k > 0; --k) {
    const std::uint32_t other = stream.below(static_cast<std::uint32_t>(k + 1));
    const std::uint8_t kept = order[k];
    order[k] = order[other];
    order[other] = kept;
  }
}

// What the environments of a run share.
struct Changes {
  static constexpr std::int32_t most_games = 32;

  Settings settings;         // of every game
  std::int64_t phase_steps;  // as in PhaseClock
  std::int64_t first_phase;
  Title game[most_games];  // phase p plays game[p % games]
  std::int32_t games;
  std::int32_t channels;  // of a frame: as many as the one of them with the most; others leave the last ones dark
  bool permuted;          // whether actions change places, too
  std::uint64_t key;      // from which their orders are drawn; 0 where they are not
};

}  // namespace minatar

class ContinualMinAtar {
 public:
  static constexpr std::size_t shared = PhaseClock::saved + 1;  // integers before the game's
  static constexpr std::size_t saved = shared + minatar::AnyGame::saved;

  explicit ContinualMinAtar(const minatar::Changes& changes) noexcept
      : changes_(changes), clock_{changes.phase_steps, changes.first_phase}, game_(title(), changes.settings) {
    enter();
  }

  [[nodiscard]] RLP_HD std::int64_t actions() const noexcept { return minatar::moves; }
  [[nodiscard]] RLP_HD std::size_t frame_size() const noexcept {
    return static_cast<std::size_t>(changes_.channels * minatar::cells);
  }
  [[nodiscard]] RLP_HD std::int64_t phase() const noexcept { return clock_.phase; }
  // What action a does in this phase.
  [[nodiscard]] RLP_HD std::int64_t meaning(std::int64_t a) const noexcept { return order_[a]; }

  RLP_HD void reset(Stream& stream) noexcept {
    if (entered_ != clock_.phase) enter();
    minatar::AnyGame::visit(game_, [&](auto& game) { game.reset(stream); });
  }

  RLP_HD Outcome step(std::int64_t action, Stream& stream) noexcept {
    Outcome outcome = minatar::AnyGame::visit(game_, [&](auto& game) { return game.step(order_[action], stream); });
    if (clock_.tick() && !outcome.terminated) outcome.truncated = true;
    return outcome;
  }

  RLP_HD void draw(std::uint8_t* frame) const noexcept {
    const std::size_t drawn = minatar::AnyGame::visit(game_, [&](const auto& game) {
      game.draw(frame);
      return game.frame_size();
    });
    for (std::size_t k = drawn; k < frame_size(); ++k) frame[k] = 0;
  }

  // The clock, the key, the game, zeros. The key comes along so that a restored environment goes on under the same orders,
  // whatever the seed of the one into which it is loaded.
  void save(std::int64_t* out) const noexcept {
    std::fill_n(out, saved, 0);
    clock_.save(out);
    out[PhaseClock::saved] = static_cast<std::int64_t>(changes_.key);
    minatar::AnyGame::visit(game_, [&](const auto& game) { game.save(out + shared); });
  }

  bool load(const std::int64_t* in) noexcept {
    if (!clock_.load(in) || (!changes_.permuted && in[PhaseClock::saved] != 0)) return false;
    changes_.key = static_cast<std::uint64_t>(in[PhaseClock::saved]);
    enter();
    const std::size_t used = minatar::AnyGame::visit(game_, [](const auto& game) { return game.saved; });
    if (!std::all_of(in + shared + used, in + saved, [](std::int64_t x) { return x == 0; })) return false;
    return minatar::AnyGame::visit(game_, [&](auto& game) { return game.load(in + shared); });
  }

 private:
  [[nodiscard]] RLP_HD minatar::Title title() const noexcept { return changes_.game[clock_.phase % changes_.games]; }

  RLP_HD void enter() noexcept {
    game_ = minatar::AnyGame(title(), changes_.settings);
    minatar::order_of(changes_.key, changes_.permuted ? clock_.phase : 0, order_);
    entered_ = clock_.phase;
  }

  minatar::Changes changes_;
  PhaseClock clock_;
  std::int64_t entered_ = -1;  // the phase of the game under way: one behind the clock's between a step that ends one and reset()
  std::uint8_t order_[minatar::moves] = {};
  minatar::AnyGame game_;
};

}  // namespace rlp
