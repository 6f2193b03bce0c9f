#pragma once
// The sum tree of sum_tree.hpp on the device: the same sums to the bit, since every inner node is the sum of its two children
// there and here, whatever the order in which leaves were set.

#include <cstddef>
#include <cstdint>

#include "cuda/launch.cuh"

namespace rlp::cuda {

// The leaf whose interval of cumulative sums holds `rest`, 0 <= rest <= tree[1]; never a leaf of value 0. One thread walks
// down alone: log2(base) loads that wait for each other, the upper ones from the cache that all draws share.
RLP_HD inline std::size_t find_leaf(const double* tree, std::int64_t base, double rest) noexcept {
  std::int64_t node = 1;
  while (node < base) {
    const double left = tree[2 * node];
    const bool right = rest >= left && tree[2 * node + 1] > 0.0;
    rest = right ? rest - left : rest;
    node = 2 * node + right;
  }
  return static_cast<std::size_t>(node - base);
}

// Sums the ancestors of given leaves anew: phase p does those p + 1 levels up. leaf[j] is a node, or 0 for none.
//
// Leaves that share an ancestor would all write it, with the same value; where they are neighbours in the list the first does
// it for all, so that a run of L neighbouring leaves costs about 2 L sums and not L log(base). In the worst case
// n log2(base) sums of 24 bytes each; for the 32 to 256 leaves of a batch the bound is not these bytes, but the wait of one
// level for the other.
struct SumAncestors {
  double* tree;
  const std::int64_t* leaf;

  RLP_HD void operator()(unsigned phase, std::size_t j) const noexcept {
    const std::int64_t node = leaf[j] >> (phase + 1);
    if (node == 0 || (j > 0 && leaf[j - 1] >> (phase + 1) == node)) return;
    tree[node] = tree[2 * node] + tree[2 * node + 1];
  }
};

RLP_HD inline unsigned levels_above(std::int64_t base) noexcept {
  unsigned levels = 0;
  while (std::int64_t{1} << levels < base) ++levels;
  return levels;
}

}  // namespace rlp::cuda
