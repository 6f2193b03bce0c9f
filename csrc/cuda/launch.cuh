#pragma once
// How a kernel is written here, and how it is launched: one text for the GPU and for the host.
//
// A kernel is a struct: its members are its arguments, its call operator is the work of one thread, named by its number. A
// queue runs it. CudaQueue enqueues on a stream of a device and returns at once; HostQueue walks the same threads on the CPU,
// one after another, in an order that its caller chooses: what depends on that order would be a race on the GPU. So tests see
// the indexing, the bounds (under ASan) and the arithmetic of every kernel where no GPU is at hand.
//
//   threads(n, kernel)         kernel(i) for each i < n, in any order, none seeing what another writes.
//   rows(n, width, kernel)     kernel(row, lane) for each row < n and lane < width; the lanes of a row run side by side, so
//                              that neighbouring lanes read neighbouring addresses.
//   phases(n, count, kernel)   kernel(phase, i); all threads finish a phase before one begins the next. One block with
//                              barriers where n is small, one launch a phase where it is not.
//
// Nothing here allocates or synchronises, so every launch can be captured into a CUDA graph.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>

#include "host_device.hpp"

#ifdef __CUDACC__
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>
#endif

namespace rlp::cuda {

// --- integers that several threads change: the result does not depend on the order ---

RLP_HD inline void add_to(std::int64_t& sum, std::int64_t value) noexcept {
#ifdef __CUDA_ARCH__
  atomicAdd(reinterpret_cast<unsigned long long*>(&sum), static_cast<unsigned long long>(value));  // modulo 2^64
#else
  sum += value;
#endif
}

RLP_HD inline void lower_to(std::int64_t& least, std::int64_t value) noexcept {
#ifdef __CUDA_ARCH__
  atomicMin(reinterpret_cast<long long*>(&least), static_cast<long long>(value));
#else
  if (value < least) least = value;
#endif
}

RLP_HD inline void raise_to(std::int32_t& most, std::int32_t value) noexcept {
#ifdef __CUDA_ARCH__
  atomicMax(&most, value);
#else
  if (value > most) most = value;
#endif
}

// Numbers >= 0 alone: their bits are in the order of their values.
RLP_HD inline void raise_to(double& most, double value) noexcept {
#ifdef __CUDA_ARCH__
  atomicMax(reinterpret_cast<long long*>(&most), __double_as_longlong(value));
#else
  if (value > most) most = value;
#endif
}

// --- on the host ---

enum class Order : std::uint64_t { kForward = 0, kBackward = 1, kScattered = 2 };

class HostQueue {
 public:
  // `device` is of no account here; `order` is one of Order.
  HostQueue(int /*device*/, std::uintptr_t order) : order_(static_cast<Order>(order)) {}

  template <typename Kernel>
  void threads(std::size_t n, const Kernel& kernel) const {
    walk(n, [&](std::size_t i) { kernel(i); });
  }
  template <typename Kernel>
  void rows(std::size_t n, std::size_t width, const Kernel& kernel) const {
    walk(n, [&](std::size_t row) { walk(width, [&](std::size_t lane) { kernel(row, lane); }); });
  }
  template <typename Kernel>
  void phases(std::size_t n, unsigned count, const Kernel& kernel) const {
    for (unsigned phase = 0; phase < count; ++phase) walk(n, [&](std::size_t i) { kernel(phase, i); });
  }

 private:
  template <typename Thread>
  void walk(std::size_t n, Thread thread) const {
    std::size_t stride = 1;  // scattered: every so many, which meets all where it has no divisor in common with n
    if (order_ == Order::kScattered)
      for (stride = n / 2 + 1; std::gcd(stride, n) > 1;) ++stride;
    for (std::size_t k = 0; k < n; ++k) thread(order_ == Order::kBackward ? n - 1 - k : k * stride % n);
  }

