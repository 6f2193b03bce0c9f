#pragma once
// A tree of sums over n leaves: O(log n) update, O(log n) draw in proportion to the leaves.

#include <bit>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "huge_pages.hpp"

namespace rlp {

// Sums in pairs, as of a binary tree: a node is the sum of its two children, to the bit. Only every third level of that
// tree is in memory: eight values that lie side by side, a cache line, have the two levels above them computed where
// they are read. So a draw among a million leaves waits for seven lines, not for twenty, and the last few are all that
// is not in a near cache.
//
// Not thread safe: the replay that owns a tree holds its own lock.
class SumTree {
 public:
  // All leaves start at 0. O(n); 9.2 bytes a leaf.
  explicit SumTree(std::size_t leaves) : leaves_(leaves) {
    std::size_t lines = leaves, end = 0;
    do {
      lines = (lines + kWide - 1) / kWide;
      first_.push_back(end);
      end += lines;
    } while (lines > 1);
    line_.resize(end);
  }

  // Leaf i becomes `value`, which must be finite and >= 0. O(log n).
  // Each inner node is summed anew from its two children, never adjusted by a difference: rounding errors do not pile
  // up, and the tree is a pure function of its leaves, whatever the order in which they were set.
  void set(std::size_t i, double value) noexcept { set(&i, &value, 1); }

  // set() of n leaves; where a leaf comes twice, the last value stays. Level by level, so that the cache misses of
  // different leaves overlap.
  void set(const std::size_t* leaf, const double* value, std::size_t n) noexcept {
    for (std::size_t j = 0; j < n; ++j) {
      assert(leaf[j] < leaves_ && value[j] >= 0.0);
      line_[leaf[j] / kWide].value[leaf[j] % kWide] = value[j];
    }
    for (std::size_t level = 1; level < first_.size(); ++level)
      for (std::size_t j = 0; j < n; ++j) sum_up(level, leaf[j] >> (kBits * level));
  }

  // For each u in [0, 1], the leaf whose half-open interval of cumulative sums holds u * total(). Needs total() > 0.
  // Never a leaf of value 0, even where rounding puts u * total() at the very end. O(n log leaves).
  void find(const double* u, std::int64_t* leaf, std::size_t n) const noexcept {
    assert(total() > 0.0);
    std::size_t j = 0;
    for (; j + kAbreast <= n; j += kAbreast)
      if (!descend<kAbreast / 2>(u + j, leaf + j)) break;
    for (; j < n; ++j) leaf[j] = descend_carefully(u[j]);
  }

  // All leaves at once: value[i] for i < size(). O(n).
  void assign(const double* value) noexcept {
    for (std::size_t i = 0; i < leaves_; ++i) line_[i / kWide].value[i % kWide] = value[i];
    for (std::size_t level = 1; level < first_.size(); ++level)
      for (std::size_t node = 0; node < first_[level] - first_[level - 1]; ++node) sum_up(level, node);
  }

  [[nodiscard]] double operator[](std::size_t i) const noexcept { return line_[i / kWide].value[i % kWide]; }
  [[nodiscard]] double total() const noexcept { return sum(line_.back()); }
  [[nodiscard]] std::size_t size() const noexcept { return leaves_; }
  [[nodiscard]] std::size_t bytes() const noexcept { return line_.size() * sizeof(Line); }

 private:
  static constexpr unsigned kBits = 3;
  static constexpr std::size_t kWide = std::size_t{1} << kBits;
  static constexpr std::size_t kAbreast = 32;  // draws that go down together, so that their cache misses overlap

  struct alignas(64) Line {
    double value[kWide] = {};
  };

  // Of 1, 2, 4 or 8 values, in pairs.
  static double sum_of(const double* x, std::size_t n) noexcept {
    return n == 1 ? *x : sum_of(x, n / 2) + sum_of(x + n / 2, n / 2);
  }
  static double sum(const Line& line) noexcept { return sum_of(line.value, kWide); }

