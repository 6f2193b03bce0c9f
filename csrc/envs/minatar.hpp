#pragma once
// What the five MinAtar games (Young and Tian 2019, arXiv:1903.03176) share: a board of 10 x 10 cells, six actions, sticky
// actions, and the order in which random numbers are drawn. The rules are those of release 1.0.15, quirks included.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "../env_batch.hpp"

namespace rlp::minatar {

inline constexpr std::int32_t side = 10;        // of the board
inline constexpr std::int32_t cells = 100;      // of one channel
inline constexpr std::uint8_t lit = 255;        // a cell that is not 0: encoders divide bytes by 255
inline constexpr std::int32_t ramp_every = 100;  // steps between two levels of difficulty, where time decides

enum class Move : std::int64_t { none, left, up, right, down, fire };
inline constexpr std::int64_t moves = 6;

struct Settings {
  double sticky;               // probability that the previous action is taken instead
  bool ramping;                // games grow harder (Asterix, Seaquest, SpaceInvaders; the others do not)
  std::int32_t episode_steps;  // agent steps after which a game is truncated; 0: never
};

// What a game adds to that. `saved`, save() and load() are as in rlp::Env; a new value is the state before the first reset.
template <typename G>
concept Rules = std::is_trivially_copyable_v<G> && std::default_initializable<G> &&
                requires(G game, const G fixed, Stream& stream, std::uint8_t* frame, const std::int64_t* in, std::int64_t* out) {
                  { G::channels } -> std::convertible_to<std::int32_t>;
                  { G::saved } -> std::convertible_to<std::size_t>;
                  { game.reset(stream) } -> std::same_as<void>;
                  { game.step(Move{}, bool{}, stream) } -> std::same_as<Outcome>;
                  { fixed.draw(frame) } -> std::same_as<void>;  // onto zeros
                  { fixed.save(out) } -> std::same_as<void>;
                  { game.load(in) } -> std::same_as<bool>;
                };

RLP_HD constexpr std::int32_t clamp(std::int32_t x, std::int32_t low, std::int32_t high) noexcept {
  return x < low ? low : x > high ? high : x;
}
RLP_HD constexpr bool within(std::int64_t x, std::int64_t low, std::int64_t high) noexcept { return low <= x && x <= high; }
RLP_HD constexpr bool on_board(std::int32_t x) noexcept { return 0 <= x && x < side; }

// One cell of a frame [channels, row, column].
RLP_HD constexpr void light(std::uint8_t* frame, std::int32_t channel, std::int32_t row, std::int32_t column) noexcept {
  frame[channel * cells + row * side + column] = lit;
}

// A row of cells as bits: bit c is column c.
using Row = std::uint32_t;
inline constexpr Row full_row = (1u << side) - 1;

RLP_HD constexpr bool has(Row row, std::int32_t column) noexcept { return (row >> column & 1u) != 0; }
// Bits that are set, by sums of pairs, nibbles and bytes: device code has no std::popcount, nor a plain x86-64 an instruction.
RLP_HD constexpr std::int32_t count(Row row) noexcept {
  row -= row >> 1 & 0x55555555u;
  row = (row & 0x33333333u) + (row >> 2 & 0x33333333u);
  row = (row + (row >> 4)) & 0x0F0F0F0Fu;
  return static_cast<std::int32_t>(row * 0x01010101u >> 24);
}
RLP_HD constexpr void light(std::uint8_t* frame, std::int32_t channel, std::int32_t row, Row bits) noexcept {
  for (std::int32_t column = 0; column < side; ++column)
    frame[channel * cells + row * side + column] = static_cast<std::uint8_t>(has(bits, column) ? lit : 0);
}

// A list with room for N, in the order of arrival.
template <typename T, std::int32_t N>
struct Few {
  static constexpr std::int32_t room = N;
  T item[N] = {};
  std::int32_t size = 0;

  // Each use says why N are enough; a state that no play leads to may still be full, and then nothing joins.
  RLP_HD void push(const T& added) noexcept {
    if (size < N) item[size++] = added;
  }
  RLP_HD void erase(std::int32_t i) noexcept {
    for (--size; i < size; ++i) item[i] = item[i + 1];
  }
};

}  // namespace rlp::minatar

namespace rlp {

// A game with MinAtar's sticky actions, as an Env. A step draws one uniform for stickiness, whatever its probability, and
// then what the game draws. The previous action outlives the game, as it does in MinAtar.
template <minatar::Rules G>
class MinAtar {
 public:
  static constexpr std::size_t saved = 2 + G::saved;

  RLP_HD explicit MinAtar(const minatar::Settings& settings) noexcept : settings_(settings) {}

  [[nodiscard]] RLP_HD std::int64_t actions() const noexcept { return minatar::moves; }
  [[nodiscard]] RLP_HD std::size_t frame_size() const noexcept { return static_cast<std::size_t>(G::channels * minatar::cells); }

  RLP_HD void reset(Stream& stream) noexcept {
    game_.reset(stream);
    steps_ = 0;
  }

  RLP_HD Outcome step(std::int64_t action, Stream& stream) noexcept {
    if (!(stream.uniform() < settings_.sticky)) last_action_ = action;
    Outcome outcome = game_.step(static_cast<minatar::Move>(last_action_), settings_.ramping, stream);
    if (settings_.episode_steps > 0 && ++steps_ == settings_.episode_steps) outcome.truncated = !outcome.terminated;
    return outcome;
  }

  // uint8 [channels, 10, 10]: `lit` where MinAtar's state is true.
  RLP_HD void draw(std::uint8_t* frame) const noexcept {
    for (std::size_t k = 0; k < frame_size(); ++k) frame[k] = 0;
    paint(frame);
  }
  // The same, onto zeros.
  RLP_HD void paint(std::uint8_t* frame) const noexcept { game_.draw(frame); }

  void save(std::int64_t* out) const noexcept {
    out[0] = last_action_;
    out[1] = steps_;
    game_.save(out + 2);
  }

  bool load(const std::int64_t* in) noexcept {
    const std::int64_t most = settings_.episode_steps > 0 ? settings_.episode_steps - 1 : 0;
    if (!minatar::within(in[0], 0, minatar::moves - 1) || !minatar::within(in[1], 0, most) || !game_.load(in + 2)) return false;
    last_action_ = in[0];
    steps_ = static_cast<std::int32_t>(in[1]);
    return true;
  }

 private:
  minatar::Settings settings_;
  std::int64_t last_action_ = 0;
  std::int32_t steps_ = 0;  // of this game; counted where there is a limit
  G game_;
};

}  // namespace rlp
