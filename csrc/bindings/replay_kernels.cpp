#include "replay_kernels.hpp"

#include "common.hpp"

void bind_replay_kernels_on_host(py::module_& m) { rlp::bindings::bind_replay_kernels<rlp::cuda::HostQueue>(m); }
