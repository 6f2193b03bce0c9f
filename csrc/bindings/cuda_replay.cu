#include "cuda_common.hpp"
#include "replay_kernels.hpp"

void bind_cuda_replay(py::module_& m) { rlp::bindings::bind_replay_kernels<rlp::cuda::CudaQueue>(m); }
