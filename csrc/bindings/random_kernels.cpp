#include "random_kernels.hpp"

#include "common.hpp"

void bind_random_kernels_on_host(py::module_& m) { rlp::bindings::bind_random_kernels<rlp::cuda::HostQueue>(m); }
