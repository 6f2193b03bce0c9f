#pragma once
// Draws of a stream whose key and counter lie on the device, so that a captured graph draws anew at every launch.
//
// state [2]: key, counter. Thread b makes block counter + b, as Stream::normal and Stream::uniform of random.hpp do one after
// the other. Nobody writes `state` here: the caller moves the counter on once all have read it, by a launch of its own behind
// this one. Traffic: 4 n or 8 n bytes written; for the thousands of numbers of an update it is the launch that counts.
//
// uniform agrees with the CPU to the bit; normal to 1e-6, the rounding of log, cos and sin at |x| <= 5.77.
//
// Each launcher enqueues on `stream` of the current device and returns at once with the launch's status; it allocates
// nothing and synchronises nothing. No draws enqueue nothing.

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "random.hpp"

namespace rlp::cuda {

inline constexpr unsigned kRandomBlock = 128;

static __global__ void normal_kernel(const std::uint64_t* __restrict__ state, std::size_t n, float* __restrict__ out) {
  const std::size_t b = static_cast<std::size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (4 * b < n) normals_at(state[0], state[1] + b, n - 4 * b, out + 4 * b);
}

inline cudaError_t normal(const std::uint64_t* state, std::size_t n, float* out, cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  const std::size_t blocks = ((n + 3) / 4 + kRandomBlock - 1) / kRandomBlock;
  normal_kernel<<<static_cast<unsigned>(blocks), kRandomBlock, 0, stream>>>(state, n, out);
  return cudaGetLastError();
}

static __global__ void uniform_kernel(const std::uint64_t* __restrict__ state, std::size_t n, double* __restrict__ out) {
  const std::size_t b = static_cast<std::size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (2 * b < n) uniforms_at(state[0], state[1] + b, n - 2 * b, out + 2 * b);
}

inline cudaError_t uniform(const std::uint64_t* state, std::size_t n, double* out, cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  const std::size_t blocks = ((n + 1) / 2 + kRandomBlock - 1) / kRandomBlock;
  uniform_kernel<<<static_cast<unsigned>(blocks), kRandomBlock, 0, stream>>>(state, n, out);
  return cudaGetLastError();
}

}  // namespace rlp::cuda
