#pragma once
// Returns as backward recursions over a rollout of T steps in B environments.
//
// All arrays are row-major float32. value is [T + 1, B]: V(x_0), ..., V(x_T), the last row being the bootstrap; every other
// input is [T, B]. discount[t, b] is gamma, or 0 where nothing follows step t: whatever lies behind such a step is
// multiplied by 0 and cannot leak across it. Where time ran out, the caller adds gamma V(true final state) to the reward
// and sets the discount to 0; this is the same number.
//
// The outputs, [T, B], may not alias an input. An empty rollout is no work. Nothing is allocated, nothing is locked.
//
// Each return is written once, as a step of its recursion. The CPU runs the steps row by row, so that the inner loop reads
// neighbouring addresses; the GPU gives one thread a column (cuda/returns.cuh) and runs *_column below. Both do the same
// operations in the same order and neither contracts a * b + c, so they agree to the bit.

#include <algorithm>
#include <cstddef>

#include "host_device.hpp"

namespace rlp {

// Columns that the CPU takes at a time, so that what is read again (corrections, the n rows ahead) is still in a near cache.
inline constexpr std::size_t kColumns = 512;

// min(x, bound) that passes NaN on: a ratio of policies that is not a number must be seen, not clipped.
RLP_HD inline float clip_above(float x, float bound) noexcept { return x > bound ? bound : x; }

// --- generalised advantage estimation (Schulman et al. 2016, Eq. 16) ------------------------------------------------------
//   delta_t = r_t + discount_t V(x_{t+1}) - V(x_t)
//   A_t     = delta_t + discount_t lambda A_{t+1},  A_T = 0

RLP_HD inline float gae_step(float value, float next_value, float reward, float discount, float lambda,
                             float next_advantage) noexcept {
  const float delta = reward + discount * next_value - value;
  return delta + discount * lambda * next_advantage;
}

RLP_HD inline void gae_column(const float* value, const float* reward, const float* discount, float lambda,
                              std::size_t T, std::size_t B, std::size_t b, float* advantage) noexcept {
  float next_value = value[T * B + b];
  float next_advantage = 0.0f;
  for (std::size_t t = T; t-- > 0;) {
    const std::size_t i = t * B + b;
    const float v = value[i];
    next_advantage = gae_step(v, next_value, reward[i], discount[i], lambda, next_advantage);
    advantage[i] = next_advantage;
    next_value = v;
  }
}

inline void gae(const float* value, const float* reward, const float* discount, float lambda, std::size_t T,
                std::size_t B, float* advantage) noexcept {
  if (T == 0 || B == 0) return;
  const std::size_t last = (T - 1) * B;
  for (std::size_t i = last; i < T * B; ++i)
    advantage[i] = gae_step(value[i], value[i + B], reward[i], discount[i], lambda, 0.0f);
  for (std::size_t row = last; row > 0; row -= B)
    for (std::size_t i = row - B; i < row; ++i)
      advantage[i] = gae_step(value[i], value[i + B], reward[i], discount[i], lambda, advantage[i + B]);
}

// --- n-step returns (Sutton and Barto 2018, Eq. 7.1) ----------------------------------------------------------------------
//   G_t = r_t + discount_t (r_{t+1} + discount_{t+1} (... V(x_{t+m}))),  m = min(n, T - t), n >= 1

RLP_HD inline float n_step_at(const float* value, const float* reward, const float* discount, std::size_t n,
                              std::size_t T, std::size_t B, std::size_t t, std::size_t b) noexcept {
  const std::size_t end = n < T - t ? t + n : T;
  float result = value[end * B + b];
  for (std::size_t s = end; s-- > t;) result = reward[s * B + b] + discount[s * B + b] * result;
  return result;
}

inline void n_step(const float* value, const float* reward, const float* discount, std::size_t n, std::size_t T,
                   std::size_t B, float* result) noexcept {
  for (std::size_t b0 = 0; b0 < B; b0 += kColumns) {
    const std::size_t width = std::min(kColumns, B - b0);
    for (std::size_t t = 0; t < T; ++t) {
      const std::size_t end = n < T - t ? t + n : T;
      float* out = result + t * B + b0;
      std::copy_n(value + end * B + b0, width, out);
      for (std::size_t s = end; s-- > t;) {
        const float* r = reward + s * B + b0;
        const float* d = discount + s * B + b0;
        for (std::size_t k = 0; k < width; ++k) out[k] = r[k] + d[k] * out[k];
      }
    }
  }
}

// --- V-trace (Espeholt et al. 2018, Eq. 1 and Remarks 1 and 2) ------------------------------------------------------------
//   delta_t = min(rho_t, rho_bar) (r_t + discount_t V(x_{t+1}) - V(x_t))
//   v_t - V(x_t) = delta_t + discount_t lambda min(rho_t, c_bar) (v_{t+1} - V(x_{t+1})),  v_T = V(x_T)

struct VTrace {
  float rho_bar = 1.0f;  // decides which policy's values are the fixed point
  float c_bar = 1.0f;    // decides how fast it is approached
  float lambda = 1.0f;
};

// One step of v_t - V(x_t).
RLP_HD inline float vtrace_step(float value, float next_value, float reward, float discount, float rho, VTrace clip,
                                float next_correction) noexcept {
  const float delta = clip_above(rho, clip.rho_bar) * (reward + discount * next_value - value);
  return delta + discount * (clip.lambda * clip_above(rho, clip.c_bar)) * next_correction;
}

RLP_HD inline void vtrace_column(const float* value, const float* reward, const float* discount, const float* rho,
                                 VTrace clip, std::size_t T, std::size_t B, std::size_t b, float* target) noexcept {
  float next_value = value[T * B + b];
  float correction = 0.0f;
  for (std::size_t t = T; t-- > 0;) {
    const std::size_t i = t * B + b;
    const float v = value[i];
    correction = vtrace_step(v, next_value, reward[i], discount[i], rho[i], clip, correction);
    target[i] = v + correction;
    next_value = v;
  }
}

inline void vtrace(const float* value, const float* reward, const float* discount, const float* rho, VTrace clip,
                   std::size_t T, std::size_t B, float* target) noexcept {
  float correction[kColumns];
  for (std::size_t b0 = 0; b0 < B; b0 += kColumns) {
    const std::size_t width = std::min(kColumns, B - b0);
    std::fill_n(correction, width, 0.0f);
    for (std::size_t t = T; t-- > 0;)
      for (std::size_t k = 0; k < width; ++k) {
        const std::size_t i = t * B + b0 + k;
        correction[k] = vtrace_step(value[i], value[i + B], reward[i], discount[i], rho[i], clip, correction[k]);
        target[i] = value[i] + correction[k];
      }
  }
}

}  // namespace rlp
