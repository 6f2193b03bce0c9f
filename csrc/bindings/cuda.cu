// The extension module _cuda: raw device pointers and a stream come in, a launch goes out. No torch is linked: the Python
// face has checked dtype, shape, device and contiguity, and hands over addresses that torch owns.

#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "cuda/returns.cuh"
#include "cuda_common.hpp"

namespace {

void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess)
    throw std::runtime_error(std::string(what) + ": " + cudaGetErrorName(status) + ": " + cudaGetErrorString(status));
}

const float* input(std::uintptr_t address) { return reinterpret_cast<const float*>(address); }
float* output(std::uintptr_t address) { return reinterpret_cast<float*>(address); }

// Makes `device` current for one launch. This module has a CUDA runtime of its own, which does not know torch's choice.
class On {
 public:
  explicit On(int device) {
    check(cudaGetDevice(&before_), "cudaGetDevice");
    check(cudaSetDevice(device), "cudaSetDevice");
  }
  ~On() { cudaSetDevice(before_); }
  On(const On&) = delete;
  On& operator=(const On&) = delete;

 private:
  int before_ = 0;
};

cudaStream_t stream_at(std::uintptr_t address) { return reinterpret_cast<cudaStream_t>(address); }

}  // namespace

void bind_cuda_envs(py::module_& m);

PYBIND11_MODULE(_cuda, m) {
  m.doc() = "CUDA kernels of rlplatform. Absent where nvcc was not found at build time.";
  bind_cuda_envs(m);
  m.def(
      "status",
      []() {
        int runtime = 0, driver = 0, devices = 0;
        check(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
        check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
        const cudaError_t found = cudaGetDeviceCount(&devices);
        if (found != cudaSuccess) cudaGetLastError();  // not sticky: this call asks, it does not need a device
        return py::dict("runtime"_a = runtime, "driver"_a = driver, "devices"_a = found == cudaSuccess ? devices : 0,
                        "message"_a = found == cudaSuccess ? "" : cudaGetErrorString(found));
      },
      "Runtime and driver version (1000 major + 10 minor; driver 0: none installed), number of devices, and why none.");
  m.def(
      "gae",
      [](std::uintptr_t value, std::uintptr_t reward, std::uintptr_t discount, float lambda, std::size_t T, std::size_t B,
         std::uintptr_t advantage, int device, std::uintptr_t stream) {
        const On on(device);
        check(rlp::cuda::gae(input(value), input(reward), input(discount), lambda, T, B, output(advantage),
                             stream_at(stream)),
              "gae");
      },
      "value"_a, "reward"_a, "discount"_a, "lambda_"_a, "T"_a, "B"_a, "advantage"_a, "device"_a, "stream"_a,
      py::call_guard<py::gil_scoped_release>(), "Enqueue generalised advantage estimation.");
  m.def(
      "n_step",
      [](std::uintptr_t value, std::uintptr_t reward, std::uintptr_t discount, std::size_t n, std::size_t T, std::size_t B,
         std::uintptr_t result, int device, std::uintptr_t stream) {
        const On on(device);
        check(rlp::cuda::n_step(input(value), input(reward), input(discount), n, T, B, output(result), stream_at(stream)),
              "n_step");
      },
      "value"_a, "reward"_a, "discount"_a, "n"_a, "T"_a, "B"_a, "result"_a, "device"_a, "stream"_a,
      py::call_guard<py::gil_scoped_release>(), "Enqueue n-step returns.");
  m.def(
      "vtrace",
      [](std::uintptr_t value, std::uintptr_t reward, std::uintptr_t discount, std::uintptr_t rho, float rho_bar,
         float c_bar, float lambda, std::size_t T, std::size_t B, std::uintptr_t target, int device,
         std::uintptr_t stream) {
        const On on(device);
        check(rlp::cuda::vtrace(input(value), input(reward), input(discount), input(rho), {rho_bar, c_bar, lambda}, T, B,
                                output(target), stream_at(stream)),
              "vtrace");
      },
      "value"_a, "reward"_a, "discount"_a, "rho"_a, "rho_bar"_a, "c_bar"_a, "lambda_"_a, "T"_a, "B"_a, "target"_a,
      "device"_a, "stream"_a, py::call_guard<py::gil_scoped_release>(), "Enqueue V-trace targets.");
  bind_cuda_random(m);
  bind_cuda_replay(m);
}