  Order order_;
};

// --- on the GPU ---

#ifdef __CUDACC__

inline void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess)
    throw std::runtime_error(std::string(what) + ": " + cudaGetErrorName(status) + ": " + cudaGetErrorString(status));
}

// The second bound, blocks that have to fit a multiprocessor, is what keeps ptxas from spilling: left to itself it sacrifices a
// register or two for warps that none of these kernels needs. `rlplatform bench kernels` shows both.
template <typename Kernel>
__global__ void __launch_bounds__(128, 8) threads_kernel(std::size_t n, const Kernel kernel) {
  const std::size_t i = static_cast<std::size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) kernel(i);
}

template <typename Kernel>
__global__ void __launch_bounds__(128, 10) rows_kernel(std::size_t width, const Kernel kernel) {
  for (std::size_t lane = threadIdx.x; lane < width; lane += blockDim.x) kernel(std::size_t{blockIdx.x}, lane);
}

template <typename Kernel>
__global__ void __launch_bounds__(1024, 1) phases_kernel(std::size_t n, unsigned count, const Kernel kernel) {
  for (unsigned phase = 0; phase < count; ++phase) {
    for (std::size_t i = threadIdx.x; i < n; i += blockDim.x) kernel(phase, i);
    __syncthreads();  // makes what the block wrote to global memory seen by the block, too
  }
}

template <typename Kernel>
__global__ void __launch_bounds__(128, 8) phase_kernel(std::size_t n, unsigned phase, const Kernel kernel) {
  const std::size_t i = static_cast<std::size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) kernel(phase, i);
}

// Launches on one device; the device that was current before is current again when this is gone. This module has a CUDA
// runtime of its own, which does not know torch's choice. Throws std::runtime_error where a launch is refused.
class CudaQueue {
 public:
  static constexpr std::size_t kBlock = 128;
  static constexpr std::size_t kOneBlock = 4096;  // four turns of 1,024 threads take less time than twenty launches

  CudaQueue(int device, std::uintptr_t stream) : stream_(reinterpret_cast<cudaStream_t>(stream)) {
    check(cudaGetDevice(&before_), "cudaGetDevice");
    check(cudaSetDevice(device), "cudaSetDevice");
  }
  ~CudaQueue() { cudaSetDevice(before_); }
  CudaQueue(const CudaQueue&) = delete;
  CudaQueue& operator=(const CudaQueue&) = delete;

  template <typename Kernel>
  void threads(std::size_t n, const Kernel& kernel) const {
    if (n == 0) return;
    threads_kernel<<<blocks(n), kBlock, 0, stream_>>>(n, kernel);
    check(cudaGetLastError(), "launch");
  }
  template <typename Kernel>
  void rows(std::size_t n, std::size_t width, const Kernel& kernel) const {
    if (n == 0 || width == 0) return;
    rows_kernel<<<static_cast<unsigned>(n), lanes(width, kBlock), 0, stream_>>>(width, kernel);
    check(cudaGetLastError(), "launch");
  }
  template <typename Kernel>
  void phases(std::size_t n, unsigned count, const Kernel& kernel) const {
    if (n == 0 || count == 0) return;
    if (n <= kOneBlock) {
      phases_kernel<<<1, lanes(n, 1024), 0, stream_>>>(n, count, kernel);
    } else {
      for (unsigned phase = 0; phase < count; ++phase)
        phase_kernel<<<blocks(n), kBlock, 0, stream_>>>(n, phase, kernel);
    }
    check(cudaGetLastError(), "launch");
  }

 private:
  // Whole warps for n threads, at most so many.
  static unsigned lanes(std::size_t n, std::size_t most) noexcept {
    return static_cast<unsigned>(n < most ? (n + 31) / 32 * 32 : most);
  }
  static unsigned blocks(std::size_t n) noexcept { return static_cast<unsigned>((n + kBlock - 1) / kBlock); }

  cudaStream_t stream_;
  int before_ = 0;
};

#endif  // __CUDACC__

}  // namespace rlp::cuda
