#pragma once
// What the binding files share. Python is known in csrc/bindings/ and nowhere else.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

namespace py = pybind11;
using namespace pybind11::literals;

template <typename T>
using Vector = py::array_t<T, py::array::c_style>;  // no forcecast: a wrong dtype is refused, never copied

void bind_build(py::module_& m);
void bind_heap(py::module_& m);
void bind_random(py::module_& m);
void bind_returns(py::module_& m);
void bind_replay(py::module_& m);
void bind_replay_kernels_on_host(py::module_& m);
void bind_random_kernels_on_host(py::module_& m);
void bind_envs(py::module_& m);
void bind_lanes(py::module_& m);
void bind_control(py::module_& m);
void bind_minatar(py::module_& m);
void bind_continual(py::module_& m);
void bind_pixels(py::module_& m);
void bind_augment(py::module_& m);
void bind_bootstrap(py::module_& m);
void bind_clipped_loss(py::module_& m);
void bind_frame_conv(py::module_& m);
