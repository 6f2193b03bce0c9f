#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include <pybind11/stl.h>

#include "bind_batch.hpp"
#include "envs/acrobot.hpp"
#include "envs/cartpole.hpp"
#include "envs/control_continual.hpp"
#include "envs/minatar_continual.hpp"
#include "envs/mountain_car.hpp"
#include "envs/pendulum.hpp"

namespace {

using rlp::ContinualControl;
using rlp::ContinualMinAtar;
using rlp::minatar::Title;

void check_phases(std::int64_t phase_steps, std::int64_t first_phase) {
  if (phase_steps < 1 || phase_steps > rlp::PhaseClock::most) throw py::value_error("phase_steps must lie in [1, 2^40]");
  if (first_phase < 0 || first_phase > rlp::PhaseClock::most) throw py::value_error("first_phase must lie in [0, 2^40]");
}

struct TitleEntry {
  const char* name;
  Title title;
  std::int32_t channels;
};
constexpr std::array titles{
    TitleEntry{"Asterix", Title::asterix, rlp::minatar::Asterix::channels},
    TitleEntry{"Breakout", Title::breakout, rlp::minatar::Breakout::channels},
    TitleEntry{"Freeway", Title::freeway, rlp::minatar::Freeway::channels},
    TitleEntry{"Seaquest", Title::seaquest, rlp::minatar::Seaquest::channels},
    TitleEntry{"SpaceInvaders", Title::space_invaders, rlp::minatar::SpaceInvaders::channels},
};

py::object minatar(const std::vector<std::string>& games, const Vector<std::uint64_t>& key, std::int64_t threads, double sticky,
                   bool ramping, std::int64_t episode_steps, std::int64_t phase_steps, std::int64_t first_phase,
                   std::optional<std::uint64_t> permutation_key) {
  check_batch(key, threads);
  check_phases(phase_steps, first_phase);
  if (!(sticky >= 0.0 && sticky < 1.0)) throw py::value_error("sticky must lie in [0, 1)");
  if (episode_steps < 0 || episode_steps > std::numeric_limits<std::int32_t>::max())
    throw py::value_error("episode_steps must lie in [0, 2^31)");
  constexpr std::size_t room = rlp::minatar::Changes::most_games;
  if (games.empty() || games.size() > room) throw py::value_error("give 1 to " + std::to_string(room) + " games");

  rlp::minatar::Changes changes{};
  changes.settings = {sticky, ramping, static_cast<std::int32_t>(episode_steps)};
  changes.phase_steps = phase_steps;
  changes.first_phase = first_phase;
  for (const std::string& name : games) {
    const auto* const entry =
        std::find_if(titles.begin(), titles.end(), [&](const TitleEntry& candidate) { return name == candidate.name; });
    if (entry == titles.end()) throw py::value_error("MinAtar has no game '" + name + "'");
    changes.game[changes.games++] = entry->title;
    changes.channels = std::max(changes.channels, entry->channels);
  }
  changes.permuted = permutation_key.has_value();
  changes.key = permutation_key.value_or(0);
  return py::cast(std::make_unique<rlp::EnvBatch<ContinualMinAtar>>(ContinualMinAtar(changes), key.data(),
                                                                    static_cast<std::size_t>(key.size()),
                                                                    static_cast<std::size_t>(threads)));
}

rlp::control::Factors factors(const std::vector<double>& values, const char* name) {
  rlp::control::Factors out;
  if (values.empty() || values.size() > static_cast<std::size_t>(out.room))
    throw py::value_error(std::string(name) + " must have 1 to " + std::to_string(out.room) + " factors");
  for (const double value : values)
    if (!(value >= 0.01 && value <= 100.0)) throw py::value_error(std::string(name) + " must hold factors in [0.01, 100]");
  std::copy(values.begin(), values.end(), out.value);
  out.size = static_cast<std::int32_t>(values.size());
  return out;
}

template <template <typename> typename Game>
py::object make(const Vector<std::uint64_t>& key, std::int64_t threads, std::int32_t limit, const rlp::control::Changes& changes) {
  using E = ContinualControl<Game<rlp::control::Scaled>>;
  return py::cast(std::make_unique<rlp::EnvBatch<E>>(E(limit, changes), key.data(), static_cast<std::size_t>(key.size()),
                                                     static_cast<std::size_t>(threads)));
}

struct GameEntry {
  const char* name;
  py::object (*make)(const Vector<std::uint64_t>&, std::int64_t, std::int32_t, const rlp::control::Changes&);
};
constexpr std::array control_games{
    GameEntry{"Acrobot", make<rlp::AcrobotWith>},
    GameEntry{"CartPole", make<rlp::CartPoleWith>},
    GameEntry{"MountainCar", make<rlp::MountainCarWith>},
    GameEntry{"MountainCarContinuous", make<rlp::MountainCarContinuousWith>},
    GameEntry{"Pendulum", make<rlp::PendulumWith>},
};

py::object control(const std::string& game, const Vector<std::uint64_t>& key, std::int64_t threads, std::int64_t limit,
                   std::int64_t phase_steps, std::int64_t first_phase, const std::vector<double>& gravity,
                   const std::vector<double>& length, const std::vector<double>& force, std::optional<std::uint64_t> factor_key) {
  check_batch(key, threads);
  check_phases(phase_steps, first_phase);
  if (limit < 1 || limit > 1'000'000'000) throw py::value_error("an episode is truncated after 1 to 1e9 steps");
  const rlp::control::Changes changes{phase_steps,
                                      first_phase,
                                      factors(gravity, "gravity"),
                                      factors(length, "length"),
                                      factors(force, "force"),
                                      factor_key.has_value(),
                                      factor_key.value_or(0)};
  for (const GameEntry& entry : control_games)
    if (game == entry.name) return entry.make(key, threads, static_cast<std::int32_t>(limit), changes);
  throw py::value_error("classic control has no game '" + game + "'");
}

template <template <typename> typename Game>
void bind_game(py::module_& m, const char* name) {
  using Batch = rlp::EnvBatch<ContinualControl<Game<rlp::control::Scaled>>>;
  bind_batch<ContinualControl<Game<rlp::control::Scaled>>>(m, name, "N games of classic control whose dynamics change.")
      .def_property_readonly("phase", [](const Batch& batch) { return batch.prototype().phase(); })
      .def_property_readonly("dynamics", [](const Batch& batch) {
        const rlp::control::Scaled now = batch.prototype().dynamics();
        return py::make_tuple(now.gravity, now.length, now.force);
      });
}

}  // namespace

void bind_continual(py::module_& m) {
  using Batch = rlp::EnvBatch<ContinualMinAtar>;
  bind_batch<ContinualMinAtar>(m, "_ContinualMinAtar", "N games of MinAtar that change.")
      .def_property_readonly("phase", [](const Batch& batch) { return batch.prototype().phase(); })
      .def_property_readonly("meaning", [](const Batch& batch) {
        Vector<std::int64_t> out(rlp::minatar::moves);
        for (std::int64_t a = 0; a < rlp::minatar::moves; ++a) out.mutable_data()[a] = batch.prototype().meaning(a);
        return out;
      });
  bind_game<rlp::AcrobotWith>(m, "_ContinualAcrobot");
  bind_game<rlp::CartPoleWith>(m, "_ContinualCartPole");
  bind_game<rlp::MountainCarWith>(m, "_ContinualMountainCar");
  bind_game<rlp::MountainCarContinuousWith>(m, "_ContinualMountainCarContinuous");
  bind_game<rlp::PendulumWith>(m, "_ContinualPendulum");

  m.def("continual_minatar_batch", &minatar, "games"_a, "key"_a.noconvert(), "threads"_a, "sticky"_a, "ramping"_a,
        "episode_steps"_a, "phase_steps"_a, "first_phase"_a, "permutation_key"_a,
        "N games of MinAtar that change, with the methods of CatchBatch and the current `phase` and `meaning` of actions; "
        "environment i draws from the stream key[i], all draw the order of actions from permutation_key where it is given.");
  m.def("continual_control_batch", &control, "game"_a, "key"_a.noconvert(), "threads"_a, "limit"_a, "phase_steps"_a,
        "first_phase"_a, "gravity"_a, "length"_a, "force"_a, "factor_key"_a,
        "N games of classic control whose dynamics change, with the methods of CatchBatch and the current `phase` and "
        "`dynamics`; factors are taken in turn, or drawn from factor_key where it is given.");
}
