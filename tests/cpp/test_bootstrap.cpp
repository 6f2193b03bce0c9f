// Counts, sums and trimmed means against the plainest loops, at sizes around a tile; and two threads that share one job.

#include "bootstrap.hpp"

#include <cstdio>
#include <thread>

#include "check.hpp"

namespace {

using Integers = std::vector<std::int64_t>;
using Doubles = std::vector<double>;

struct Case {
  Integers starts, draws;
  [[nodiscard]] std::size_t runs() const { return static_cast<std::size_t>(starts.back()); }
  [[nodiscard]] std::size_t drawn() const {
    std::size_t all = 0;
    for (const auto some : draws) all += static_cast<std::size_t>(some);
    return all;
  }
};

const std::vector<Case> kCases = {
    {{0, 1}, {1}},
    {{0, 3}, {3}},
    {{0, 3, 4, 9}, {3, 1, 5}},    // ragged, an odd number of draws
    {{0, 3, 4, 9}, {7, 2, 12}},   // more draws than runs
    {{0, 10, 20, 31}, {2, 1, 4}}  // fewer
};
const std::vector<std::size_t> kReps = {1, 2, 7, 8, 9, 16, 35};

Doubles counts_of(const Case& c, std::size_t R, std::uint64_t counter = 0) {
  Doubles counts(c.runs() * R, -1.0);
  rlp::bootstrap::resample({5, counter}, c.starts, c.draws, R, counts.data());
  return counts;
}

void blocks_side_by_side_are_the_blocks() {
  std::uint32_t word[4][5];
  for (const std::uint64_t counter : {std::uint64_t{0}, std::uint64_t{0xFFFFFFFE}, ~std::uint64_t{1}}) {
    rlp::philox(0x0123456789ABCDEF, counter, word);
    for (std::size_t b = 0; b < 5; ++b) {
      const rlp::Block block = rlp::philox(0x0123456789ABCDEF, counter + b);
      for (std::size_t w = 0; w < 4; ++w) CHECK(word[w][b] == block.word[w]);
    }
  }
}

// The draws are those of Stream::uniform in one go, however they are cut into tiles.
void counts_are_of_the_stream() {
  for (const Case& c : kCases)
    for (const std::size_t R : kReps) {
      const std::size_t D = c.drawn(), N = c.runs();
      Doubles u(R * D), expected(N * R, 0.0);
      rlp::Stream{5, 0}.uniform(u.data(), u.size());
      for (std::size_t r = 0, k = 0; r < R; ++r)
        for (std::size_t t = 0; t < c.draws.size(); ++t)
          for (std::int64_t i = 0; i < c.draws[t]; ++i, ++k) {
            const auto n = static_cast<double>(c.starts[t + 1] - c.starts[t]);
            expected[(static_cast<std::size_t>(c.starts[t]) + static_cast<std::size_t>(u[k] * n)) * R + r] += 1.0;
          }
      CHECK(counts_of(c, R) == expected);
    }
}

Doubles values_of(std::size_t P, std::size_t N) {
  Doubles value(P * N);
  rlp::Stream stream{9, 0};
  for (double& x : value) x = static_cast<double>(stream.below(6));  // many ties
  return value;
}

void sums_are_sums() {
  for (const Case& c : kCases)
    for (const std::size_t R : kReps) {
      constexpr std::size_t P = 3;
      const std::size_t T = c.draws.size(), N = c.runs();
      const Doubles counts = counts_of(c, R), value = values_of(P, N);
      Doubles out(P * T * R, -1.0);
      rlp::bootstrap::stratum_sums(counts.data(), c.starts, value.data(), P, R, out.data());
      for (std::size_t p = 0; p < P; ++p)
        for (std::size_t t = 0; t < T; ++t)
          for (std::size_t r = 0; r < R; ++r) {
            double sum = 0.0;
            for (auto run = static_cast<std::size_t>(c.starts[t]); run < static_cast<std::size_t>(c.starts[t + 1]); ++run)
              sum += counts[run * R + r] * value[p * N + run];
            CHECK(out[(p * T + t) * R + r] == sum);  // whole numbers
          }
    }
}

// Draws in units of a quarter, laid out one by one, sorted, and the quarters between low and high averaged.
void trimmed_means_are_means_of_the_middle() {
  for (const Case& c : kCases)
    for (const std::size_t R : kReps) {
      constexpr std::size_t P = 2;
      const std::size_t N = c.runs(), D = c.drawn();
      const Doubles counts = counts_of(c, R), value = values_of(P, N);
      Doubles weight(N, 0.5), sorted(P * N), out(P * R, -1.0);
      Integers order(P * N);
      for (std::size_t p = 0; p < P; ++p) {
        auto* const own = order.data() + p * N;
        for (std::size_t j = 0; j < N; ++j) own[j] = static_cast<std::int64_t>(j);
        const double* const at = value.data() + p * N;
        std::stable_sort(own, own + N, [&](auto a, auto b) { return at[a] < at[b]; });
        for (std::size_t j = 0; j < N; ++j) sorted[p * N + j] = at[own[j]];
      }
      const std::size_t low = D / 3, high = 2 * D - D / 4;  // in quarters, of 2 D
      rlp::bootstrap::trimmed_means(counts.data(), weight.data(), order.data(), sorted.data(), N, P, R,
                                    0.25 * static_cast<double>(low), 0.25 * static_cast<double>(high), out.data());
      for (std::size_t p = 0; p < P; ++p)
        for (std::size_t r = 0; r < R; ++r) {
          Doubles quarters;
          for (std::size_t run = 0; run < N; ++run)
            quarters.insert(quarters.end(), 2 * static_cast<std::size_t>(counts[run * R + r]), value[p * N + run]);
          std::sort(quarters.begin(), quarters.end());
          double sum = 0.0;
          for (std::size_t k = low; k < high; ++k) sum += quarters[k];
          CHECK(std::abs(out[p * R + r] - sum / static_cast<double>(high - low)) < 1e-14);
        }
    }
}

// A job cut in two, each half by a thread of its own, is the whole job to the bit.
void two_threads_share_a_job() {
  const Case& c = kCases[2];
  constexpr std::size_t kHalf = 20;
  const std::size_t N = c.runs();
  const Doubles whole = counts_of(c, 2 * kHalf);
  Doubles part[2];
  {
    std::jthread first([&] { part[0] = counts_of(c, kHalf); });
    std::jthread second([&] { part[1] = counts_of(c, kHalf, kHalf * c.drawn() / 2); });
  }
  for (std::size_t run = 0; run < N; ++run)
    for (std::size_t r = 0; r < 2 * kHalf; ++r) CHECK(whole[run * 2 * kHalf + r] == part[r / kHalf][run * kHalf + r % kHalf]);
}

}  // namespace

int main() {
  blocks_side_by_side_are_the_blocks();
  counts_are_of_the_stream();
  sums_are_sums();
  trimmed_means_are_means_of_the_middle();
  two_threads_share_a_job();
  return check::failures();
}
