// Maps and gradients against the definition, in double, at the smallest sizes and at every kernel; memory exactly as large as it must be.

#include "frame_conv.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "check.hpp"
#include "random.hpp"

namespace {

using Floats = std::vector<float>;
using Doubles = std::vector<double>;

struct Case {
  rlp::FrameConv conv;
  std::size_t count;
  std::vector<std::uint8_t> frames;
  Floats weight, bias, by_out;

  Case(const rlp::FrameConv& of, std::size_t n, std::size_t one_in)
      : conv(of), count(n), frames(n * of.frame()), weight(of.kernel()), bias(of.outputs), by_out(n * of.map()) {
    rlp::Stream stream{5, of.frame()};
    for (Floats* x : {&weight, &bias, &by_out}) stream.normal(x->data(), x->size());
    Doubles draws(2 * frames.size());
    stream.uniform(draws.data(), draws.size());
    for (std::size_t i = 0; i < frames.size(); ++i)
      if (draws[2 * i] * static_cast<double>(one_in) < 1.0) frames[i] = static_cast<std::uint8_t>(draws[2 * i + 1] * 256.0);
  }

  // Calls visit(place in `out`, in the frames, in the weights) for every product of the definition.
  template <typename Visit>
  void each_product(Visit visit) const {
    for (std::size_t b = 0; b < count; ++b)
      for (std::size_t y = 0; y < conv.rows(); ++y)
        for (std::size_t x = 0; x < conv.columns(); ++x)
          for (std::size_t o = 0; o < conv.outputs; ++o)
            for (std::size_t c = 0; c < conv.channels; ++c)
              for (std::size_t i = 0; i < conv.size; ++i)
                for (std::size_t j = 0; j < conv.size; ++j)
                  visit(((b * conv.rows() + y) * conv.columns() + x) * conv.outputs + o,
                        ((b * conv.channels + c) * conv.height + y + i) * conv.width + x + j,
                        ((o * conv.channels + c) * conv.size + i) * conv.size + j);
  }
};

double scaled(const Case& c, std::size_t at) { return static_cast<double>(c.conv.scale) * c.frames[at]; }

void maps_and_gradients_are_those_of_the_definition(const Case& c, bool relu) {
  Doubles maps(c.by_out.size()), by_weight(c.weight.size()), by_bias(c.bias.size());
  for (std::size_t i = 0; i < maps.size(); ++i) maps[i] = c.bias[i % c.conv.outputs];
  c.each_product([&](std::size_t to, std::size_t from, std::size_t by) { maps[to] += scaled(c, from) * c.weight[by]; });
  const auto passes = [&](std::size_t i) { return !relu || maps[i] > 0.0; };
  for (std::size_t i = 0; i < maps.size(); ++i)
    if (passes(i)) by_bias[i % c.conv.outputs] += c.by_out[i];
  c.each_product([&](std::size_t from, std::size_t at, std::size_t to) {
    if (passes(from)) by_weight[to] += scaled(c, at) * c.by_out[from];
  });

  Floats out(maps.size(), -1.0f), got_weight(c.weight.size(), -1.0f), got_bias(c.bias.size(), -1.0f);
  rlp::frame_conv(c.conv, c.frames.data(), c.count, c.weight.data(), c.bias.data(), relu, out.data());
  rlp::frame_conv_gradients(c.conv, c.frames.data(), c.count, relu ? out.data() : nullptr, c.by_out.data(), got_weight.data(),
                            got_bias.data());
  for (std::size_t i = 0; i < maps.size(); ++i) CHECK(std::abs(out[i] - (passes(i) ? maps[i] : 0.0)) < 1e-4);
  for (std::size_t i = 0; i < by_weight.size(); ++i) CHECK(std::abs(got_weight[i] - by_weight[i]) < 1e-3);
  for (std::size_t i = 0; i < by_bias.size(); ++i) CHECK(std::abs(got_bias[i] - by_bias[i]) < 1e-3);
}

void what_is_no_number_is_seen() {
  const rlp::FrameConv conv{1, 1, 1, 1, 1, 1.0f};
  const std::uint8_t frame = 1;
  const float nan = std::numeric_limits<float>::quiet_NaN(), zero = 0.0f, one = 1.0f;
  float out = 0.0f, by_weight = 0.0f, by_bias = 0.0f;
  rlp::frame_conv(conv, &frame, 1, &nan, &zero, true, &out);
  CHECK(std::isnan(out));
  rlp::frame_conv_gradients(conv, &frame, 1, &out, &one, &by_weight, &by_bias);
  CHECK(by_weight == 1.0f && by_bias == 1.0f);  // it passes gradients on, as torch's does
}

void bytes_are_counted(std::size_t n) {
  std::vector<std::uint8_t> bytes(n, 0);
  CHECK(rlp::bytes_set(bytes.data(), n) == 0);
  for (std::size_t i = 0; i < n; ++i) bytes[i] = static_cast<std::uint8_t>(i % 7 == 0 ? 0 : 255 - i % 3);
  CHECK(rlp::bytes_set(bytes.data(), n) == n - (n + 6) / 7);
  for (std::uint8_t& byte : bytes) byte = 1;
  CHECK(rlp::bytes_set(bytes.data(), n) == n);
}

}  // namespace

int main() {
  const std::size_t shapes[][5] = {  // channels, height, width, outputs, size
      {1, 1, 1, 1, 1}, {1, 3, 3, 1, 3}, {2, 4, 3, 5, 3}, {4, 10, 10, 16, 3}, {3, 5, 7, 2, 2}, {2, 3, 9, 3, 1}, {1, 4, 4, 2, 4}, {7, 6, 5, 3, 5},
  };
  for (const auto& [channels, height, width, outputs, size] : shapes)
    for (const std::size_t count : {std::size_t{0}, std::size_t{1}, std::size_t{3}})
      for (const std::size_t one_in : {std::size_t{1}, std::size_t{4}, std::size_t{1000000}})
        for (const bool relu : {false, true})
          maps_and_gradients_are_those_of_the_definition(
              Case({channels, height, width, outputs, size, 1.0f / 128.0f}, count, one_in), relu);
  what_is_no_number_is_seen();
  for (const std::size_t n : {0, 1, 15, 16, 17, 4079, 4080, 4081, 4096, 9000}) bytes_are_counted(n);
  return check::failures();
}
