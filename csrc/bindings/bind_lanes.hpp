#pragma once
// The face of env_tiles.hpp, the same for the CPU and the GPU: one kind of environment with its settings. Addresses of memory that
// torch owns come in; rlplatform/envs/device.py has checked what lies there. States cross as EnvBatch's integers.

#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <string>

#include "common.hpp"
#include "env_tiles.hpp"
#include "envs/acrobot.hpp"
#include "envs/cartpole.hpp"
#include "envs/catch.hpp"
#include "envs/minatar_asterix.hpp"
#include "envs/minatar_breakout.hpp"
#include "envs/minatar_freeway.hpp"
#include "envs/minatar_seaquest.hpp"
#include "envs/minatar_space_invaders.hpp"
#include "envs/mountain_car.hpp"
#include "envs/pendulum.hpp"

using Address = std::uintptr_t;

// Where a call takes place: a device's number and torch's current stream there.
struct Queue {
  int device;
  Address stream;
};

// The memory of N environments, and where a step's results go.
struct Memory {
  Address env, stream, fault;
  std::size_t n;
};
struct Results {
  Address frame, reward, terminated, truncated, reset, final_frame;
};

// Any of the games, on the machine that `Runner` names: Runner::reset(prototype, lanes, frame, queue), and step likewise.
template <typename Runner>
class Kind {
 public:
  virtual ~Kind() = default;
  [[nodiscard]] virtual std::size_t state_bytes() const = 0;
  [[nodiscard]] virtual Vector<std::uint8_t> fresh(std::size_t n) const = 0;
  [[nodiscard]] virtual Vector<std::int64_t> save(const Vector<std::uint8_t>& env) const = 0;
  [[nodiscard]] virtual Vector<std::uint8_t> load(const Vector<std::int64_t>& state) const = 0;
  virtual void reset(const Memory& memory, Address frame, const Queue& queue) const = 0;
  virtual void step(const Memory& memory, Address action, const Results& out, const Queue& queue) const = 0;
};

template <typename Runner, rlp::Env E>
class KindOf final : public Kind<Runner> {
 public:
  explicit KindOf(const E& prototype) : prototype_(prototype) {}

  [[nodiscard]] std::size_t state_bytes() const override { return sizeof(E); }

  [[nodiscard]] Vector<std::uint8_t> fresh(std::size_t n) const override {
    Vector<std::uint8_t> out({n, sizeof(E)});
    for (std::size_t i = 0; i < n; ++i) std::memcpy(out.mutable_data() + i * sizeof(E), &prototype_, sizeof(E));
    return out;
  }

  [[nodiscard]] Vector<std::int64_t> save(const Vector<std::uint8_t>& env) const override {
    const auto n = rows(env, sizeof(E), "env");
    Vector<std::int64_t> out({n, std::size_t{E::saved}});
    for (std::size_t i = 0; i < n; ++i) {
      E one = prototype_;
      std::memcpy(&one, env.data() + i * sizeof(E), sizeof(E));
      one.save(out.mutable_data() + i * E::saved);
    }
    return out;
  }

  [[nodiscard]] Vector<std::uint8_t> load(const Vector<std::int64_t>& state) const override {
    const auto n = rows(state, E::saved, "env");
    Vector<std::uint8_t> out({n, sizeof(E)});
    for (std::size_t i = 0; i < n; ++i) {
      E one = prototype_;
      if (!one.load(state.data() + i * E::saved))
        throw py::value_error("environment " + std::to_string(i) + " of the batch has no such state");
      std::memcpy(out.mutable_data() + i * sizeof(E), &one, sizeof(E));
    }
    return out;
  }

  void reset(const Memory& memory, Address frame, const Queue& queue) const override {
    Runner::reset(prototype_, lanes(memory), pointer<rlp::Cell<E>>(frame), queue);
  }

  void step(const Memory& memory, Address action, const Results& out, const Queue& queue) const override {
    const rlp::StepOut<rlp::Cell<E>> to{pointer<rlp::Cell<E>>(out.frame), pointer<float>(out.reward),
                                        pointer<bool>(out.terminated),    pointer<bool>(out.truncated),
                                        pointer<bool>(out.reset),         pointer<rlp::Cell<E>>(out.final_frame)};
    Runner::step(prototype_, lanes(memory), pointer<const typename rlp::EnvBatch<E>::Action>(action), to, queue);
  }

 private:
  template <typename T>
  static T* pointer(Address address) {
    return reinterpret_cast<T*>(address);
  }
  static rlp::Lanes<E> lanes(const Memory& memory) {
    return {pointer<E>(memory.env), pointer<rlp::Stream>(memory.stream), pointer<std::int64_t>(memory.fault), memory.n};
  }
  template <typename T>
  static std::size_t rows(const Vector<T>& array, std::size_t columns, const char* name) {
    if (array.ndim() != 2 || array.shape(1) != static_cast<py::ssize_t>(columns))
      throw py::value_error(std::string(name) + " must have shape [N, " + std::to_string(columns) + "]");
    return static_cast<std::size_t>(array.shape(0));
  }

