#include "common.hpp"

void bind_build(py::module_& m) {
  m.def(
      "build", []() { return py::dict("compiler"_a = RLP_COMPILER, "cuda"_a = RLP_CUDA_BUILT); },
      "How this extension was built: the C++ compiler, and whether CUDA kernels were built beside it or why not.");
}
