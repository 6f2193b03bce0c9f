#include <random>
#include <vector>

#include "check.hpp"
#include "screens.hpp"

using rlp::AreaResize;
using rlp::Screens;
using rlp::Size;
using Image = std::vector<std::uint8_t>;

namespace {

std::uint8_t gray(std::uint8_t entry) { return static_cast<std::uint8_t>(entry * 7 + 13); }

Image translated(const Image& entries) {
  Image out;
  for (const auto entry : entries) out.push_back(gray(entry));
  return out;
}

// However little changed, the frame is the one made from the whole of both screens.
void frames_do_not_depend_on_what_went_before(Size source, Size out) {
  std::mt19937 random(source.width * 1000 + out.width);
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random()) % n; };
  Screens screens(source, out);
  AreaResize resize(source, out);
  Image screen[2] = {Image(source.area()), Image(source.area())};
  int lessons = 0;
  for (int t = 0; t < 200; ++t) {
    const int count = t % 7 == 0 ? 1 : 2;
    for (std::size_t slot = count == 1 ? 1 : 0; slot < 2; ++slot) {
      Image& image = screen[slot];
      for (std::size_t change = below(4); change > 0; --change) {
        const std::size_t length = 1 + below(t % 31 == 0 ? image.size() : source.width / 2);
        const std::size_t begin = below(image.size() - length + 1);
        const auto entry = static_cast<std::uint8_t>(below(t < 100 ? 8 : 256));
        std::fill_n(image.begin() + static_cast<std::ptrdiff_t>(begin), length, entry);
      }
      std::copy(image.begin(), image.end(), screens.incoming());
      if (!screens.take(slot)) {
        screens.learn(slot, translated(image).data());
        ++lessons;
      }
    }
    Image whole = translated(screen[1]);
    if (count == 2) {
      const Image before = translated(screen[0]);
      for (std::size_t k = 0; k < whole.size(); ++k) whole[k] = std::max(whole[k], before[k]);
    }
    Image expected(out.area()), frame(out.area(), 99);
    resize(whole.data(), expected.data());
    screens.frame(count, frame.data());
    CHECK(frame == expected);
  }
  CHECK(lessons > 2 && lessons < 200);
}

// Entry 0 of a slot that was never taken is not yet translated, though the slot's memory holds zeros.
void a_first_screen_is_translated_whole() {
  Screens screens({16, 16}, {5, 5});
  const Image black(256, 0);
  std::copy(black.begin(), black.end(), screens.incoming());
  CHECK(!screens.take(0));
  screens.learn(0, translated(black).data());
  CHECK(screens.take(1));
  Image frame(25);
  screens.frame(1, frame.data());
  CHECK(frame == Image(25, gray(0)));
}

void a_plain_image_stays_plain() {
  for (const Size out : {Size{84, 84}, Size{105, 80}, Size{7, 3}, Size{210, 160}, Size{209, 159}}) {
    AreaResize resize({210, 160}, out);
    for (const int level : {0, 1, 127, 255}) {
      Image result(out.area());
      resize(Image(210 * 160, static_cast<std::uint8_t>(level)).data(), result.data());
      CHECK(result == Image(out.area(), static_cast<std::uint8_t>(level)));
    }
  }
}

void enlarging_is_refused() {
  for (const Size out : {Size{11, 10}, Size{10, 11}, Size{0, 5}, Size{5, 0}}) {
    bool refused = false;
    try {
      AreaResize resize({10, 10}, out);
    } catch (const std::invalid_argument&) {
      refused = true;
    }
    CHECK(refused);
  }
}

}  // namespace

int main() {
  frames_do_not_depend_on_what_went_before({210, 160}, {84, 84});
  frames_do_not_depend_on_what_went_before({30, 21}, {13, 20});  // a width that is no multiple of 8; 2 taps
  frames_do_not_depend_on_what_went_before({40, 37}, {11, 5});   // more than 4 taps
  frames_do_not_depend_on_what_went_before({40, 36}, {20, 9});   // whole ratios
  a_first_screen_is_translated_whole();
  a_plain_image_stays_plain();
  enlarging_is_refused();
  return check::failures();
}
