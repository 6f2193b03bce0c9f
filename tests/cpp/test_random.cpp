// Stream::below, what the GPU's threads draw, and the draws of one number, which Python does not see.

#include <limits>
#include <vector>

#include "check.hpp"
#include "cuda/random.cuh"
#include "random.hpp"

namespace {

// below() is floor(bits * bound / 2^64), here in 128 bits.
void below_is_the_exact_floor() {
  __extension__ using Wide = unsigned __int128;
  rlp::Stream draws{5, 0};
  for (const std::uint32_t bound : {1u, 2u, 3u, 7u, 1000u, 0x7FFFFFFFu, 0x80000000u, 0xFFFFFFFFu})
    for (int draw = 0; draw < 2000; ++draw) {
      const rlp::Block block = rlp::philox(draws.key, draws.counter);
      const std::uint64_t bits = (std::uint64_t{block.word[0]} << 32) | block.word[1];
      const auto expected = static_cast<std::uint32_t>((Wide{bits} * bound) >> 64);
      const std::uint32_t drawn = draws.below(bound);
      CHECK(drawn == expected && drawn < bound);
    }
  CHECK(draws.counter == 8 * 2000);
}

// Each of `bound` values within 5 sigma of its share.
void below_is_uniform() {
  rlp::Stream draws{6, 0};
  constexpr int n = 70'000, bound = 7;
  int count[bound] = {};
  for (int draw = 0; draw < n; ++draw) ++count[draws.below(bound)];
  const double p = 1.0 / bound, sigma = std::sqrt(n * p * (1 - p));
  for (const int c : count) CHECK(std::abs(c - n * p) < 5 * sigma);
}

// One number a block, and many at two a block, from the same words.
void single_draws_take_a_block_each() {
  rlp::Stream one{7, 0}, many{7, 0};
  double u[4];
  many.uniform(u, 4);
  CHECK(many.counter == 2);
  CHECK(one.uniform() == u[0] && one.uniform() == u[2] && one.counter == 2);
}

void known_answer() {
  const rlp::Block block = rlp::philox(0, 0);  // Random123's kat_vectors
  CHECK(block.word[0] == 0x6627E8D5u && block.word[1] == 0xE169C58Du);
  CHECK(block.word[2] == 0xBC57AC4Cu && block.word[3] == 0x9B00DBD8u);
}

// Every thread of cuda/random.cuh makes its own block: in whatever order they run they write what the stream draws one after
// the other, nothing past the end (ASan sees the arrays' exact ends), and the counter moves on once.
void threads_draw_what_the_stream_draws() {
  for (const std::uintptr_t order : {0u, 1u, 2u})
    for (const std::uint64_t counter : {std::uint64_t{0}, std::uint64_t{0xFFFFFFFF}, ~std::uint64_t{0}})
      for (const std::size_t n : {0u, 1u, 2u, 3u, 4u, 5u, 127u, 128u, 129u, 1027u}) {
        const rlp::cuda::HostQueue queue(0, order);
        rlp::Stream stream{8, counter};
        rlp::cuda::DeviceStream state{8, counter};
        std::vector<float> normals(n), normal(n, std::numeric_limits<float>::quiet_NaN());
        stream.normal(normals.data(), n);
        rlp::cuda::draw(queue, rlp::cuda::DrawNormals{&state, n, normal.data()});
        CHECK(normal == normals && state.counter == stream.counter && state.key == 8);

        std::vector<double> uniforms(n), uniform(n, -1.0);
        stream.uniform(uniforms.data(), n);
        rlp::cuda::draw(queue, rlp::cuda::DrawUniforms{&state, n, uniform.data()});
        CHECK(uniform == uniforms && state.counter == stream.counter);
      }
}

}  // namespace

int main() {
  threads_draw_what_the_stream_draws();
  known_answer();
  below_is_the_exact_floor();
  below_is_uniform();
  single_draws_take_a_block_each();
  return check::failures();
}
