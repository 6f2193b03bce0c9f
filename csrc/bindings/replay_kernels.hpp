#pragma once
// The kernels of the device replay as Python classes: once in _cuda, where a queue is a CUDA stream, and once in _core, where the
// same threads run on the host, so that the face and the kernels' code are tested without a GPU.
//
// Addresses come in and work goes out: rlplatform.device_replay owns the memory and has checked dtype, shape, device and
// contiguity. The last two arguments of every call name the queue: a device and the address of a stream of it; on the host
// the order of threads, by rlp::cuda::Order.

#include <pybind11/pybind11.h>

#include <cstdint>

#include "cuda/augment.cuh"
#include "cuda/replay_add.cuh"
#include "cuda/replay_gather.cuh"
#include "cuda/replay_priority.cuh"
#include "cuda/replay_sample.cuh"

namespace rlp::bindings {

namespace py = pybind11;
using namespace pybind11::literals;
using Address = std::uintptr_t;

template <typename T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

template <typename Queue>
class ReplayKernels {
 public:
  ReplayKernels(std::size_t frame_bytes, std::size_t action_bytes, std::size_t stack, std::size_t streams,
                std::size_t per_stream, std::int64_t max_n, std::int64_t max_k, double alpha, std::int64_t actions,
                std::int64_t frame_float, Address frame, Address action, Address reward, Address bits, Address priority,
                Address eligible, Address claim, Address count, Address before, Address tree, std::int64_t base,
                Address scalars)
      : memory_{{frame_bytes, action_bytes, stack, streams, per_stream},
                max_n,
                std::max(max_n, max_k),
                alpha,
                actions,
                frame_float,
                at<std::byte>(frame),
                at<std::byte>(action),
                at<float>(reward),
                at<std::uint8_t>(bits),
                at<double>(priority),
                at<std::uint8_t>(eligible),
                at<std::int32_t>(claim),
                at<std::int64_t>(count),
                at<std::int64_t>(before),
                at<double>(tree),
                base,
                at<cuda::Scalars>(scalars)} {}

  std::size_t touched(std::size_t steps) const { return cuda::touched_slots(memory_, steps); }

  void add(std::size_t steps, std::size_t envs, std::size_t first_env, Address frame, Address first, Address action,
           Address reward, Address terminated, Address truncated, std::size_t finals, Address final_frame,
           Address final_at, Address seq, Address leaf, int device, Address stream) const {
    cuda::add(Queue(device, stream), memory_,
              {steps, envs, first_env, at<std::byte>(frame), at<std::uint8_t>(first), at<std::byte>(action),
               at<float>(reward), at<std::uint8_t>(terminated), at<std::uint8_t>(truncated), finals,
               at<std::byte>(final_frame), at<std::int64_t>(final_at), at<std::int64_t>(seq), at<std::int64_t>(leaf)});
  }

  void settle_all(Address leaf, int device, Address stream) const {
    cuda::settle_all(Queue(device, stream), memory_, at<std::int64_t>(leaf));
  }

  void sample(const cuda::DeviceBatch& out, int device, Address stream) const {
    cuda::sample(Queue(device, stream), memory_, out);
  }

  void gather(Address index, const cuda::DeviceBatch& out, int device, Address stream) const {
    cuda::gather(Queue(device, stream), memory_, at<std::int64_t>(index), out);
  }

  void update_priority(Address index, Address priority, bool single, std::size_t n, Address leaf, int device,
                       Address stream) const {
    const Queue queue(device, stream);
    const auto* items = at<std::int64_t>(index);
    if (single) cuda::update_priority(queue, memory_, items, at<float>(priority), n, at<std::int64_t>(leaf));
    else cuda::update_priority(queue, memory_, items, at<double>(priority), n, at<std::int64_t>(leaf));
  }

  void stack(const cuda::DeviceBatch& batch, Address obs, Address next_obs, int device, Address stream) const {
    cuda::stack(Queue(device, stream), memory_, batch, at<std::byte>(obs), at<std::byte>(next_obs));
  }

