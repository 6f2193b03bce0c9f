#pragma once
// Reduction of images by pixel area.
//
// It gives, bit for bit, what OpenCV's cv2.resize(..., interpolation=cv2.INTER_AREA) gives for one uint8 channel
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

// Positions [begin, end) along an axis.
struct Span {
  std::size_t begin = 0, end = 0;
  [[nodiscard]] bool empty() const noexcept { return begin >= end; }
  // The smallest span that holds both.
  void join(Span other) noexcept {
    if (other.empty()) return;
    *this = empty() ? other : Span{std::min(begin, other.begin), std::max(end, other.end)};
  }
};

// Along one axis, output k is the sum over j < taps of weight[k * taps + j] * source[first[k] + j].
struct AreaAxis {
  std::size_t taps = 0;
  std::vector<std::size_t> first;
  std::vector<float> weight;  // 0 where an output needs fewer taps: adding 0 changes no finite sum

  std::vector<std::size_t> reached_from;  // by source position p: the first output that reads p or what follows it
  std::vector<std::size_t> clear_of;      // by source position p: the first output that reads nothing before p

  AreaAxis(std::size_t source, std::size_t out) : first(out), reached_from(source + 1), clear_of(source + 1) {
    const double scale = static_cast<double>(source) / static_cast<double>(out);
    constexpr double sliver = 1e-3;  // OpenCV drops what covers less of a pixel than this
    std::vector<std::vector<float>> found(out);
    for (std::size_t k = 0; k < out; ++k) {
      const double begin = static_cast<double>(k) * scale, end = begin + scale;
      const auto whole_end = std::min(static_cast<std::size_t>(std::floor(end)), source - 1);
      const auto whole_begin = std::min(static_cast<std::size_t>(std::ceil(begin)), whole_end);
      const double head = static_cast<double>(whole_begin) - begin, tail = end - static_cast<double>(whole_end);
      first[k] = whole_begin;
      if (head > sliver) {
        --first[k];
        found[k].push_back(static_cast<float>(head / scale));
      }
      found[k].insert(found[k].end(), whole_end - whole_begin, static_cast<float>(1.0 / scale));
      if (tail > sliver) found[k].push_back(static_cast<float>(tail / scale));
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
    for (std::size_t p = 0, from = 0, clear = 0; p <= source; ++p) {
      while (from < out && first[from] + taps <= p) ++from;
      while (clear < out && first[clear] < p) ++clear;
      reached_from[p] = from;
      clear_of[p] = clear;
    }
  }

  // The outputs that read any of these source positions; not of an empty span.
  [[nodiscard]] Span outputs(Span source) const noexcept { return {reached_from[source.begin], clear_of[source.end]}; }
  // The source positions that these outputs read; not of an empty span.
  [[nodiscard]] Span inputs(Span out) const noexcept { return {first[out.begin], first[out.end - 1] + taps}; }
};

// Reduces uint8 images of one size to another. Owns scratch memory: one object per thread. O(source area).
class AreaResize {
 public:
  // Throws std::invalid_argument where `out` is empty or larger than `source` along an axis.
  AreaResize(Size source, Size out)
      : source_(source), out_(check(source, out)), across_(source.width, out.width), down_(source.height, out.height),
        pixel_(source.width), row_(source.height * out.width) {}

  [[nodiscard]] Size source() const noexcept { return source_; }
  [[nodiscard]] Size out() const noexcept { return out_; }

  // image: [source.height, source.width]; result: [out.height, out.width].
  void operator()(const std::uint8_t* image, std::uint8_t* result) noexcept {
    if (whole()) return blocks(image, result);
    for (std::size_t y = 0; y < source_.height; ++y) reduce_row(y, image + y * source_.width, {0, source_.width});
    for (std::size_t y = 0; y < out_.height; ++y) combine_rows(y, {0, out_.width}, result + y * out_.width);
  }

  // The two halves of the above, for callers who know what changed (not where whole()).
  //
  // Take row y of the source across, where only `changed` differs from the last time; returns the columns of the result
  // that this concerns. Then make these columns of row y of the result, from the source rows read_by(y).
  Span reduce_row(std::size_t y, const std::uint8_t* image_row, Span changed) noexcept {
    const Span columns = across_.outputs(changed), read = across_.inputs(columns);
    std::copy(image_row + read.begin, image_row + read.end, pixel_.data() + read.begin);  // to float32: vectorises
    float* row = row_.data() + y * out_.width;
    switch (across_.taps) {
      case 2: across<2>(row, columns); break;
      case 3: across<3>(row, columns); break;  // 160 to 84
      case 4: across<4>(row, columns); break;
      default: across<0>(row, columns);
    }
    return columns;
  }

  void combine_rows(std::size_t y, Span columns, std::uint8_t* result) const noexcept {
    const float* row = row_.data() + down_.first[y] * out_.width;
    const float* weight = down_.weight.data() + y * down_.taps;
    for (std::size_t x = columns.begin; x < columns.end; ++x) {
      float sum = row[x] * weight[0];
      for (std::size_t j = 1; j < down_.taps; ++j) sum += row[j * out_.width + x] * weight[j];
      result[x] = round_to_byte(sum);
    }
  }

  [[nodiscard]] Span read_by(std::size_t y) const noexcept { return down_.inputs({y, y + 1}); }

  // Are both ratios whole numbers? OpenCV treats these apart.
  [[nodiscard]] bool whole() const noexcept {
    return source_.height % out_.height == 0 && source_.width % out_.width == 0;
  }

 private:
  static Size check(Size source, Size out) {
    if (out.area() == 0) throw std::invalid_argument("an image needs at least one pixel");
    if (out.height > source.height || out.width > source.width)
      throw std::invalid_argument("area reduction cannot enlarge an image");
    return out;
  }

  // Half to even, by pushing the fraction out of the mantissa. Weights sum to 1 within a few ulp: x never rounds to 256.
  static std::uint8_t round_to_byte(float x) noexcept {
    constexpr float no_fraction = 12582912.0f;  // 1.5 * 2^23
    return static_cast<std::uint8_t>(static_cast<int>((x + no_fraction) - no_fraction));
  }

  // Taps known to the compiler are unrolled, which halves the time. 0: known only now.
  template <std::size_t Taps>
  void across(float* row, Span columns) const noexcept {
    const std::size_t taps = Taps == 0 ? across_.taps : Taps;
    for (std::size_t x = columns.begin; x < columns.end; ++x) {
      const float* pixel = pixel_.data() + across_.first[x];
      const float* weight = across_.weight.data() + x * taps;
      float sum = pixel[0] * weight[0];
      for (std::size_t j = 1; j < taps; ++j) sum += pixel[j] * weight[j];
      row[x] = sum;
    }
  }

  // Whole ratios: integers are summed and multiplied once; 2 x 2 rounds half up.
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
  std::vector<float> pixel_;  // [source.width]: the row being taken across
  std::vector<float> row_;    // [source.height, out.width]: each source row, taken across
};

}  // namespace rlp
