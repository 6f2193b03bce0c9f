#pragma once
// The recursions of returns.hpp on the GPU: layouts, formulas and preconditions stand there.
//
// gae and vtrace: one thread owns one column and walks t backwards, so that neighbouring threads read neighbouring
// addresses, each array is read once, and the recursion stays in registers. n_step: one thread per element; its n rows come
// through the cache. Traffic in bytes: gae (4 T + 1) B 4, n_step (4 T + 1) B 4, vtrace (5 T + 1) B 4, and bandwidth is the
// bound where B fills the device; below some ten thousand columns it is latency.
//
// Each launcher enqueues on `stream` of the current device and returns at once with the launch's status; it allocates
// nothing and synchronises nothing, so that it can be captured into a graph. An empty rollout enqueues nothing.

#include <cuda_runtime.h>

#include <cstddef>

#include "returns.hpp"

namespace rlp::cuda {

inline constexpr unsigned kReturnsBlock = 64;  // small: a few thousand environments should still reach every multiprocessor

inline unsigned blocks_for(std::size_t n) noexcept {
  return static_cast<unsigned>((n + kReturnsBlock - 1) / kReturnsBlock);
}

inline __device__ std::size_t thread_number() {
  return static_cast<std::size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

static __global__ void gae_kernel(const float* __restrict__ value, const float* __restrict__ reward,
                                  const float* __restrict__ discount, float lambda, std::size_t T, std::size_t B,
                                  float* __restrict__ advantage) {
  const std::size_t b = thread_number();
  if (b < B) gae_column(value, reward, discount, lambda, T, B, b, advantage);
}

inline cudaError_t gae(const float* value, const float* reward, const float* discount, float lambda, std::size_t T,
                       std::size_t B, float* advantage, cudaStream_t stream) {
  if (T == 0 || B == 0) return cudaSuccess;
  gae_kernel<<<blocks_for(B), kReturnsBlock, 0, stream>>>(value, reward, discount, lambda, T, B, advantage);
  return cudaGetLastError();
}

static __global__ void n_step_kernel(const float* __restrict__ value, const float* __restrict__ reward,
                                     const float* __restrict__ discount, std::size_t n, std::size_t T, std::size_t B,
                                     float* __restrict__ result) {
  const std::size_t i = thread_number();
  if (i < T * B) result[i] = n_step_at(value, reward, discount, n, T, B, i / B, i % B);
}

inline cudaError_t n_step(const float* value, const float* reward, const float* discount, std::size_t n, std::size_t T,
                          std::size_t B, float* result, cudaStream_t stream) {
  if (T == 0 || B == 0) return cudaSuccess;
  n_step_kernel<<<blocks_for(T * B), kReturnsBlock, 0, stream>>>(value, reward, discount, n, T, B, result);
  return cudaGetLastError();
}

static __global__ void vtrace_kernel(const float* __restrict__ value, const float* __restrict__ reward,
                                     const float* __restrict__ discount, const float* __restrict__ rho, VTrace clip,
                                     std::size_t T, std::size_t B, float* __restrict__ target) {
  const std::size_t b = thread_number();
  if (b < B) vtrace_column(value, reward, discount, rho, clip, T, B, b, target);
}

inline cudaError_t vtrace(const float* value, const float* reward, const float* discount, const float* rho, VTrace clip,
                          std::size_t T, std::size_t B, float* target, cudaStream_t stream) {
  if (T == 0 || B == 0) return cudaSuccess;
  vtrace_kernel<<<blocks_for(B), kReturnsBlock, 0, stream>>>(value, reward, discount, rho, clip, T, B, target);
  return cudaGetLastError();
}

}  // namespace rlp::cuda
