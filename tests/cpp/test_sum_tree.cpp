// SumTree against sums and searches written out.

#include <algorithm>

#include "check.hpp"
#include "random.hpp"
#include "sum_tree.hpp"

namespace {

std::int64_t find_one(const rlp::SumTree& tree, double u) {
  std::int64_t leaf = -1;
  tree.find(&u, &leaf, 1);
  return leaf;
}

// An edge belongs to the leaf that begins there; leaves of 0 are never found.
void edges() {
  rlp::SumTree tree(6);
  const double value[] = {0.0, 1.0, 0.0, 2.0, 1.0, 0.0};
  for (std::size_t i = 0; i < 6; ++i) tree.set(i, value[i]);
  CHECK(tree.total() == 4.0);
  CHECK(find_one(tree, 0.0) == 1);
  CHECK(find_one(tree, 0.2499) == 1);
  CHECK(find_one(tree, 0.25) == 3);
  CHECK(find_one(tree, 0.7499) == 3);
  CHECK(find_one(tree, 0.75) == 4);
  CHECK(find_one(tree, 1.0) == 4);
}

// Likewise of as many draws as go down together.
void edges_abreast() {
  rlp::SumTree tree(64);
  double u[64];
  std::int64_t leaf[64];
  for (std::size_t i = 0; i < 64; ++i) tree.set(i, 1.0), u[i] = static_cast<double>(i) / 64.0;
  tree.find(u, leaf, 64);
  for (std::int64_t i = 0; i < 64; ++i) CHECK(leaf[i] == i);
}

void one_leaf() {
  rlp::SumTree tree(1);
  tree.set(0, 0.5);
  CHECK(tree.size() == 1 && tree.total() == 0.5);
  CHECK(find_one(tree, 0.0) == 0 && find_one(tree, 1.0) == 0);
}

// Sums that rounding makes larger than what lies under them must not lead to an empty leaf.
void rounding_at_the_end() {
  rlp::Stream stream{1, 0};
  for (int trial = 0; trial < 3000; ++trial) {
    const std::size_t leaves = 2 + stream.below(30);
    rlp::SumTree tree(leaves);
    for (std::size_t i = 0; i < leaves; ++i)
      if (stream.below(3)) tree.set(i, std::ldexp(stream.uniform(), static_cast<int>(stream.below(60)) - 30));
    if (!(tree.total() > 0.0)) continue;
    for (const double u : {0.0, 0.5, 1.0 - 0x1.0p-53, 1.0, stream.uniform()}) {
      const auto leaf = find_one(tree, u);
      CHECK(leaf >= 0 && static_cast<std::size_t>(leaf) < leaves && tree[static_cast<std::size_t>(leaf)] > 0.0);
    }
  }
}

// The tree is a function of its leaves: one by one, many at once with repeats, or all at once give the same bits.
void many_ways_to_the_same_tree() {
  rlp::Stream stream{2, 0};
  for (int trial = 0; trial < 300; ++trial) {
    const std::size_t leaves = 1 + stream.below(trial % 2 ? 40 : 600);
    rlp::SumTree one(leaves), many(leaves), all(leaves);
    std::vector<double> last(leaves, 0.0);
    for (int round = 0; round < 4; ++round) {
      std::vector<std::size_t> leaf(stream.below(20));
      std::vector<double> value(leaf.size());
      for (std::size_t j = 0; j < leaf.size(); ++j) {
        leaf[j] = stream.below(static_cast<std::uint32_t>(leaves));
        value[j] = last[leaf[j]] = stream.below(4) ? stream.uniform() : 0.0;
        one.set(leaf[j], value[j]);
      }
      many.set(leaf.data(), value.data(), leaf.size());
      all.assign(last.data());
      double sum = 0.0;
      for (std::size_t i = 0; i < leaves; ++i) {
        CHECK(one[i] == last[i] && many[i] == last[i] && all[i] == last[i]);
        sum += last[i];
      }
      CHECK(one.total() == many.total() && one.total() == all.total());
      CHECK(std::abs(one.total() - sum) <= 1e-14 * sum);
    }
  }
}

// No drift: after a million changes the total is what summing anew gives, to the bit.
void no_drift() {
  rlp::Stream stream{3, 0};
  rlp::SumTree tree(64);
  for (int change = 0; change < 1'000'000; ++change)
    tree.set(stream.below(64), std::ldexp(stream.uniform(), static_cast<int>(stream.below(40))));
  std::vector<double> leaf(64);
  for (std::size_t i = 0; i < 64; ++i) leaf[i] = tree[i];
  rlp::SumTree fresh(64);
  fresh.assign(leaf.data());
  CHECK(tree.total() == fresh.total());
}

// find() of many is find() of each, and agrees with a search along the sums of integers, which are exact.
void find_is_a_search_along_the_sums() {
  rlp::Stream stream{4, 0};
  for (int trial = 0; trial < 300; ++trial) {
    const std::size_t leaves = 1 + stream.below(trial % 2 ? 50 : 1000);
    rlp::SumTree tree(leaves);
    std::vector<double> upper(leaves);
    double sum = 0.0;
    for (std::size_t i = 0; i < leaves; ++i) {
      const double value = stream.below(4);
      tree.set(i, value);
      upper[i] = sum += value;
    }
    if (!(sum > 0.0)) continue;
    std::vector<double> u(81), scratch;
    for (double& x : u) x = stream.uniform();
    std::vector<std::int64_t> leaf(81);
    scratch = u;
    tree.find(scratch.data(), leaf.data(), 81);
    for (std::size_t j = 0; j < 81; ++j) {
      std::size_t expected = 0;
      while (!(u[j] * sum < upper[expected])) ++expected;
      CHECK(leaf[j] == static_cast<std::int64_t>(expected));
      CHECK(leaf[j] == find_one(tree, u[j]));
    }
  }
}

// Sums in pairs and the way down them, written out: each level of a binary tree in memory.
struct BinaryTree {
  std::vector<double> sum;
  std::size_t base = 1;