  void shift_images(const cuda::DeviceBatch& batch, std::int64_t height, std::int64_t width, Address shift,
                    Address intensity, bool single, Address out, int device, Address stream) const {
    const Queue queue(device, stream);
    const auto shifted = [&]<typename T>(T* to) {
      const ImageShape image{static_cast<std::int64_t>(memory_.shape.stack), height, width};
      cuda::shift_images(queue, cuda::ShiftImages<T>{memory_, batch.source, batch.batch,
                                                     static_cast<std::size_t>(batch.k) + 2, image,
                                                     at<std::int64_t>(shift), at<float>(intensity), to});
    };
    if (single) shifted(at<float>(out));
    else shifted(at<std::uint16_t>(out));
  }

 private:
  cuda::Memory memory_;
};

inline cuda::DeviceBatch device_batch(std::size_t batch, std::int64_t k, Address action, Address reward,
                                      Address terminated, Address mask, Address n_return, Address discount,
                                      Address index, Address priority, Address source) {
  return {batch, k, at<std::byte>(action), at<float>(reward), at<std::uint8_t>(terminated), at<std::uint8_t>(mask),
          at<float>(n_return), at<float>(discount), at<std::int64_t>(index), at<double>(priority),
          at<cuda::Source>(source)};
}

template <typename Queue>
void bind_replay_kernels(py::module_& m) {
  using Kernels = ReplayKernels<Queue>;
  const py::call_guard<py::gil_scoped_release> nogil;
  py::class_<cuda::DeviceBatch>(m, "DeviceBatch", py::module_local(), "Where a batch of the device replay is written.")
      .def(py::init(&device_batch), "batch"_a, "k"_a, "action"_a, "reward"_a, "terminated"_a, "mask"_a, "n_return"_a,
           "discount"_a, "index"_a, "priority"_a, "source"_a);
  py::class_<Kernels>(m, "ReplayKernels", py::module_local(),
                      "The kernels of rlplatform.device_replay over memory that it owns.")
      .def(py::init<std::size_t, std::size_t, std::size_t, std::size_t, std::size_t, std::int64_t, std::int64_t, double,
                    std::int64_t, std::int64_t, Address, Address, Address, Address, Address, Address, Address, Address,
                    Address, Address, std::int64_t, Address>(),
           "frame_bytes"_a, "action_bytes"_a, "stack"_a, "streams"_a, "per_stream"_a, "max_n"_a, "max_k"_a, "alpha"_a,
           "actions"_a, "frame_float"_a, "frame"_a, "action"_a, "reward"_a, "bits"_a, "priority"_a, "eligible"_a,
           "claim"_a, "count"_a, "before"_a, "tree"_a, "base"_a, "scalars"_a)
      .def("touched", &Kernels::touched, "steps"_a)
      .def("add", &Kernels::add, "steps"_a, "envs"_a, "first_env"_a, "frame"_a, "first"_a, "action"_a, "reward"_a,
           "terminated"_a, "truncated"_a, "finals"_a, "final_frame"_a, "final_at"_a, "seq"_a, "leaf"_a, "device"_a,
           "stream"_a, nogil)
      .def("settle_all", &Kernels::settle_all, "leaf"_a, "device"_a, "stream"_a, nogil)
      .def("sample", &Kernels::sample, "out"_a, "device"_a, "stream"_a, nogil)
      .def("gather", &Kernels::gather, "index"_a, "out"_a, "device"_a, "stream"_a, nogil)
      .def("update_priority", &Kernels::update_priority, "index"_a, "priority"_a, "single"_a, "n"_a, "leaf"_a,
           "device"_a, "stream"_a, nogil)
      .def("stack", &Kernels::stack, "batch"_a, "obs"_a, "next_obs"_a, "device"_a, "stream"_a, nogil)
      .def("shift_images", &Kernels::shift_images, "batch"_a, "height"_a, "width"_a, "shift"_a, "intensity"_a,
           "single"_a, "out"_a, "device"_a, "stream"_a, nogil);
  m.def(
      "draw_augmentation",
      [](Address state, std::size_t images, std::int64_t pad, float scale, float cut, Address shift, Address intensity,
         int device, Address stream) {
        cuda::draw_augmentation(Queue(device, stream), {at<cuda::DeviceStream>(state), images, pad, scale, cut,
                                                        at<std::int64_t>(shift), at<float>(intensity)});
      },
      "state"_a, "images"_a, "pad"_a, "scale"_a, "cut"_a, "shift"_a, "intensity"_a, "device"_a, "stream"_a, nogil,
      "Draw shifts and intensities of `images` images from a stream whose key and counter lie at `state`.");
}

}  // namespace rlp::bindings
