#include "random.hpp"

#include <cmath>
#include <cstdint>
#include <thread>
#include <vector>

#include "check.hpp"

namespace {

constexpr std::uint64_t kKey = 0x0123456789ABCDEFu;

// Random123's kat_vectors for philox4x32 with ten rounds. Its counter has 128 bits; ours are (counter, 0), so of its
// three vectors only the first, all zero, can be asked for.
void known_answer() {
  const rlp::Block b = rlp::philox(0, 0);
  CHECK(b.word[0] == 0x6627e8d5u && b.word[1] == 0xe169c58du && b.word[2] == 0xbc57ac4cu && b.word[3] == 0x9b00dbd8u);
}

void block_is_a_function_of_key_and_counter() {
  const rlp::Block a = rlp::philox(kKey, 7), same = rlp::philox(kKey, 7);
  const rlp::Block next = rlp::philox(kKey, 8), far = rlp::philox(kKey, 7 + (std::uint64_t{1} << 32));
  const rlp::Block low = rlp::philox(kKey + 1, 7), high = rlp::philox(kKey + (std::uint64_t{1} << 32), 7);
  for (int j = 0; j < 4; ++j) {
    CHECK(a.word[j] == same.word[j]);
    for (const rlp::Block& other : {next, far, low, high}) CHECK(a.word[j] != other.word[j]);
  }
}

void ends_of_the_intervals() {
  CHECK(rlp::to_unit(0, 0) == 0.0);
  CHECK(rlp::to_unit(0xFFFFFFFFu, 0xFFFFFFFFu) == 1.0 - 0x1.0p-53);
  CHECK(rlp::to_unit_open0(0) == 0x1.0p-24f);
  CHECK(rlp::to_unit_open0(0xFFFFFFFFu) == 1.0f);
}

// What is drawn in one call is what is drawn in several of whole blocks, and nothing is written past the end.
void streams_are_cut_anywhere() {
  for (std::size_t n = 0; n <= 9; ++n) {
    rlp::Stream stream{kKey, 3};
    std::vector<double> u(n + 1, -1.0);
    stream.uniform(u.data(), n);
    CHECK(u[n] == -1.0);
    CHECK(stream.counter == 3 + (n + 1) / 2);
    for (std::size_t i = 0; i < n; ++i) {
      const rlp::Block b = rlp::philox(kKey, 3 + i / 2);
      CHECK(u[i] == rlp::to_unit(b.word[2 * (i % 2)], b.word[2 * (i % 2) + 1]));
    }
    rlp::Stream normals{kKey, 3};
    std::vector<float> x(n + 1, -100.0f);
    normals.normal(x.data(), n);
    CHECK(x[n] == -100.0f);
    CHECK(normals.counter == 3 + (n + 3) / 4);
    for (std::size_t i = 0; i < n; ++i) CHECK(std::abs(x[i]) <= 5.77f);
  }
}

void below_follows_the_128_bit_product() {
  for (const std::uint32_t bound : {1u, 2u, 3u, 6u, 1000u, 0x80000000u, 0xFFFFFFFFu}) {
    rlp::Stream stream{kKey, 0};
    for (std::uint64_t c = 0; c < 200; ++c) {
      const rlp::Block b = rlp::philox(kKey, c);
      const std::uint64_t bits = (std::uint64_t{b.word[0]} << 32) | b.word[1];
      __extension__ using Wide = unsigned __int128;
      const std::uint32_t drawn = stream.below(bound);
      CHECK(drawn == static_cast<std::uint32_t>((static_cast<Wide>(bits) * bound) >> 64));
      CHECK(drawn < bound);
    }
    CHECK(stream.counter == 200);
  }
}

// Threads that own their streams share nothing: TSan watches.
void threads_own_their_streams() {
  std::vector<std::vector<double>> drawn(4, std::vector<double>(1001));
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < 4; ++i)
    threads.emplace_back([&drawn, i] { rlp::Stream{kKey + i, 0}.uniform(drawn[i].data(), drawn[i].size()); });
  for (std::thread& thread : threads) thread.join();
  for (std::size_t i = 0; i < 4; ++i) {
    std::vector<double> alone(1001);
    rlp::Stream{kKey + i, 0}.uniform(alone.data(), alone.size());
    CHECK(alone == drawn[i]);
    CHECK(drawn[i] != drawn[(i + 1) % 4]);
  }
}

}  // namespace

int main() {
  known_answer();
  block_is_a_function_of_key_and_counter();
  ends_of_the_intervals();
  streams_are_cut_anywhere();
  below_follows_the_128_bit_product();
  threads_own_their_streams();
  return check::failures();
}
