// The gradients against finite differences of the losses, at the smallest sizes and with every option; memory exactly as large as it must be.

#include "clipped_loss.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "check.hpp"
#include "random.hpp"

namespace {

using Floats = std::vector<float>;

struct Case {
  Floats log_prob, value, old_log_prob, old_value, advantage, target;

  explicit Case(std::size_t n)
      : log_prob(n), value(n), old_log_prob(n), old_value(n), advantage(n), target(n) {
    rlp::Stream stream{7, n};
    for (Floats* x : {&log_prob, &value, &old_log_prob, &old_value, &advantage, &target}) stream.normal(x->data(), n);
  }

  rlp::ClippedLoss loss(const rlp::ClippedLossOptions& options, Floats& by_log_prob, Floats& by_value) const {
    const rlp::Transitions x{old_log_prob.data(), old_value.data(), advantage.data(), target.data()};
    return rlp::clipped_loss(log_prob.data(), value.data(), x, log_prob.size(), options, by_log_prob.data(), by_value.data());
  }
};

// d loss / d x[i] by central differences: the losses have corners, but none within 1e-3 of these numbers.
template <typename Loss>
double slope(Floats& x, std::size_t i, Loss loss) {
  const float at = x[i], step = 1e-3f;
  x[i] = at + step;
  const double above = loss(), wide = x[i];
  x[i] = at - step;
  const double below = loss(), by = wide - x[i];
  x[i] = at;
  return (above - below) / by;
}

void gradients_are_those_of_the_losses(std::size_t n, const rlp::ClippedLossOptions& options) {
  Case c(n);
  Floats by_log_prob(n), by_value(n), unused(n), unused_too(n);
  c.loss(options, by_log_prob, by_value);
  for (std::size_t i = 0; i < n; ++i) {
    const double policy = slope(c.log_prob, i, [&] { return c.loss(options, unused, unused_too).policy; });
    const double value = slope(c.value, i, [&] { return c.loss(options, unused, unused_too).value; });
    CHECK(std::abs(policy - by_log_prob[i]) < 1e-5 + 1e-4 * std::abs(policy));
    CHECK(std::abs(value - by_value[i]) < 1e-5 + 1e-4 * std::abs(value));
  }
}

void gradients_of_the_total_are_those_of_the_total(std::size_t n, std::size_t actions, const rlp::ClippedLossOptions& options) {
  Case c(n);
  Floats logits(n * actions), logs(n * actions), log_prob(n), by_logits(n * actions), by_value(n);
  rlp::Stream{8, n}.normal(logits.data(), logits.size());
  std::vector<std::int64_t> action(n);
  for (std::size_t i = 0; i < n; ++i) action[i] = static_cast<std::int64_t>(i % actions);
  const auto total = [&](Floats& to_logits, Floats& to_value) {
    const rlp::Transitions x{c.old_log_prob.data(), c.old_value.data(), c.advantage.data(), c.target.data()};
    return rlp::categorical_loss(logits.data(), actions, action.data(), c.value.data(), x, n, options, 0.7, 0.3, logs.data(),
                                 log_prob.data(), to_logits.data(), to_value.data());
  };
  const rlp::CategoricalLoss loss = total(by_logits, by_value);
  CHECK(std::abs(loss.total - (loss.parts.policy + 0.7 * loss.parts.value - 0.3 * loss.entropy)) < 1e-12);
  for (std::size_t i = 0; i < n; ++i) {
    double sum = 0.0;
    for (std::size_t k = 0; k < actions; ++k) sum += std::exp(static_cast<double>(logs[i * actions + k]));
    CHECK(std::abs(sum - 1.0) < 1e-6);
    CHECK(log_prob[i] == logs[i * actions + static_cast<std::size_t>(action[i])]);
  }
  Floats unused(n * actions), unused_too(n);
  for (std::size_t i = 0; i < by_logits.size(); ++i) {
    const double found = slope(logits, i, [&] { return total(unused, unused_too).total; });
    CHECK(std::abs(found - by_logits[i]) < 1e-3 + 1e-3 * std::abs(found));
  }
  for (std::size_t i = 0; i < n; ++i) {
    const double found = slope(c.value, i, [&] { return total(unused, unused_too).total; });
    CHECK(std::abs(found - by_value[i]) < 1e-3 + 1e-3 * std::abs(found));
  }
}

}  // namespace

int main() {
  for (const std::size_t n : {std::size_t{1}, std::size_t{2}, std::size_t{5}})
    for (const std::size_t actions : {std::size_t{1}, std::size_t{2}, std::size_t{6}})
      gradients_of_the_total_are_those_of_the_total(n, actions, {0.2, 0.0, true, n > 1});
  for (const std::size_t n : {std::size_t{1}, std::size_t{2}, std::size_t{3}, std::size_t{17}})
    for (const double most : {0.0, 1.0})
      for (const bool clip_value : {false, true})
        for (const bool normalize : {false, true})
          if (n > 1 || !normalize) gradients_are_those_of_the_losses(n, {0.2, most, clip_value, normalize});
  return check::failures();
}
