#pragma once
// What the binding files of _cuda share: one file a concept, compiled by nvcc.

#include <pybind11/pybind11.h>

namespace py = pybind11;
using namespace pybind11::literals;

void bind_cuda_random(py::module_& m);
void bind_cuda_replay(py::module_& m);
