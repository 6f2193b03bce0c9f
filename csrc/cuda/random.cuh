#pragma once
// Draws of a stream whose key and counter lie on the device, so that a captured graph draws anew at every launch.
//
// Thread b makes block counter + b, as Stream::normal and Stream::uniform of random.hpp do one after the other; once all have
// read the counter, one of them moves it on. Traffic: 4 n or 8 n bytes written; for the thousands of numbers of an update it
// is the launch that counts. uniform agrees with the CPU to the bit, normal to 1e-6: the rounding of log, cos and sin.

#include <cstddef>
#include <cstdint>

#include "cuda/launch.cuh"
#include "random.hpp"

namespace rlp::cuda {

// 16 bytes on the device.
struct DeviceStream {
  std::uint64_t key, counter;
};

// out [n]: standard normals, float32. Takes ceil(n / 4) blocks.
struct DrawNormals {
  static constexpr std::size_t kPerBlock = 4;
  DeviceStream* stream;
  std::size_t n;
  float* out;

  RLP_HD void operator()(unsigned phase, std::size_t b) const noexcept {
    if (phase == 0) {
      float four[4];
      normals(philox(stream->key, stream->counter + b), four);
      for (std::size_t j = 0; j < 4 && 4 * b + j < n; ++j) out[4 * b + j] = four[j];
    } else if (b == 0) {
      stream->counter += (n + 3) / 4;
    }
  }
};

// out [n]: doubles in [0, 1). Takes ceil(n / 2) blocks.
struct DrawUniforms {
  static constexpr std::size_t kPerBlock = 2;
  DeviceStream* stream;
  std::size_t n;
  double* out;

  RLP_HD void operator()(unsigned phase, std::size_t b) const noexcept {
    if (phase == 0) {
      const Block block = philox(stream->key, stream->counter + b);
      for (std::size_t j = 0; j < 2 && 2 * b + j < n; ++j)
        out[2 * b + j] = to_unit(block.word[2 * j], block.word[2 * j + 1]);
    } else if (b == 0) {
      stream->counter += (n + 1) / 2;
    }
  }
};

// Enqueues and returns; no draws enqueue nothing.
template <typename Queue, typename Draws>
void draw(const Queue& queue, const Draws& draws) {
  queue.phases((draws.n + Draws::kPerBlock - 1) / Draws::kPerBlock, 2, draws);
}

}  // namespace rlp::cuda
