#pragma once
// The part of PPO's loss that no distribution over actions is in: the clipped surrogate and the value loss of a minibatch, with
// their gradients (Schulman et al. 2017, arXiv:1707.06347, Eq. 7; the value loss clipped as in its authors' code). And all of it, from
// the logits on (Eq. 9), where actions are discrete.
//
// One pass instead of some sixty tensor operations, forward and backward, on a few hundred numbers each, which cost more to call
// than to compute. In double; rounded once.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace rlp {

struct ClippedLossOptions {
  double clip;                // of the ratio, and of the value's change
  double max_log_ratio;       // > 0: the ratio is not clipped, its logarithm kept within this; 0: clipped
  bool clip_value;            // the worse of V and of V kept within `clip` of what it was
  bool normalize_advantage;   // to mean 0 and the standard deviation 1 of a sample
};

struct Transitions {  // n of each
  const float* old_log_prob;
  const float* old_value;
  const float* advantage;
  const float* target;
};

struct ClippedLoss {
  double policy;  // mean of -min(r A, clip(r) A)
  double value;   // half of the mean squared error
};

struct Moments {
  double mean, divisor;
};

inline Moments moments_of(const float* x, std::size_t n) noexcept {
  double sum = 0.0, squares = 0.0;
  for (std::size_t i = 0; i < n; ++i) sum += x[i];
  const double mean = sum / static_cast<double>(n);
  for (std::size_t i = 0; i < n; ++i) squares += (x[i] - mean) * (x[i] - mean);
  return {mean, std::sqrt(squares / static_cast<double>(n - 1)) + 1e-8};
}

// The losses, and their gradients by log_prob and value, [n] each; n >= 1, and >= 2 where advantages are normalised.
inline ClippedLoss clipped_loss(const float* log_prob, const float* value, const Transitions& x, std::size_t n,
                                const ClippedLossOptions& options, float* by_log_prob, float* by_value) noexcept {
  const Moments moments = options.normalize_advantage ? moments_of(x.advantage, n) : Moments{0.0, 1.0};
  const double share = 1.0 / static_cast<double>(n);
  double surrogate = 0.0, error = 0.0;
  for (std::size_t i = 0; i < n; ++i) {
    const double advantage = (x.advantage[i] - moments.mean) / moments.divisor;
    const double log_ratio = static_cast<double>(log_prob[i]) - x.old_log_prob[i];
    double gain, slope;
    if (options.max_log_ratio > 0.0) {
      gain = std::exp(std::clamp(log_ratio, -options.max_log_ratio, options.max_log_ratio)) * advantage;
      slope = std::abs(log_ratio) <= options.max_log_ratio ? gain : 0.0;
    } else {
      const double ratio = std::exp(log_ratio), free = ratio * advantage;
      gain = std::min(free, std::clamp(ratio, 1.0 - options.clip, 1.0 + options.clip) * advantage);
      slope = free <= gain ? free : 0.0;  // where the clipped one is less, it does not move
    }
    surrogate += gain;
    by_log_prob[i] = static_cast<float>(-slope * share);

    const double off = static_cast<double>(value[i]) - x.target[i], moved = static_cast<double>(value[i]) - x.old_value[i];
    double worst = off, follows = 1.0;
    if (options.clip_value && std::abs(moved) > options.clip) {
      const double near = x.old_value[i] + std::copysign(options.clip, moved) - x.target[i];
      if (std::abs(near) > std::abs(off)) worst = near, follows = 0.0;
    }
    error += worst * worst;
    by_value[i] = static_cast<float>(follows * worst * share);
  }
  return {-surrogate * share, 0.5 * error * share};
}

struct CategoricalLoss {
  double total;  // policy + value_weight * value - entropy_weight * entropy
  ClippedLoss parts;
  double entropy;  // mean
};

// All of PPO's loss where actions are one of `actions`, from logits [n, actions] and the actions taken, each within their number:
// log-probabilities, the two losses above, the mean entropy, and the gradients of `total` by logits and by value. Writes log_softmax
// of the logits, and of the actions taken their log-probabilities, [n].
inline CategoricalLoss categorical_loss(const float* logits, std::size_t actions, const std::int64_t* action, const float* value,
                                        const Transitions& x, std::size_t n, const ClippedLossOptions& options, double value_weight,
                                        double entropy_weight, float* log_softmax, float* log_prob, float* by_logits,
                                        float* by_value) {
  std::vector<double> entropy(n);
  for (std::size_t i = 0; i < n; ++i) {
    const float* row = logits + i * actions;
    float* logs = log_softmax + i * actions;
    double most = row[0], sum = 0.0;
    for (std::size_t k = 1; k < actions; ++k) most = std::max(most, static_cast<double>(row[k]));
    for (std::size_t k = 0; k < actions; ++k) sum += std::exp(row[k] - most);
    const double normalizer = most + std::log(sum);
    for (std::size_t k = 0; k < actions; ++k) {
      const double log_p = row[k] - normalizer, p = std::exp(log_p);
      logs[k] = static_cast<float>(log_p);
      by_logits[i * actions + k] = static_cast<float>(p);
      entropy[i] -= p * log_p;
    }
    log_prob[i] = logs[action[i]];
  }
  std::vector<float> by_log_prob(n);
  const ClippedLoss parts = clipped_loss(log_prob, value, x, n, options, by_log_prob.data(), by_value);
  const double share = 1.0 / static_cast<double>(n);
  double mean = 0.0;
  for (std::size_t i = 0; i < n; ++i) {
    mean += entropy[i] * share;
    by_value[i] = static_cast<float>(value_weight * by_value[i]);
    for (std::size_t k = 0; k < actions; ++k) {
      const std::size_t at = i * actions + k;
      const double p = by_logits[at], taken = static_cast<std::size_t>(action[i]) == k ? 1.0 : 0.0;
      // p log p is 0 where p is, which the logarithm may be too far down to say.
      const double towards_even = p > 0.0 ? p * (log_softmax[at] + entropy[i]) : p;
      by_logits[at] = static_cast<float>(by_log_prob[i] * (taken - p) + entropy_weight * share * towards_even);
    }
  }
  return {parts.policy + value_weight * parts.value - entropy_weight * mean, parts, mean};
}

}  // namespace rlp