  // Node of a level above the leaves: what the line below it adds up to.
  void sum_up(std::size_t level, std::size_t node) noexcept {
    line_[first_[level] + node / kWide].value[node % kWide] = sum(line_[first_[level - 1] + node]);
  }

  // Two draws side by side, in one register.
  using Pair = double __attribute__((vector_size(16)));
  using Mask = std::int64_t __attribute__((vector_size(16)));

  static Pair load(const double* x) noexcept {
    Pair pair;
    std::memcpy(&pair, x, sizeof pair);
    return pair;
  }

  static Pair either(Mask mask, Pair yes, Pair no) noexcept {
    return std::bit_cast<Pair>((std::bit_cast<Mask>(yes) & mask) | (std::bit_cast<Mask>(no) & ~mask));
  }

  // One step down the binary tree: -1 where a draw goes to the right, and `rest` is then less by the sum on the left.
  // Without branches: which child a draw goes to is a coin toss that no predictor learns.
  static Mask step(Pair& rest, Pair left) noexcept {
    const Mask go = rest >= left;
    rest -= std::bit_cast<Pair>(std::bit_cast<Mask>(left) & go);
    return go;
  }

  // find() of 2 W draws; false where rounding led one of them to a sum of 0, which has nothing to find.
  template <std::size_t W>
  bool descend(const double* u, std::int64_t* leaf) const noexcept {
    Pair rest[W];
    Mask node[W];  // of the level above: the line that is looked at
    for (std::size_t i = 0; i < W; ++i) {
      assert(0.0 <= u[2 * i] && u[2 * i] <= 1.0 && 0.0 <= u[2 * i + 1] && u[2 * i + 1] <= 1.0);
      rest[i] = load(u + 2 * i) * total();
      node[i] = Mask{0, 0};
    }
    for (std::size_t level = first_.size(); level-- > 0;) {
      const Line* const lines = line_.data() + first_[level];
      const Line* const below = line_.data() + first_[level ? level - 1 : 0];
      for (std::size_t i = 0; i < W; ++i) {
        const double* const a = lines[node[i][0]].value;
        const double* const b = lines[node[i][1]].value;
        Pair even[4], sum[4];
        for (std::size_t k = 0; k < 4; ++k) {
          const Pair of_a = load(a + 2 * k), of_b = load(b + 2 * k);
          even[k] = __builtin_shufflevector(of_a, of_b, 0, 2);
          sum[k] = even[k] + __builtin_shufflevector(of_a, of_b, 1, 3);
        }
        const Mask four = step(rest[i], sum[0] + sum[1]);
        const Mask two = step(rest[i], either(four, sum[2], sum[0]));
        const Mask one = step(rest[i], either(two, either(four, even[3], even[1]), either(four, even[2], even[0])));
        const Mask child = -((four << 2) + (two << 1) + one);
        if (a[child[0]] == 0.0 || b[child[1]] == 0.0) [[unlikely]] return false;
        node[i] = (node[i] << kBits) + child;
        if (level) {
          __builtin_prefetch(&below[node[i][0]]);
          __builtin_prefetch(&below[node[i][1]]);
        }
      }
    }
    std::memcpy(leaf, node, sizeof node);
    return true;
  }

  // find() of one draw that never goes to the right where nothing is.
  [[nodiscard]] std::int64_t descend_carefully(double u) const noexcept {
    double rest = u * total();
    std::size_t node = 0;
    for (std::size_t level = first_.size(); level-- > 0;) {
      const double* x = line_[first_[level] + node].value;
      node *= kWide;
      for (std::size_t half = kWide / 2; half > 0; half /= 2) {
        const double left = sum_of(x, half), right = sum_of(x + half, half);
        if (rest >= left && right > 0.0) rest -= left, x += half, node += half;
      }
    }
    return static_cast<std::int64_t>(node);
  }

  std::size_t leaves_;
  std::vector<std::size_t> first_;  // the first line of each level, leaves first
  std::vector<Line, HugePages<Line>> line_;  // of all levels; the last one is the root's
};

}  // namespace rlp