  explicit BinaryTree(const std::vector<double>& value) {
    while (base < value.size()) base *= 2;
    sum.assign(2 * base, 0.0);
    std::copy(value.begin(), value.end(), sum.begin() + static_cast<std::ptrdiff_t>(base));
    for (std::size_t node = base - 1; node >= 1; --node) sum[node] = sum[2 * node] + sum[2 * node + 1];
  }

  [[nodiscard]] std::int64_t find(double u) const {
    double rest = u * sum[1];
    std::size_t node = 1;
    while (node < base) {
      node *= 2;
      if (rest >= sum[node] && sum[node + 1] > 0.0) rest -= sum[node], ++node;
    }
    return static_cast<std::int64_t>(node - base);
  }
};

// Any number of leaves and draws, values of all sizes, many of them 0, draws at both ends: sums and leaves to the bit. The
// last trees are large enough for large pages.
void the_same_bits_as_a_binary_tree() {
  rlp::Stream stream{5, 0};
  std::size_t at_the_end = 0;
  for (int trial = 0; trial < 400; ++trial) {
    const std::size_t leaves = trial < 398 ? 1 + stream.below(trial % 2 ? 70 : 5000) : 300'000;
    const std::uint32_t zeros = stream.below(3);
    std::vector<double> value(leaves);
    for (double& x : value)
      x = stream.below(4) < zeros ? 0.0 : std::ldexp(stream.uniform(), static_cast<int>(stream.below(60)) - 30);
    rlp::SumTree tree(leaves);
    tree.assign(value.data());
    const BinaryTree binary(value);
    CHECK(tree.total() == binary.sum[1]);
    if (!(tree.total() > 0.0)) continue;
    std::vector<double> u(stream.below(100));
    for (double& x : u) {
      const auto kind = stream.below(100);
      x = kind == 0 ? 1.0 : kind == 1 ? 0.0 : kind == 2 ? 1.0 - 0x1.0p-53 : stream.uniform();
      at_the_end += x == 1.0;
    }
    std::vector<std::int64_t> leaf(u.size());
    tree.find(u.data(), leaf.data(), u.size());
    for (std::size_t j = 0; j < u.size(); ++j) CHECK(leaf[j] == binary.find(u[j]));
  }
  CHECK(at_the_end > 100);
}

}  // namespace

int main() {
  edges();
  edges_abreast();
  one_leaf();
  rounding_at_the_end();
  many_ways_to_the_same_tree();
  no_drift();
  find_is_a_search_along_the_sums();
  the_same_bits_as_a_binary_tree();
  return check::failures();
}
