#include "cuda_common.hpp"
#include "random_kernels.hpp"

void bind_cuda_random(py::module_& m) { rlp::bindings::bind_random_kernels<rlp::cuda::CudaQueue>(m); }
