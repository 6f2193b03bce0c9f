#pragma once
// Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
//
// A stream is a 64-bit key and a 64-bit counter of blocks; block c of a stream is a pure function of (key, c), so what a
// consumer draws depends neither on threads nor on who else draws, and saving a stream is saving two integers.

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "host_device.hpp"

namespace rlp {

struct Block {
  std::uint32_t word[4];
};

// Block `counter` of the stream `key`: ten Philox rounds over the 128-bit counter (counter, 0).
RLP_HD inline Block philox(std::uint64_t key, std::uint64_t counter) noexcept {
  std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  Block x{{static_cast<std::uint32_t>(counter), static_cast<std::uint32_t>(counter >> 32), 0u, 0u}};
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * x.word[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * x.word[2];
    x = Block{{static_cast<std::uint32_t>(p1 >> 32) ^ x.word[1] ^ k0, static_cast<std::uint32_t>(p1),
               static_cast<std::uint32_t>(p0 >> 32) ^ x.word[3] ^ k1, static_cast<std::uint32_t>(p0)}};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return x;
}

// Blocks counter, counter + 1, ... of the stream, word w of block b at word[w][b]: the same ones, in a form that compilers turn
// into vector instructions.
template <std::size_t B>
void philox(std::uint64_t key, std::uint64_t counter, std::uint32_t (&word)[4][B]) noexcept {
  std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  for (std::size_t b = 0; b < B; ++b) {
    word[0][b] = static_cast<std::uint32_t>(counter + b);
    word[1][b] = static_cast<std::uint32_t>((counter + b) >> 32);
    word[2][b] = word[3][b] = 0u;
  }
  for (int round = 0; round < 10; ++round) {
    for (std::size_t b = 0; b < B; ++b) {
      const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * word[0][b];
      const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * word[2][b];
      word[0][b] = static_cast<std::uint32_t>(p1 >> 32) ^ word[1][b] ^ k0;
      word[1][b] = static_cast<std::uint32_t>(p1);
      word[2][b] = static_cast<std::uint32_t>(p0 >> 32) ^ word[3][b] ^ k1;
      word[3][b] = static_cast<std::uint32_t>(p0);
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

// 53 random bits as a double in [0, 1).
RLP_HD inline double to_unit(std::uint32_t high, std::uint32_t low) noexcept {
  return static_cast<double>((std::uint64_t{high} << 21) ^ (low >> 11)) * 0x1.0p-53;
}

// 24 random bits as a float in (0, 1]: never 0, so that its logarithm is finite.
RLP_HD inline float to_unit_open0(std::uint32_t word) noexcept {
  return static_cast<float>((word >> 8) + 1u) * 0x1.0p-24f;
}

// The four standard normals of a block, by Box and Muller in float32; |x| <= 5.77 (24 bits of radius).
RLP_HD inline void normals(const Block& block, float (&four)[4]) noexcept {
  constexpr float kTwoPi = 6.283185307179586f;
  for (std::size_t pair = 0; pair < 2; ++pair) {
    const float radius = std::sqrt(-2.0f * std::log(to_unit_open0(block.word[2 * pair])));
    const float angle = kTwoPi * to_unit_open0(block.word[2 * pair + 1]);
    four[2 * pair] = radius * std::cos(angle);
    four[2 * pair + 1] = radius * std::sin(angle);
  }
}

// What a consumer owns. Each call takes whole blocks, so that `counter` alone says where the stream stands.
struct Stream {
  std::uint64_t key = 0;
  std::uint64_t counter = 0;

  // One double in [0, 1): one block.
  RLP_HD double uniform() noexcept {
    const Block b = philox(key, counter++);
    return to_unit(b.word[0], b.word[1]);
  }

  // One integer in [0, bound), bound >= 1: one block. 64-bit multiply-shift; its bias is below bound / 2^64.
  RLP_HD std::uint32_t below(std::uint32_t bound) noexcept {
    const Block b = philox(key, counter++);
    const std::uint64_t bits = (std::uint64_t{b.word[0]} << 32) | b.word[1];
    // floor(bits * bound / 2^64) without 128-bit arithmetic, which device code lacks.
    const std::uint64_t low = (bits & 0xFFFFFFFFu) * bound;
    return static_cast<std::uint32_t>(((bits >> 32) * bound + (low >> 32)) >> 32);
  }

  // n doubles in [0, 1): ceil(n / 2) blocks.
  RLP_HD void uniform(double* out, std::size_t n) noexcept {
    for (std::size_t i = 0; i < n; i += 2) {
      const Block b = philox(key, counter++);
      out[i] = to_unit(b.word[0], b.word[1]);
      if (i + 1 < n) out[i + 1] = to_unit(b.word[2], b.word[3]);
    }
  }

  // n standard normals: ceil(n / 4) blocks.
  void normal(float* out, std::size_t n) noexcept {
    for (std::size_t i = 0; i < n; i += 4) {
      float four[4];
      normals(philox(key, counter++), four);
      for (std::size_t j = 0; j < 4 && i + j < n; ++j) out[i + j] = four[j];
    }
  }
};

}  // namespace rlp
