#include "heap.hpp"

#include "common.hpp"

void bind_heap(py::module_& m) {
  m.def("keep_freed_memory", &rlp::keep_freed_memory,
        "Have this process keep the blocks below 32 MiB that it frees, up to 2 GiB at the end of its heap. False where the C library is not glibc.");
}
