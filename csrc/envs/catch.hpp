#pragma once
// Catch: a ball falls one row a step down a board; the player moves along the bottom row to be under it.
//
// After Mnih et al. 2014 ("Recurrent models of visual attention") in the size and with the rules of bsuite (Osband et al.
// 2020): 10 x 5, the ball starts in a random column of row 0, the player in the middle of the last row; actions 0, 1, 2
// are left, stay, right; reward +1 (caught) or -1 (missed) when the ball reaches the last row, after rows - 1 steps.

#include <cstddef>
#include <cstdint>

#include "../env_batch.hpp"

namespace rlp {

class Catch {
 public:
  static constexpr std::size_t saved = 3;
  static constexpr std::uint8_t lit = 255;  // the two cells that are not 0

  Catch(std::int32_t rows, std::int32_t columns) noexcept : rows_(rows), columns_(columns), player_(columns / 2) {}

  [[nodiscard]] RLP_HD std::int64_t actions() const noexcept { return 3; }
  [[nodiscard]] RLP_HD std::size_t frame_size() const noexcept {
    return static_cast<std::size_t>(rows_) * static_cast<std::size_t>(columns_);
  }

  RLP_HD void reset(Stream& stream) noexcept {
    row_ = 0;
    column_ = static_cast<std::int32_t>(stream.below(static_cast<std::uint32_t>(columns_)));
    player_ = columns_ / 2;
  }

  RLP_HD Outcome step(std::int64_t action, Stream&) noexcept {
    const std::int32_t moved = player_ + static_cast<std::int32_t>(action) - 1;
    player_ = moved < 0 ? 0 : moved >= columns_ ? columns_ - 1 : moved;
    ++row_;
    if (row_ < rows_ - 1) return {};
    return {column_ == player_ ? 1.0f : -1.0f, true, false};
  }

  // uint8 [rows, columns]: `lit` at the ball and at the player.
  RLP_HD void draw(std::uint8_t* frame) const noexcept {
    for (std::size_t k = 0; k < frame_size(); ++k) frame[k] = 0;
    paint(frame);
  }
  // The same, onto zeros.
  RLP_HD void paint(std::uint8_t* frame) const noexcept {
    frame[row_ * columns_ + column_] = lit;
    frame[(rows_ - 1) * columns_ + player_] = lit;
  }

  void save(std::int64_t* out) const noexcept {
    out[0] = row_;
    out[1] = column_;
    out[2] = player_;
  }

  bool load(const std::int64_t* in) noexcept {
    if (in[0] < 0 || in[0] > rows_ - 2 || in[1] < 0 || in[1] >= columns_ || in[2] < 0 || in[2] >= columns_) return false;
    row_ = static_cast<std::int32_t>(in[0]);
    column_ = static_cast<std::int32_t>(in[1]);
    player_ = static_cast<std::int32_t>(in[2]);
    return true;
  }

 private:
  std::int32_t rows_, columns_;
  std::int32_t row_ = 0, column_ = 0, player_;  // ball's row and column; the player is in the last row
};

}  // namespace rlp
