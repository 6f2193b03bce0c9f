#pragma once
// The face of EnvBatch<E>, whatever E is: arrays in, arrays out.

#include <algorithm>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "common.hpp"
#include "env_batch.hpp"

template <typename T>
void expect_shape(const Vector<T>& array, std::initializer_list<py::ssize_t> shape, const char* name) {
  if (array.ndim() == static_cast<py::ssize_t>(shape.size()) && std::equal(shape.begin(), shape.end(), array.shape())) return;
  std::string wanted;
  for (const py::ssize_t length : shape) wanted += (wanted.empty() ? "" : ", ") + std::to_string(length);
  throw py::value_error(std::string(name) + " must have shape [" + wanted + "]");
}

// The shape of `rows` frames, each of frame_shape; of its number of cells where that is empty.
inline std::vector<py::ssize_t> frames_shape(py::ssize_t rows, py::ssize_t cells, const py::tuple& frame_shape) {
  std::vector<py::ssize_t> shape{rows};
  py::ssize_t product = 1;
  for (const py::handle length : frame_shape) product *= shape.emplace_back(length.cast<py::ssize_t>());
  if (frame_shape.empty()) product = shape.emplace_back(cells);
  if (product != cells) throw py::value_error("a frame has " + std::to_string(cells) + " cells, frame_shape another number");
  return shape;
}

template <rlp::Env E>
[[noreturn]] void refuse_action(const rlp::EnvBatch<E>& batch, const typename rlp::EnvBatch<E>::Action* action, std::size_t bad) {
  const std::string of = " of environment " + std::to_string(bad / batch.action_size) + " of the batch is not in ";
  if constexpr (rlp::Continuous<E>) {
    throw py::value_error("action " + py::str(py::float_(action[bad])).cast<std::string>() + of + "[-1, 1]");
  } else {
    throw py::value_error("action " + std::to_string(action[bad]) + of + "[0, " + std::to_string(batch.actions()) + ")");
  }
}

template <rlp::Env E>
py::tuple step(rlp::EnvBatch<E>& batch, const Vector<typename rlp::EnvBatch<E>::Action>& action, const py::tuple& frame_shape) {
  using Cell = rlp::Cell<E>;
  const auto n = static_cast<py::ssize_t>(batch.size()), cells = static_cast<py::ssize_t>(batch.frame_size());
  if (!batch.started()) throw py::value_error("reset() the environments before the first step()");
  if constexpr (rlp::Continuous<E>) {
    expect_shape(action, {n, static_cast<py::ssize_t>(batch.action_size)}, "action");
  } else {
    expect_shape(action, {n}, "action");
  }
  if (const std::size_t bad = batch.first_bad_action(action.data()); bad != batch.size() * batch.action_size)
    refuse_action(batch, action.data(), bad);

  auto shape = frames_shape(n, cells, frame_shape);
  Vector<Cell> frame(shape);
  Vector<float> reward(n);
  Vector<bool> terminated(n), truncated(n), reset(n);
  const auto final_row = std::make_unique_for_overwrite<Cell[]>(batch.size() * batch.frame_size());
  const rlp::StepOut<Cell> out{frame.mutable_data(),     reward.mutable_data(), terminated.mutable_data(),
                               truncated.mutable_data(), reset.mutable_data(),  final_row.get()};
  {
    py::gil_scoped_release nogil;
    batch.step(action.data(), out);
  }

  const auto ended = std::count(out.reset, out.reset + n, true);
  shape[0] = static_cast<py::ssize_t>(ended);
  Vector<Cell> final_frame(shape);
  Vector<std::int64_t> final_env(static_cast<py::ssize_t>(ended));
  auto* row = final_frame.mutable_data();
  auto* number = final_env.mutable_data();
  for (py::ssize_t i = 0; ended > 0 && i < n; ++i) {
    if (!out.reset[i]) continue;
    row = std::copy_n(out.final_frame + i * cells, cells, row);
    *number++ = i;
  }
  return py::make_tuple(frame, reward, terminated, truncated, reset, final_frame, final_env);
}

// The face of EnvBatch<E>: arrays in, arrays out. rlplatform/envs/native.py says which shape frames have.
template <rlp::Env E>
py::class_<rlp::EnvBatch<E>> bind_batch(py::module_& m, const char* name, const char* doc) {
  using Batch = rlp::EnvBatch<E>;
  return py::class_<Batch>(m, name, doc)
      .def_property_readonly("n", &Batch::size)
      .def_property_readonly("frame_size", &Batch::frame_size)
      .def_property_readonly("actions", &Batch::actions)
      .def("reset",
           [](Batch& batch) {
             Vector<rlp::Cell<E>> frame({batch.size(), batch.frame_size()});
             auto* data = frame.mutable_data();
             {
               py::gil_scoped_release nogil;
               batch.reset(data);
             }
             return frame;
           })
      .def("step", &step<E>, "action"_a.noconvert(), "frame_shape"_a = py::tuple(),
           "(frame, reward, terminated, truncated, reset, final_frame, final_env) of one step; frames are of frame_shape, or flat.")
      .def("save",
           [](const Batch& batch) {
             const auto n = static_cast<py::ssize_t>(batch.size());
             Vector<std::int64_t> env({n, static_cast<py::ssize_t>(E::saved)});
             Vector<std::uint64_t> key(n), counter(n);
             batch.save(env.mutable_data(), key.mutable_data(), counter.mutable_data());
             return py::make_tuple(env, key, counter, batch.started());
           })
      .def(
          "load",
          [](Batch& batch, const Vector<std::int64_t>& env, const Vector<std::uint64_t>& key,
             const Vector<std::uint64_t>& counter, bool started) {
            const auto n = static_cast<py::ssize_t>(batch.size());
            expect_shape(env, {n, static_cast<py::ssize_t>(E::saved)}, "env");
            expect_shape(key, {n}, "key");
            expect_shape(counter, {n}, "counter");
            if (const auto bad = batch.load(env.data(), key.data(), counter.data(), started); bad != batch.size())
              throw py::value_error("environment " + std::to_string(bad) + " of the batch has no such state");
          },
          "env"_a.noconvert(), "key"_a.noconvert(), "counter"_a.noconvert(), "started"_a);
}

inline void check_batch(const Vector<std::uint64_t>& key, std::int64_t threads) {
  if (key.ndim() != 1 || key.size() == 0) throw py::value_error("key must be a vector with one entry per environment");
  if (threads < 1 || threads > 1024) throw py::value_error("threads must be in [1, 1024]");
}
