#pragma once
// A convolution of frames of bytes of which few are not 0, as MinAtar's are (2 to 10 %): what is 0 adds nothing, and is not visited.
//
// Frames are [count, channels, height, width], kernels [outputs, channels, size, size]; without padding, at every place (stride 1):
//   out[b, y, x, o] = bias[o] + sum over c, i, j of scale * frame[b, c, y + i, x + j] * weight[o, c, i, j]
// with the channels last, so that a byte adds to a run of neighbouring numbers in each of up to `size` rows. In float32. Every number
// is a sum in an order that the frame alone decides: the same bits on every CPU, whatever its vectors' width.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace rlp {

struct FrameConv {
  std::size_t channels, height, width, outputs, size;  // size <= height, width; none is 0
  float scale;                                         // of the bytes

  [[nodiscard]] std::size_t rows() const noexcept { return height - size + 1; }
  [[nodiscard]] std::size_t columns() const noexcept { return width - size + 1; }
  [[nodiscard]] std::size_t frame() const noexcept { return channels * height * width; }
  [[nodiscard]] std::size_t map() const noexcept { return rows() * columns() * outputs; }
  [[nodiscard]] std::size_t kernel() const noexcept { return channels * size * size * outputs; }

  // Where weight[o, c, i, j] lies among kernels turned so that what one byte adds to a row is one run.
  [[nodiscard]] std::size_t turned(std::size_t o, std::size_t c, std::size_t i, std::size_t j) const noexcept {
    return ((c * size + i) * size + size - 1 - j) * outputs + o;
  }
};

// How many bytes are not 0. Blocks are so small that a byte can count them: sixteen sums fit a vector.
inline std::size_t bytes_set(const std::uint8_t* bytes, std::size_t n) noexcept {
  std::size_t sum = 0;
  for (std::size_t at = 0; at < n; at += 16 * 255) {
    std::uint8_t lanes[16] = {};
    const std::size_t block = std::min<std::size_t>(n - at, 16 * 255), whole = block / 16 * 16;
    for (std::size_t i = at; i < at + whole; i += 16)
      for (std::size_t lane = 0; lane < 16; ++lane) lanes[lane] = static_cast<std::uint8_t>(lanes[lane] + (bytes[i + lane] != 0));
    for (const std::uint8_t lane : lanes) sum += lane;
    for (std::size_t i = at + whole; i < at + block; ++i) sum += bytes[i] != 0;
  }
  return sum;
}

// Calls visit(value, begin in the map, begin in the turned kernels, length) for each run that a byte other than 0 has a part in.
template <typename Visit>
inline void each_run(const FrameConv& conv, const std::uint8_t* frame, Visit visit) {
  const std::size_t n = conv.frame(), area = conv.height * conv.width, last = conv.size - 1;
  const auto byte = [&](std::size_t at) {
    const std::size_t c = at / area, y = at % area / conv.width, x = at % conv.width;
    const std::size_t left = x < last ? 0 : x - last, right = std::min(x, conv.columns() - 1);  // columns of the map
    const std::size_t length = (right + 1 - left) * conv.outputs, skip = left + last - x;
    const std::size_t top = y < last ? 0 : y - last, bottom = std::min(y, conv.rows() - 1);
    for (std::size_t row = top; row <= bottom; ++row)
      visit(conv.scale * static_cast<float>(frame[at]), (row * conv.columns() + left) * conv.outputs,
            ((c * conv.size + y - row) * conv.size + skip) * conv.outputs, length);
  };
  std::size_t at = 0;
  for (std::uint64_t eight; at + sizeof eight <= n; at += sizeof eight) {
    std::memcpy(&eight, frame + at, sizeof eight);
    if (eight == 0) continue;
    for (std::size_t i = at; i < at + sizeof eight; ++i)
      if (frame[i] != 0) byte(i);
  }
  for (; at < n; ++at)
    if (frame[at] != 0) byte(at);
}

// The maps [count, rows, columns, outputs], with `relu` what is below 0 raised to it; NaN stays.
inline void frame_conv(const FrameConv& conv, const std::uint8_t* frames, std::size_t count, const float* weight,
                       const float* bias, bool relu, float* out) {
  const std::size_t map = conv.map();
  std::vector<float> kernel(conv.kernel()), biases(map);
  for (std::size_t o = 0; o < conv.outputs; ++o)
    for (std::size_t c = 0; c < conv.channels; ++c)
      for (std::size_t i = 0; i < conv.size; ++i)
        for (std::size_t j = 0; j < conv.size; ++j) kernel[conv.turned(o, c, i, j)] = *weight++;
  for (std::size_t i = 0; i < map; ++i) biases[i] = bias[i % conv.outputs];
  for (std::size_t b = 0; b < count; ++b, frames += conv.frame(), out += map) {
    std::copy(biases.begin(), biases.end(), out);
    each_run(conv, frames, [&](float value, std::size_t to, std::size_t from, std::size_t length) {
      for (std::size_t i = 0; i < length; ++i) out[to + i] += value * kernel[from + i];
    });
    if (relu)
      for (std::size_t i = 0; i < map; ++i) out[i] = out[i] < 0.0f ? 0.0f : out[i];
  }
}

// The gradients by weight and bias, of those by `out`, which is null where frame_conv had no `relu`.
inline void frame_conv_gradients(const FrameConv& conv, const std::uint8_t* frames, std::size_t count, const float* out,
                                 const float* by_out, float* by_weight, float* by_bias) {
  const std::size_t map = conv.map();
  std::vector<float> kernel(conv.kernel()), biases(map), passed(map);
  for (std::size_t b = 0; b < count; ++b, frames += conv.frame(), by_out += map) {
    const float* grad = by_out;
    if (out != nullptr) {
      float* const kept = passed.data();
      for (std::size_t i = 0; i < map; ++i) {
        const float g = by_out[i];  // read whether or not it counts, so that a vector of them can be
        kept[i] = out[i] <= 0.0f ? 0.0f : g;
      }
      grad = kept;
      out += map;
    }
    float* const sums = biases.data();
    for (std::size_t i = 0; i < map; ++i) sums[i] += grad[i];
    each_run(conv, frames, [&](float value, std::size_t from, std::size_t to, std::size_t length) {
      for (std::size_t i = 0; i < length; ++i) kernel[to + i] += value * grad[from + i];
    });
  }
  for (std::size_t o = 0; o < conv.outputs; ++o)
    for (std::size_t c = 0; c < conv.channels; ++c)
      for (std::size_t i = 0; i < conv.size; ++i)
        for (std::size_t j = 0; j < conv.size; ++j) *by_weight++ = kernel[conv.turned(o, c, i, j)];
  std::fill(by_bias, by_bias + conv.outputs, 0.0f);
  for (std::size_t i = 0; i < map; ++i) by_bias[i % conv.outputs] += biases[i];
}

}  // namespace rlp
