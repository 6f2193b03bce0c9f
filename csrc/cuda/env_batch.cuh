#pragma once
// Resetting and stepping environments on the GPU: one kernel a step over all of them, one block of 32 threads a tile. What a
// block does, how frames reach memory, and what is moved stand in env_tiles.hpp, which the CPU compiles as well.
//
// Each launcher enqueues on `stream` of the current device and returns at once with the launch's status; it allocates
// nothing and synchronises nothing, so that it can be captured into a graph. All memory is the caller's.
//
// A block of one warp: a barrier costs next to nothing, and a tile of Breakout (12.8 kB) leaves room for 17 blocks on a
// multiprocessor with 228 kB, one of Seaquest (32 kB) for 7. Each thread lights its cells in a row of its own; rows of 400
// bytes lie 4 to a bank, which is paid for the few cells that are lit.

#include <cuda_runtime.h>

#include <cstddef>

#include "env_tiles.hpp"

namespace rlp::cuda {

// The block that runs this.
struct BlockTeam {
  template <typename Phase>
  RLP_HD void each(const Phase& phase) const {
#ifdef __CUDA_ARCH__
    phase(static_cast<std::size_t>(threadIdx.x));
    __syncthreads();
#else
    static_cast<void>(phase);
#endif
  }
  template <typename Phase>
  [[nodiscard]] RLP_HD bool any(const Phase& phase) const {
#ifdef __CUDA_ARCH__
    return __syncthreads_or(phase(static_cast<std::size_t>(threadIdx.x)) ? 1 : 0) != 0;
#else
    static_cast<void>(phase);
    return false;
#endif
  }
};

inline __device__ std::byte* shared_tile(bool tiled) {
  extern __shared__ uint4 memory[];
  return tiled ? reinterpret_cast<std::byte*>(memory) : nullptr;
}

template <Env E>
__global__ void __launch_bounds__(tile_size) reset_kernel(Lanes<E> lanes, Cell<E>* frame, bool tiled) {
  reset_tile(BlockTeam{}, lanes, blockIdx.x, frame, shared_tile(tiled));
}

template <Env E>
__global__ void __launch_bounds__(tile_size)
    step_kernel(Lanes<E> lanes, const typename EnvBatch<E>::Action* action, StepOut<Cell<E>> out, bool tiled) {
  step_tile(BlockTeam{}, lanes, blockIdx.x, action, out, shared_tile(tiled));
}

// Begin a game everywhere; frame is [n, frame_size]. `prototype` has the settings of all of them.
template <Env E>
cudaError_t reset(const E& prototype, const Lanes<E>& lanes, Cell<E>* frame, cudaStream_t stream) {
  if (lanes.n == 0) return cudaSuccess;
  const std::size_t bytes = tile_bytes(prototype);
  reset_kernel<<<static_cast<unsigned>(lanes.tiles()), tile_size, bytes, stream>>>(lanes, frame, bytes > 0);
  return cudaGetLastError();
}

// One agent step everywhere; action is [n, action_size], `out` as for EnvBatch::step, on the device.
template <Env E>
cudaError_t step(const E& prototype, const Lanes<E>& lanes, const typename EnvBatch<E>::Action* action,
                 const StepOut<Cell<E>>& out, cudaStream_t stream) {
  if (lanes.n == 0) return cudaSuccess;
  const std::size_t bytes = tile_bytes(prototype);
  step_kernel<<<static_cast<unsigned>(lanes.tiles()), tile_size, bytes, stream>>>(lanes, action, out, bytes > 0);
  return cudaGetLastError();
}

}  // namespace rlp::cuda
