#pragma once
// Random shift and intensity (augment.hpp) on the device, fused with the gather: from the frames in the replay to the numbers
// that a network takes, in one pass.
//
// Traffic of shift_images, with Pixel of 4 bytes (float) or 2 (bfloat16): B (k + 2) stack height width (1 + sizeof(Pixel)), the
// frames read by bytes, coalesced along x, the images written channels last, one vector of `stack` numbers a thread: bandwidth
// is the bound, four fifths of it what is written as float, two thirds as bfloat16.

#include <cstddef>
#include <cstdint>

#include "augment.hpp"
#include "cuda/random.cuh"
#include "cuda/replay_sample.cuh"
#include "random.hpp"

namespace rlp::cuda {

// For each of M images rows and columns of shift in {-pad, ..., pad - 1}, then the intensity 1 + scale * (a normal cut at
// `cut`): techniques.augment.draw. Shifts take M blocks, intensities ceil(M / 4) after them. Shifts are the CPU's to the bit;
// intensities differ by what logf and cosf of CUDA differ from the CPU's, below 1e-6.
struct DrawAugmentation {
  static constexpr unsigned kPhases = 2;
  DeviceStream* stream;
  std::size_t images;
  std::int64_t pad;
  float scale, cut;
  std::int64_t* shift;  // [M, 2]
  float* intensity;     // [M]

  RLP_HD void operator()(unsigned phase, std::size_t m) const noexcept {
    if (phase == 0) draw(m);
    if (phase == 1 && m == 0) stream->counter += images + (images + 3) / 4;
  }

  RLP_HD void draw(std::size_t m) const noexcept {
    const Block block = philox(stream->key, stream->counter + m);
    for (std::size_t axis = 0; axis < 2; ++axis) {
      const double unit = to_unit(block.word[2 * axis], block.word[2 * axis + 1]);
      shift[2 * m + axis] = static_cast<std::int64_t>(unit * static_cast<double>(2 * pad)) - pad;
    }
    float four[4];
    normals(philox(stream->key, stream->counter + images + m / 4), four);
    const float z = four[m % 4];
    intensity[m] = 1.0f + scale * (z < -cut ? -cut : (z > cut ? cut : z));
  }
};

template <typename Queue>
void draw_augmentation(const Queue& queue, const DrawAugmentation& draw) {
  queue.phases(draw.images, DrawAugmentation::kPhases, draw);
}

// A pixel of all channels, written at once where they are four.
template <typename T>
struct alignas(4 * sizeof(T)) Four {
  T channel[4];
};

// Image o * B + b is observation o of item b (o = k + 1: the next one): out[o, b, y, x, c] = intensity * frame c at
// (y, x) + shift, clamped; frames that an episode lacks are 0. T is float, or uint16_t for the bits of bfloat16.
template <typename T>
struct ShiftImages {
  Memory memory;
  const Source* source;    // [B, k + 2]
  std::size_t batch, columns;
  ImageShape image;        // channels: the stack
  const std::int64_t* shift;  // [(k + 2) * B, 2]; null: none
  const float* intensity;     // [(k + 2) * B]; null: 1
  T* out;                     // [(k + 2) * B, height, width, channels]

  RLP_HD void operator()(std::size_t row, std::size_t pixel) const noexcept {
    const Source& from = source[row % batch * columns + row / batch];
    const float factor = intensity ? intensity[row] : 1.0f;
    const auto at = static_cast<std::uint32_t>(pixel), width = static_cast<std::uint32_t>(image.width);  // 64 bits divide slowly
    const std::int64_t y = at / width + (shift ? shift[2 * row] : 0), x = at % width + (shift ? shift[2 * row + 1] : 0);
    const std::int64_t where = clamped(y, image.height) * image.width + clamped(x, image.width);
    T* to = out + row * static_cast<std::size_t>(image.size()) + pixel * static_cast<std::size_t>(image.channels);
    if (image.channels == 4) {
      Four<T> four;
      for (std::size_t c = 0; c < 4; ++c) store(value(from, c, where, factor), four.channel[c]);
      *reinterpret_cast<Four<T>*>(to) = four;
    } else {
      for (std::size_t c = 0; c < static_cast<std::size_t>(image.channels); ++c)
        store(value(from, c, where, factor), to[c]);
    }
  }

  RLP_HD float value(const Source& from, std::size_t channel, std::int64_t where, float factor) const noexcept {
    const auto* frame = reinterpret_cast<const std::uint8_t*>(memory.frame_of(from, channel));
    return frame ? factor * static_cast<float>(frame[where]) : 0.0f;
  }
};

template <typename T, typename Queue>
void shift_images(const Queue& queue, const ShiftImages<T>& images) {
  queue.rows(images.batch * images.columns, static_cast<std::size_t>(images.image.area()), images);
}

}  // namespace rlp::cuda