  E prototype_;
};

template <typename Runner>
std::unique_ptr<Kind<Runner>> catch_kind(std::int32_t rows, std::int32_t columns) {
  return std::make_unique<KindOf<Runner, rlp::Catch>>(rlp::Catch(rows, columns));
}

template <typename Runner>
std::unique_ptr<Kind<Runner>> control_kind(const std::string& game, std::int32_t limit) {
  if (game == "Acrobot") return std::make_unique<KindOf<Runner, rlp::Acrobot>>(rlp::Acrobot(limit));
  if (game == "CartPole") return std::make_unique<KindOf<Runner, rlp::CartPole>>(rlp::CartPole(limit));
  if (game == "MountainCar") return std::make_unique<KindOf<Runner, rlp::MountainCar>>(rlp::MountainCar(limit));
  if (game == "MountainCarContinuous")
    return std::make_unique<KindOf<Runner, rlp::MountainCarContinuous>>(rlp::MountainCarContinuous(limit));
  if (game == "Pendulum") return std::make_unique<KindOf<Runner, rlp::Pendulum>>(rlp::Pendulum(limit));
  throw py::value_error("classic control has no game '" + game + "'");
}

template <typename Runner>
std::unique_ptr<Kind<Runner>> minatar_kind(const std::string& game, double sticky, bool ramping, std::int32_t episode_steps) {
  const rlp::minatar::Settings settings{sticky, ramping, episode_steps};
  const auto made = [&]<typename G>(std::type_identity<G>) -> std::unique_ptr<Kind<Runner>> {
    return std::make_unique<KindOf<Runner, rlp::MinAtar<G>>>(rlp::MinAtar<G>(settings));
  };
  if (game == "Asterix") return made(std::type_identity<rlp::minatar::Asterix>{});
  if (game == "Breakout") return made(std::type_identity<rlp::minatar::Breakout>{});
  if (game == "Freeway") return made(std::type_identity<rlp::minatar::Freeway>{});
  if (game == "Seaquest") return made(std::type_identity<rlp::minatar::Seaquest>{});
  if (game == "SpaceInvaders") return made(std::type_identity<rlp::minatar::SpaceInvaders>{});
  throw py::value_error("MinAtar has no game '" + game + "'");
}

// A class EnvKind, and the three functions that make one. Settings have been checked by the CPU's batch of the same game.
template <typename Runner>
void bind_kinds(py::module_& m) {
  using Any = Kind<Runner>;
  py::class_<Any>(m, "EnvKind", py::module_local(), "One kind of environment with its settings; all memory is the caller's.")
      .def_property_readonly("state_bytes", &Any::state_bytes)
      .def("fresh", &Any::fresh, "n"_a, "The memory of n environments before their first reset.")
      .def("save", &Any::save, "env"_a.noconvert(), "What EnvBatch saves of environments with this memory.")
      .def("load", &Any::load, "state"_a.noconvert(), "The memory of environments with this state.")
      .def(
          "reset",
          [](const Any& kind, Address env, Address stream, Address fault, std::size_t n, Address frame, int device, Address queue) {
            kind.reset({env, stream, fault, n}, frame, {device, queue});
          },
          "env"_a, "stream"_a, "fault"_a, "n"_a, "frame"_a, "device"_a, "queue"_a, py::call_guard<py::gil_scoped_release>(),
          "Enqueue the beginning of a game everywhere.")
      .def(
          "step",
          [](const Any& kind, Address env, Address stream, Address fault, std::size_t n, Address action, Address frame, Address reward,
             Address terminated, Address truncated, Address reset, Address final_frame, int device, Address queue) {
            kind.step({env, stream, fault, n}, action, {frame, reward, terminated, truncated, reset, final_frame}, {device, queue});
          },
          "env"_a, "stream"_a, "fault"_a, "n"_a, "action"_a, "frame"_a, "reward"_a, "terminated"_a, "truncated"_a, "reset"_a,
          "final_frame"_a, "device"_a, "queue"_a, py::call_guard<py::gil_scoped_release>(), "Enqueue a step everywhere.");
  m.def("catch_kind", &catch_kind<Runner>, "rows"_a, "columns"_a);
  m.def("control_kind", &control_kind<Runner>, "game"_a, "limit"_a);
  m.def("minatar_kind", &minatar_kind<Runner>, "game"_a, "sticky"_a, "ramping"_a, "episode_steps"_a);
}
