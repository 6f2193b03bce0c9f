#pragma once
// The draws of cuda/random.cuh as Python sees them, for either queue: _cuda launches them, _core walks them on the host.

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>

#include "cuda/random.cuh"

namespace rlp::bindings {

template <typename Queue>
void bind_random_kernels(pybind11::module_& m) {
  namespace py = pybind11;
  using namespace pybind11::literals;
  using Address = std::uintptr_t;
  const py::call_guard<py::gil_scoped_release> nogil;
  m.def(
      "draw_normals",
      [](Address state, std::size_t n, Address out, int device, Address stream) {
        auto* from = reinterpret_cast<cuda::DeviceStream*>(state);
        cuda::draw(Queue(device, stream), cuda::DrawNormals{from, n, reinterpret_cast<float*>(out)});
      },
      "state"_a, "n"_a, "out"_a, "device"_a, "stream"_a, nogil,
      "n standard normals, float32, of the stream whose key and counter lie at `state`, which moves on.");
  m.def(
      "draw_uniforms",
      [](Address state, std::size_t n, Address out, int device, Address stream) {
        auto* from = reinterpret_cast<cuda::DeviceStream*>(state);
        cuda::draw(Queue(device, stream), cuda::DrawUniforms{from, n, reinterpret_cast<double*>(out)});
      },
      "state"_a, "n"_a, "out"_a, "device"_a, "stream"_a, nogil,
      "n doubles in [0, 1) of the stream whose key and counter lie at `state`, which moves on.");
}

}  // namespace rlp::bindings
