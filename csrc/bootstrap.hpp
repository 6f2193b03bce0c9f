#pragma once
// A stratified bootstrap by counts. A resample of N runs is how many times each was drawn, so the runs are sorted once for all
// resamples, and a trimmed mean is a walk along the sorted runs.
//
// Runs are numbered 0 to N - 1, those of stratum t being starts[t] to starts[t + 1] - 1. Counts are [N, R] row-major, R resamples
// side by side. All loops go through tiles of kTile resamples. What a resample comes to depends neither on its tile nor on those
// beside it, so that threads may share resamples out as they like, and the results are the same to the bit.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "random.hpp"

namespace rlp::bootstrap {

// Resamples in a tile: their counts fit a cache line a run, and their running sums the registers.
constexpr std::size_t kTile = 8;

// Two resamples: what every 64-bit machine of today adds at a time. Compilers do not find this by themselves here.
using Pair = double __attribute__((vector_size(16)));

// Blocks of the generator that are made side by side: enough for the compiler to use vectors.
constexpr std::size_t kBlocks = 8;

// body(first, lanes) over the tiles of [0, R): resamples first to first + lanes - 1, lanes <= kTile.
template <typename Body>
void for_tiles(std::size_t R, Body&& body) {
  for (std::size_t first = 0; first < R; first += kTile) body(first, std::min(kTile, R - first));
}

// What stream.uniform(out, n) draws, and up to 2 kBlocks - 1 numbers more, about twice as fast.
inline void uniform(const Stream& stream, std::uint64_t n, double* out) {
  for (std::uint64_t done = 0; 2 * done < n; done += kBlocks) {
    std::uint32_t word[4][kBlocks];
    philox(stream.key, stream.counter + done, word);
    for (std::size_t b = 0; b < kBlocks; ++b) {
      out[2 * (done + b)] = to_unit(word[0][b], word[1][b]);
      out[2 * (done + b) + 1] = to_unit(word[2][b], word[3][b]);
    }
  }
}

// counts [N, R] of resamples that draw draws[t] runs of each stratum t, with replacement.
//
// Draw i of resample r is floor(u n), where n is the size of its stratum and u is number r D + i of the stream's doubles in [0, 1),
// two a block, and D the sum of `draws`; draws are in order of strata. So resamples do not depend on how many are asked for.
inline void resample(const Stream& stream, std::span<const std::int64_t> starts, std::span<const std::int64_t> draws,
                     std::size_t R, double* counts) {
  const std::size_t T = draws.size(), N = static_cast<std::size_t>(starts[T]);
  std::uint64_t D = 0;
  for (const std::int64_t some : draws) D += static_cast<std::uint64_t>(some);

  std::vector<double> tile(N * kTile), numbers(D + 2 * kBlocks + 1);
  for_tiles(R, [&](std::size_t first, std::size_t lanes) {
    std::fill(tile.begin(), tile.end(), 0.0);
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      const std::uint64_t begin = (first + lane) * D;
      uniform({stream.key, stream.counter + begin / 2}, D + begin % 2, numbers.data());
      const double* u = numbers.data() + begin % 2;  // an odd number is the second of its block
      for (std::size_t t = 0; t < T; ++t) {
        const auto size = static_cast<double>(starts[t + 1] - starts[t]);
        double* const stratum = tile.data() + static_cast<std::size_t>(starts[t]) * kTile + lane;
        for (std::int64_t i = 0; i < draws[t]; ++i)
          stratum[static_cast<std::ptrdiff_t>(*u++ * size) * static_cast<std::ptrdiff_t>(kTile)] += 1.0;
      }
    }
    for (std::size_t run = 0; run < N; ++run) std::copy_n(tile.data() + run * kTile, lanes, counts + run * R + first);
  });
}

// out[p, t, r] = sum over the runs of stratum t of counts[run, r] * value[p, run], added up in the order of the runs:
// counts [N, R], value [P, N], out [P, T, R].
inline void stratum_sums(const double* counts, std::span<const std::int64_t> starts, const double* value, std::size_t P,
                         std::size_t R, double* out) {
  const std::size_t T = starts.size() - 1, N = static_cast<std::size_t>(starts[T]);
  std::vector<double> tile(N * kTile);  // its rows lie together: those of `counts` would evict each other from the cache
  for_tiles(R, [&](std::size_t first, std::size_t lanes) {
    for (std::size_t run = 0; run < N; ++run) std::copy_n(counts + run * R + first, lanes, tile.data() + run * kTile);
    for (std::size_t p = 0; p < P; ++p)
      for (std::size_t t = 0; t < T; ++t) {
        double sum[kTile] = {};
        for (auto run = static_cast<std::size_t>(starts[t]); run < static_cast<std::size_t>(starts[t + 1]); ++run)
          for (std::size_t lane = 0; lane < kTile; ++lane) sum[lane] += tile[run * kTile + lane] * value[p * N + run];
        std::copy_n(sum, lanes, out + (p * T + t) * R + first);
      }
  });
}

// out[p, r]: the mean of what lies between `low` and `high` of resample r's weight, when its runs are laid end to end by value.
// counts [N, R], weight [N] of one draw of a run; order and value [P, N]: run order[p, j] is the j-th from below at point p and
// has value[p, j]. A run that straddles an end counts in part. Requires 0 <= low < high <= the weight of every resample.
inline void trimmed_means(const double* counts, const double* weight, const std::int64_t* order, const double* value,
                          std::size_t N, std::size_t P, std::size_t R, double low, double high, double* out) {
  constexpr std::size_t kPairs = kTile / 2;
  const Pair bottom = Pair{} + low, top = Pair{} + high;
  std::vector<double> tile(N * kTile);  // weight drawn of each run
  for_tiles(R, [&](std::size_t first, std::size_t lanes) {
    for (std::size_t run = 0; run < N; ++run)
      for (std::size_t lane = 0; lane < lanes; ++lane)
        tile[run * kTile + lane] = counts[run * R + first + lane] * weight[run];
    for (std::size_t p = 0; p < P; ++p) {
      Pair up_to[kPairs] = {}, before[kPairs], sum[kPairs] = {};  // in registers
      for (Pair& pair : before) pair = bottom;
      for (std::size_t j = 0; j < N; ++j) {
        const double* const drawn = tile.data() + static_cast<std::size_t>(order[p * N + j]) * kTile;
        const Pair x = Pair{} + value[p * N + j];
        for (std::size_t m = 0; m < kPairs; ++m) {
          up_to[m] += Pair{drawn[2 * m], drawn[2 * m + 1]};
          Pair now = up_to[m] > bottom ? up_to[m] : bottom;
          now = now < top ? now : top;
          sum[m] += (now - before[m]) * x;
          before[m] = now;
        }
      }
      for (std::size_t lane = 0; lane < lanes; ++lane) out[p * R + first + lane] = sum[lane / 2][lane % 2] / (high - low);
    }
  });
}

}  // namespace rlp::bootstrap
