#pragma once
// From an emulator's last two screens to the frame that an agent sees.
//
// Sprites of the Atari 2600 flicker: many are drawn on every other screen only. So a frame is the element-wise maximum of
// two successive screens' gray levels, reduced by area (Mnih et al. 2015).

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "pixels.hpp"

namespace rlp {

// The last two screens of one game, [height, width] of palette entries each. What is the same as last time is not computed
// again: in most games little changes from one agent step to the next. What comes out does not depend on it.
//
// Gray levels of palette entries are learned, not built in: take() says when it meets an entry that it cannot translate,
// and learn() is then given that screen as the emulator translates it.
class Screens {
 public:
  Screens(Size source, Size out)
      : resize_(source, out), incoming_(source.area()), image_(source.area()), stale_(source.height),
        columns_(source.height), frame_(out.area()) {
    gray_of_.fill(unknown);
    for (std::size_t slot = 0; slot < 2; ++slot) {
      entry_[slot].resize(source.area());
      gray_[slot].resize(source.area());
    }
  }

  [[nodiscard]] Size source() const noexcept { return resize_.source(); }
  [[nodiscard]] Size out() const noexcept { return resize_.out(); }

  // Where the emulator writes a screen before take().
  [[nodiscard]] std::uint8_t* incoming() noexcept { return incoming_.data(); }

  // The incoming screen becomes screen `slot`: 0 the last but one, 1 the last. False: learn() it before all else.
  [[nodiscard]] bool take(std::size_t slot) noexcept {
    const std::size_t width = source().width;
    unsigned met = 0;
    for (std::size_t y = 0; y < source().height; ++y) {
      const std::uint8_t* in = incoming_.data() + y * width;
      std::uint8_t* entry = entry_[slot].data() + y * width;
      const Span changed = translated_[slot] ? difference(in, entry, width) : Span{0, width};
      if (changed.empty()) continue;
      std::uint8_t* gray = gray_[slot].data() + y * width;
      for (std::size_t begin = changed.begin; begin < changed.end; begin += word) {
        const std::size_t length = std::min(word, changed.end - begin);
        if (translated_[slot] && same(in + begin, entry + begin, length)) continue;  // between two sprites
        for (std::size_t x = begin; x < begin + length; ++x) {
          const unsigned level = gray_of_[in[x]];
          met |= level;
          entry[x] = in[x];
          gray[x] = static_cast<std::uint8_t>(level);
        }
      }
      stale_[y].join(changed);
    }
    translated_[slot] = (met & unknown) == 0;
    return translated_[slot];
  }

  // Screen `slot`, just taken, in gray levels: [height, width].
  void learn(std::size_t slot, const std::uint8_t* gray) noexcept {
    for (std::size_t k = 0; k < source().area(); ++k) gray_of_[entry_[slot][k]] = gray[k];
    std::copy_n(gray, source().area(), gray_[slot].begin());  // take() has marked what is new in it
    translated_[slot] = true;
  }

  // Write the frame that the last `count` (1 or 2) screens make: [out.height, out.width].
  void frame(int count, std::uint8_t* result) noexcept {
    if (count != count_) all_stale();
    count_ = count;
    const bool whole = resize_.whole();
    for (std::size_t y = 0; y < source().height; ++y) {
      columns_[y] = {};
      if (stale_[y].empty()) continue;
      draw(y, stale_[y]);
      if (!whole) columns_[y] = resize_.reduce_row(y, image_.data() + y * source().width, stale_[y]);
      stale_[y] = {};
    }
    if (whole) {
      resize_(image_.data(), result);
      return;
    }
    for (std::size_t y = 0; y < out().height; ++y) {
      Span columns;
      const Span rows = resize_.read_by(y);
      for (std::size_t k = rows.begin; k < rows.end; ++k) columns.join(columns_[k]);
      resize_.combine_rows(y, columns, frame_.data() + y * out().width);
    }
    std::copy(frame_.begin(), frame_.end(), result);
  }

 private:
  static constexpr std::uint16_t unknown = 256;
  static constexpr std::size_t word = 8;  // bytes compared at a time

  static bool same(const std::uint8_t* a, const std::uint8_t* b, std::size_t length) noexcept {
    return length == word ? std::memcmp(a, b, word) == 0 : std::memcmp(a, b, length) == 0;  // the first is one comparison
  }

  // Where a and b differ, to whole words; empty where they are equal.
  static Span difference(const std::uint8_t* a, const std::uint8_t* b, std::size_t length) noexcept {
    if (std::memcmp(a, b, length) == 0) return {};
    Span span{0, length};
    while (same(a + span.begin, b + span.begin, std::min(word, length - span.begin))) span.begin += word;
    while (span.end >= span.begin + word && same(a + span.end - word, b + span.end - word, word)) span.end -= word;
    return span;
  }

  void draw(std::size_t y, Span changed) noexcept {
    const std::size_t row = y * source().width;
    const std::uint8_t *before = gray_[0].data() + row, *last = gray_[1].data() + row;
    std::uint8_t* image = image_.data() + row;
    for (std::size_t x = changed.begin; x < changed.end; ++x) image[x] = count_ == 2 ? std::max(before[x], last[x]) : last[x];
  }

  void all_stale() noexcept { std::fill(stale_.begin(), stale_.end(), Span{0, source().width}); }

  AreaResize resize_;
  std::array<std::uint16_t, 256> gray_of_{};         // by palette entry; `unknown` until learned
  std::vector<std::uint8_t> incoming_;               // [height, width]
  std::array<std::vector<std::uint8_t>, 2> entry_;   // [height, width] by slot: the screen as palette entries
  std::array<std::vector<std::uint8_t>, 2> gray_;    // and as gray levels
  std::array<bool, 2> translated_{false, false};     // is gray_[slot] the translation of entry_[slot]?
  std::vector<std::uint8_t> image_;                  // [height, width]: what the frame is made from
  std::vector<Span> stale_;                          // by source row: where image_ is to be made anew
  std::vector<Span> columns_;                        // by source row: columns of the frame that this concerns
  std::vector<std::uint8_t> frame_;                  // [out.height, out.width]: the last frame
  int count_ = 0;                                    // screens that made it
};

}  // namespace rlp
