// Rows of a shifted image against its pixels one at a time, at every shift that fits, under the sanitizers.
#include "augment.hpp"

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "check.hpp"

namespace {

template <typename T>
void compare(const rlp::ImageShape& shape) {
  std::vector<std::uint8_t> image(static_cast<std::size_t>(shape.size()));
  for (std::size_t i = 0; i < image.size(); ++i) image[i] = static_cast<std::uint8_t>(i * 37 + i / 11);
  for (std::int64_t down = -shape.height; down <= shape.height; ++down)
    for (std::int64_t right = -shape.width; right <= shape.width; ++right)
      for (const float intensity : {1.0f, 0.93f}) {
        std::vector<T> out(image.size());
        rlp::shift_image(image.data(), shape, {down, right}, intensity, out.data());
        for (std::int64_t y = 0; y < shape.height; ++y)
          for (std::int64_t x = 0; x < shape.width; ++x)
            for (std::int64_t c = 0; c < shape.channels; ++c) {
              const auto pixel = rlp::shifted_pixel(image.data(), shape, {down, right}, y, x, c);
              T expected;
              rlp::store(intensity * static_cast<float>(pixel), expected);
              CHECK(out[static_cast<std::size_t>((y * shape.width + x) * shape.channels + c)] == expected);
            }
      }
}

float from_bits(std::uint16_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }

// The nearest of all bfloat16 numbers, ties to even, by search.
void rounding() {
  for (float value = 0.0f; value < 300.0f; value += 0.37f) {
    const std::uint16_t ours = rlp::bfloat16_bits(value);
    const double gap = std::abs(static_cast<double>(from_bits(ours)) - static_cast<double>(value));
    for (const int step : {-1, 1}) {
      if (ours == 0 && step < 0) continue;
      const auto other = static_cast<std::uint16_t>(ours + step);
      const double other_gap = std::abs(static_cast<double>(from_bits(other)) - static_cast<double>(value));
      CHECK(gap < other_gap || (gap == other_gap && ours % 2 == 0));
    }
  }
  CHECK(from_bits(rlp::bfloat16_bits(257.0f)) == 256.0f);  // halfway between 256 and 258: to the even one
  CHECK(from_bits(rlp::bfloat16_bits(259.0f)) == 260.0f);
}

}  // namespace

int main() {
  for (const rlp::ImageShape shape : {rlp::ImageShape{4, 6, 5}, {4, 1, 1}, {1, 3, 8}, {3, 5, 2}, {5, 2, 9}}) {
    compare<float>(shape);
    compare<std::uint16_t>(shape);
  }
  rounding();
  return check::failures();
}
