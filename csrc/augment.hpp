#pragma once
// Stacked uint8 frames as the numbers a network takes: shifted at random, times an intensity, channels last.
//
// The augmentation is DrQ's (Kostrikov et al. 2021, arXiv:2004.13649) with the intensity of SPR. Padding by repetition of
// the border and cropping at an offset is the same as reading at clamped coordinates, so nothing is ever padded.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "host_device.hpp"

namespace rlp {

struct ImageShape {
  std::int64_t channels, height, width;
  [[nodiscard]] RLP_HD std::int64_t area() const noexcept { return height * width; }
  [[nodiscard]] RLP_HD std::int64_t size() const noexcept { return channels * area(); }
};

struct Shift {
  std::int64_t down, right;  // the pixel at (y, x) is read at (y + down, x + right)
};

RLP_HD inline std::int64_t clamped(std::int64_t at, std::int64_t size) noexcept {
  return at < 0 ? 0 : (at < size ? at : size - 1);
}

// Pixel (y, x) of channel c of the shifted image; image is [channels, height, width].
RLP_HD inline std::uint8_t shifted_pixel(const std::uint8_t* image, const ImageShape& shape, Shift shift, std::int64_t y,
                                         std::int64_t x, std::int64_t c) noexcept {
  const std::int64_t from_y = clamped(y + shift.down, shape.height), from_x = clamped(x + shift.right, shape.width);
  return image[c * shape.area() + from_y * shape.width + from_x];
}

// The bits of the bfloat16 nearest to a finite number, ties to even.
RLP_HD inline std::uint16_t bfloat16_bits(float value) noexcept {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);  // not std::bit_cast, which device code may not call
  return static_cast<std::uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

RLP_HD inline void store(float value, float& out) noexcept { out = value; }
RLP_HD inline void store(float value, std::uint16_t& out) noexcept { out = bfloat16_bits(value); }

// A row: out[x * channels + c] = table[row[c * stride + clamp(x + right)]]. kChannels = 0: known at run time only.
template <std::int64_t kChannels, typename T>
void shift_row(const std::uint8_t* row, std::int64_t stride, std::int64_t channels, std::int64_t width,
               std::int64_t right, const std::array<T, 256>& table, T* out) noexcept {
  const std::int64_t n = kChannels ? kChannels : channels;
  const auto fill = [&](std::int64_t begin, std::int64_t end, std::int64_t from, std::int64_t step) {
    for (std::int64_t x = begin; x < end; ++x, from += step)
      for (std::int64_t c = 0; c < n; ++c) out[x * n + c] = table[row[c * stride + from]];
  };
  const std::int64_t begin = std::clamp<std::int64_t>(-right, 0, width);
  const std::int64_t end = std::clamp<std::int64_t>(width - right, begin, width);
  fill(0, begin, 0, 0);
  fill(begin, end, begin + right, 1);
  fill(end, width, width - 1, 0);
}

// out [height, width, channels] = intensity * image [channels, height, width], shifted, its border repeated; T is float, or
// uint16_t for the bits of bfloat16. Each of the 256 possible products is rounded once. They must not overlap.
template <typename T>
void shift_image(const std::uint8_t* image, const ImageShape& shape, Shift shift, float intensity, T* out) noexcept {
  std::array<T, 256> table;
  for (std::size_t v = 0; v < table.size(); ++v) store(intensity * static_cast<float>(v), table[v]);
  for (std::int64_t y = 0; y < shape.height; ++y) {
    const std::uint8_t* row = image + clamped(y + shift.down, shape.height) * shape.width;
    T* to = out + y * shape.width * shape.channels;
    if (shape.channels == 4)
      shift_row<4>(row, shape.area(), 4, shape.width, shift.right, table, to);
    else
      shift_row<0>(row, shape.area(), shape.channels, shape.width, shift.right, table, to);
  }
}

}  // namespace rlp
