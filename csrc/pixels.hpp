#pragma once
// From two screens to one frame: element-wise maximum, then a reduction by pixel area.
//
// The reduction gives, bit for bit, what OpenCV's cv2.resize(..., interpolation=cv2.INTER_AREA) gives for one uint8 channel
// that shrinks along both axes: the same weights, the same float32 sums in the same order, the same rounding (half to
// even). Published Atari agents saw these pixels, so "nearly equal" would be another experiment. Compile without
// floating-point contraction: a fused multiply-add rounds once where OpenCV rounds twice.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

namespace rlp {

struct Size {
  std::size_t height = 0, width = 0;
  [[nodiscard]] std::size_t area() const noexcept { return height * width; }
};

// Along one axis, output k is the sum over j < taps of weight[k * taps + j] * source[first[k] + j].
struct AreaAxis {
  std::size_t taps = 0;
  std::vector<std::size_t> first;
  std::vector<float> weight;  // 0 where an output needs fewer taps: adding 0 changes no finite sum

  AreaAxis(std::size_t source, std::size_t out) : first(out), weight() {
    const double scale = static_cast<double>(source) / static_cast<double>(out);
    constexpr double sliver = 1e-3;  // OpenCV drops what covers less of a pixel than this
    std::vector<std::vector<float>> found(out);
    for (std::size_t k = 0; k < out; ++k) {
      const double begin = static_cast<double>(k) * scale, end = begin + scale;
      const double cell = std::min(scale, static_cast<double>(source) - begin);
      const auto whole_end = std::min(static_cast<std::size_t>(std::floor(end)), source - 1);
      const auto whole_begin = std::min(static_cast<std::size_t>(std::ceil(begin)), whole_end);
      const double head = static_cast<double>(whole_begin) - begin, tail = end - static_cast<double>(whole_end);
      first[k] = whole_begin;
      if (head > sliver) {
        --first[k];
        found[k].push_back(static_cast<float>(head / cell));
      }
      found[k].insert(found[k].end(), whole_end - whole_begin, static_cast<float>(1.0 / cell));
      if (tail > sliver) found[k].push_back(static_cast<float>(std::min(std::min(tail, 1.0), cell) / cell));
      taps = std::max(taps, found[k].size());
    }
    for (std::size_t k = 0; k < out; ++k) {
      // Zero weights go behind, or in front where behind would lie outside the source.
      const std::size_t front = std::min(first[k], first[k] + taps > source ? first[k] + taps - source : 0);
      first[k] -= front;
      weight.insert(weight.end(), front, 0.0f);
      weight.insert(weight.end(), found[k].begin(), found[k].end());
      weight.resize((k + 1) * taps, 0.0f);
    }
  }
};

// Reduces uint8 images of one size to another. Owns scratch memory: one object per thread. O(source area).
class AreaResize {
 public:
  AreaResize(Size source, Size out)
      : source_(source), out_(check(source, out)), across_(source.width, out.width), down_(source.height, out.height),
        row_(source.height * out.width) {}

  [[nodiscard]] Size source() const noexcept { return source_; }
  [[nodiscard]] Size out() const noexcept { return out_; }

  // image: [source.height, source.width]; result: [out.height, out.width].
  void operator()(const std::uint8_t* image, std::uint8_t* result) noexcept {
    if (source_.height % out_.height == 0 && source_.width % out_.width == 0) return blocks(image, result);
    for (std::size_t y = 0; y < source_.height; ++y) reduce_row(image + y * source_.width, row_.data() + y * out_.width);
    for (std::size_t y = 0; y < out_.height; ++y) combine_rows(y, result + y * out_.width);
  }

  // The maximum of two images, reduced. `scratch` holds one image and may be `a` or `b`.
  void max_of(const std::uint8_t* a, const std::uint8_t* b, std::uint8_t* scratch, std::uint8_t* result) noexcept {
    for (std::size_t k = 0; k < source_.area(); ++k) scratch[k] = std::max(a[k], b[k]);
    (*this)(scratch, result);
  }

 private:
  static Size check(Size source, Size out) {
    if (out.area() == 0) throw std::invalid_argument("an image needs at least one pixel");
    if (out.height > source.height || out.width > source.width)
      throw std::invalid_argument("area reduction cannot enlarge an image");
    return out;
  }

  // Half to even, by pushing the fraction out of the mantissa; for 0 <= x < 2^22.
  static std::uint8_t round_to_byte(float x) noexcept {
    constexpr float no_fraction = 12582912.0f;  // 1.5 * 2^23
    return static_cast<std::uint8_t>(std::min((x + no_fraction) - no_fraction, 255.0f));
  }

  void reduce_row(const std::uint8_t* image, float* row) const noexcept {
    for (std::size_t x = 0; x < out_.width; ++x) {
      const std::uint8_t* pixel = image + across_.first[x];
      const float* weight = across_.weight.data() + x * across_.taps;
      float sum = 0.0f;
      for (std::size_t j = 0; j < across_.taps; ++j) sum += static_cast<float>(pixel[j]) * weight[j];
      row[x] = sum;
    }
  }

  void combine_rows(std::size_t y, std::uint8_t* result) noexcept {
    const float* row = row_.data() + down_.first[y] * out_.width;
    const float* weight = down_.weight.data() + y * down_.taps;
    for (std::size_t x = 0; x < out_.width; ++x) {
      float sum = 0.0f;
      for (std::size_t j = 0; j < down_.taps; ++j) sum += row[j * out_.width + x] * weight[j];
      result[x] = round_to_byte(sum);
    }
  }

  // Where both ratios are whole, OpenCV sums integers and multiplies once; for 2 x 2 it rounds half up.
  void blocks(const std::uint8_t* image, std::uint8_t* result) const noexcept {
    const std::size_t high = source_.height / out_.height, wide = source_.width / out_.width;
    const float scale = 1.0f / static_cast<float>(high * wide);
    for (std::size_t y = 0; y < out_.height; ++y)
      for (std::size_t x = 0; x < out_.width; ++x) {
        std::uint32_t sum = 0;
        for (std::size_t dy = 0; dy < high; ++dy)
          for (std::size_t dx = 0; dx < wide; ++dx) sum += image[(y * high + dy) * source_.width + x * wide + dx];
        result[y * out_.width + x] = high == 2 && wide == 2 ? static_cast<std::uint8_t>((sum + 2) >> 2)
                                                            : round_to_byte(static_cast<float>(sum) * scale);
      }
  }

  Size source_, out_;
  AreaAxis across_, down_;
  std::vector<float> row_;  // [source.height, out.width]: each source row, reduced across
};

}  // namespace rlp
