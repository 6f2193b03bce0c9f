#pragma once
// A binary tree of sums over n leaves: O(log n) update, O(log n) draw in proportion to the leaves.

#include <bit>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace rlp {

// Not thread safe: the replay that owns a tree holds its own lock.
class SumTree {
 public:
  // All leaves start at 0. O(n); 16 bytes a leaf, n rounded up to a power of two.
  explicit SumTree(std::size_t leaves) : base_(1), leaves_(leaves) {
    while (base_ < leaves) base_ *= 2, ++levels_;
    sum_.assign(2 * base_, 0.0);
  }

  // Leaf i becomes `value`, which must be finite and >= 0. O(log n).
  // Each inner node is summed anew from its two children, never adjusted by a difference: rounding errors do not pile
  // up, and the tree is a pure function of its leaves, whatever the order in which they were set.
  void set(std::size_t i, double value) noexcept {
    assert(i < leaves_ && value >= 0.0);
    std::size_t node = base_ + i;
    sum_[node] = value;
    while (node > 1) {
      node /= 2;
      sum_[node] = sum_[2 * node] + sum_[2 * node + 1];
    }
  }

  // set() of n leaves; where a leaf comes twice, the last value stays. Level by level, so that the cache misses of
  // different leaves overlap.
  void set(const std::size_t* leaf, const double* value, std::size_t n) noexcept {
    for (std::size_t j = 0; j < n; ++j) {
      assert(leaf[j] < leaves_ && value[j] >= 0.0);
      sum_[base_ + leaf[j]] = value[j];
    }
    for (unsigned level = 1; level <= levels_; ++level)
      for (std::size_t j = 0; j < n; ++j) {
        const std::size_t node = (base_ + leaf[j]) >> level;
        sum_[node] = sum_[2 * node] + sum_[2 * node + 1];
      }
  }

  // For each u in [0, 1], the leaf whose half-open interval of cumulative sums holds u * total(). Needs total() > 0.
  // Never a leaf of value 0, even where rounding puts u * total() at the very end. O(n log leaves).
  void find(const double* u, std::int64_t* leaf, std::size_t n) const noexcept {
    assert(total() > 0.0);
    std::size_t j = 0;
    for (; j + kAbreast <= n; j += kAbreast) descend<kAbreast>(u + j, leaf + j);
    for (; j < n; ++j) descend<1>(u + j, leaf + j);
  }

  // All leaves at once: value[i] for i < size(). O(n).
  void assign(const double* value) noexcept {
    for (std::size_t i = 0; i < leaves_; ++i) sum_[base_ + i] = value[i];
    for (std::size_t node = base_ - 1; node >= 1; --node) sum_[node] = sum_[2 * node] + sum_[2 * node + 1];
  }

  [[nodiscard]] double operator[](std::size_t i) const noexcept { return sum_[base_ + i]; }
  [[nodiscard]] double total() const noexcept { return sum_[1]; }
  [[nodiscard]] std::size_t size() const noexcept { return leaves_; }
  [[nodiscard]] std::size_t bytes() const noexcept { return sum_.size() * sizeof(double); }

 private:
  static constexpr std::size_t kAbreast = 16;  // draws that go down together, so that their cache misses overlap

  // find() of W draws. Without branches: which child a draw goes to is a coin toss that no predictor learns.
  template <std::size_t W>
  void descend(const double* u, std::int64_t* leaf) const noexcept {
    const double* const sum = sum_.data();
    double rest[W];
    std::size_t node[W];
    for (std::size_t i = 0; i < W; ++i) {
      assert(0.0 <= u[i] && u[i] <= 1.0);
      rest[i] = u[i] * total();
      node[i] = 1;
    }
    for (unsigned level = 0; level < levels_; ++level)
      for (std::size_t i = 0; i < W; ++i) {
        const double left = sum[2 * node[i]];
        const std::uint64_t right = std::uint64_t{rest[i] >= left} & std::uint64_t{sum[2 * node[i] + 1] > 0.0};
        rest[i] -= std::bit_cast<double>(std::bit_cast<std::uint64_t>(left) & (0 - right));
        node[i] = 2 * node[i] + right;
      }
    for (std::size_t i = 0; i < W; ++i) leaf[i] = static_cast<std::int64_t>(node[i] - base_);
  }

  std::size_t base_;         // index of leaf 0, a power of two
  std::size_t leaves_;
  unsigned levels_ = 0;      // log2(base_)
  std::vector<double> sum_;  // sum_[1] is the root; node k has the children 2k and 2k + 1
};

}  // namespace rlp
