#include "returns.hpp"

#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <vector>

#include "check.hpp"
#include "random.hpp"

namespace {

using rlp::VTrace;

struct Rollout {
  std::size_t T, B;
  std::vector<float> value, reward, discount, rho;

  Rollout(std::size_t T_, std::size_t B_)
      : T(T_), B(B_), value((T + 1) * B), reward(T * B), discount(T * B, 0.97f), rho(T * B) {
    rlp::Stream stream{42, 0};
    stream.normal(value.data(), value.size());
    stream.normal(reward.data(), reward.size());
    stream.normal(rho.data(), rho.size());
    for (float& x : rho) x = std::exp(x);
    for (std::size_t i = 0; i < discount.size(); i += 7) discount[i] = 0.0f;
  }
};

// Equal as bits: NaN equals itself, and -0 is not 0.
bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

// The grid of cuda/returns.cuh: blocks of 64 threads, of which those past the end do nothing. `thread` runs one of them.
template <typename Thread>
void launch(std::size_t n, Thread thread) {
  constexpr std::size_t kBlock = 64;
  const std::size_t blocks = (n + kBlock - 1) / kBlock;
  for (std::size_t block = 0; block < blocks; ++block)
    for (std::size_t k = 0; k < kBlock; ++k) thread(block * kBlock + k);
}

// What the GPU's threads compute, each on its own, is what the CPU's rows compute, bit for bit, and ASan sees no access
// outside the arrays, whose sizes are exact.
void threads_equal_rows(std::size_t T, std::size_t B) {
  const Rollout x(T, B);
  const std::vector<float> unset(T * B, std::numeric_limits<float>::quiet_NaN());
  const float *v = x.value.data(), *r = x.reward.data(), *d = x.discount.data(), *p = x.rho.data();

  std::vector<float> rows = unset, threads = unset;
  rlp::gae(v, r, d, 0.9f, T, B, rows.data());
  launch(B, [&](std::size_t b) {
    if (b < B) rlp::gae_column(v, r, d, 0.9f, T, B, b, threads.data());
  });
  CHECK(same(rows, threads));

  for (const std::size_t n : {std::size_t{1}, std::size_t{3}, T + 1, std::numeric_limits<std::size_t>::max()}) {
    rows = threads = unset;
    rlp::n_step(v, r, d, n, T, B, rows.data());
    launch(T * B, [&](std::size_t i) {
      if (i < T * B) threads[i] = rlp::n_step_at(v, r, d, n, T, B, i / B, i % B);
    });
    CHECK(same(rows, threads));
    for (const float g : rows) CHECK(std::isfinite(g));
  }
  rlp::n_step(v, r, d, T + 1, T, B, threads.data());
  CHECK(same(rows, threads));  // the largest n there is does not overflow t + n

  for (const VTrace clip : {VTrace{}, VTrace{1.5f, 0.5f, 0.8f}}) {
    rows = threads = unset;
    rlp::vtrace(v, r, d, p, clip, T, B, rows.data());
    launch(B, [&](std::size_t b) {
      if (b < B) rlp::vtrace_column(v, r, d, p, clip, T, B, b, threads.data());
    });
    CHECK(same(rows, threads));
    for (const float target : rows) CHECK(std::isfinite(target));
  }
}

void clipping_keeps_nan() {
  CHECK(rlp::clip_above(2.0f, 1.0f) == 1.0f);
  CHECK(rlp::clip_above(0.5f, 1.0f) == 0.5f);
  CHECK(std::isnan(rlp::clip_above(std::nanf(""), 1.0f)));
}

}  // namespace

int main() {
  for (const std::size_t T : {0u, 1u, 2u, 9u})
    for (const std::size_t B : {0u, 1u, 31u, 32u, 33u, 63u, 64u, 65u, 511u, 512u, 513u}) threads_equal_rows(T, B);
  clipping_keeps_nan();
  return check::failures();
}
