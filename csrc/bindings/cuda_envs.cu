// The tiles of env_tiles.hpp on a GPU.

#include <stdexcept>
#include <string>

#include "bind_lanes.hpp"
#include "cuda/env_batch.cuh"

namespace {

// Enqueues on torch's stream of a device, which is current for that time: this module has a CUDA runtime of its own.
template <typename Launch>
void enqueue(const Queue& queue, const Launch& launch) {
  int before = 0;
  cudaError_t status = cudaGetDevice(&before);
  if (status == cudaSuccess) status = cudaSetDevice(queue.device);
  if (status == cudaSuccess) {
    status = launch(reinterpret_cast<cudaStream_t>(queue.stream));
    cudaSetDevice(before);
  }
  if (status != cudaSuccess)
    throw std::runtime_error(std::string("environments: ") + cudaGetErrorName(status) + ": " + cudaGetErrorString(status));
}

struct OnGpu {
  template <rlp::Env E>
  static void reset(const E& prototype, const rlp::Lanes<E>& lanes, rlp::Cell<E>* frame, const Queue& queue) {
    enqueue(queue, [&](cudaStream_t stream) { return rlp::cuda::reset(prototype, lanes, frame, stream); });
  }
  template <rlp::Env E>
  static void step(const E& prototype, const rlp::Lanes<E>& lanes, const typename rlp::EnvBatch<E>::Action* action,
                   const rlp::StepOut<rlp::Cell<E>>& out, const Queue& queue) {
    enqueue(queue, [&](cudaStream_t stream) { return rlp::cuda::step(prototype, lanes, action, out, stream); });
  }
};

}  // namespace

void bind_cuda_envs(py::module_& m) { bind_kinds<OnGpu>(m); }
