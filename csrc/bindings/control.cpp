#include "bind_batch.hpp"
#include "envs/acrobot.hpp"
#include "envs/cartpole.hpp"
#include "envs/mountain_car.hpp"
#include "envs/pendulum.hpp"

namespace {

template <rlp::Env E>
void bind_game(py::module_& m, const char* name) {
  bind_batch<E>(m, name, "N games of classic control; environment i draws from the stream key[i].")
      .def(py::init([](const Vector<std::uint64_t>& key, std::int64_t threads, std::int64_t limit) {
             check_batch(key, threads);
             if (limit < 1 || limit > 1'000'000'000) throw py::value_error("an episode is truncated after 1 to 1e9 steps");
             return std::make_unique<rlp::EnvBatch<E>>(E(static_cast<std::int32_t>(limit)), key.data(),
                                                       static_cast<std::size_t>(key.size()), static_cast<std::size_t>(threads));
           }),
           "key"_a.noconvert(), "threads"_a, "limit"_a);
}

}  // namespace

void bind_control(py::module_& m) {
  bind_game<rlp::Acrobot>(m, "AcrobotBatch");
  bind_game<rlp::CartPole>(m, "CartPoleBatch");
  bind_game<rlp::MountainCar>(m, "MountainCarBatch");
  bind_game<rlp::MountainCarContinuous>(m, "MountainCarContinuousBatch");
  bind_game<rlp::Pendulum>(m, "PendulumBatch");
}
