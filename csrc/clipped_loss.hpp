#pragma once
// The part of PPO's loss that no distribution over actions is in: the clipped surrogate and the value loss of a minibatch, with
// their gradients (Schulman et al. 2017, arXiv:1707.06347, Eq. 7; the value loss clipped as in its authors' code).
//
// One pass instead of some sixty tensor operations, forward and backward, on a few hundred numbers each, which cost more to call
// than to compute. In double; rounded once.

#include <algorithm>
#include <cmath>
#include <cstddef>

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

}  // namespace rlp
