#include <array>
#include <limits>
#include <string>

#include "common.hpp"
#include "bind_batch.hpp"
#include "envs/minatar_asterix.hpp"
#include "envs/minatar_breakout.hpp"
#include "envs/minatar_freeway.hpp"
#include "envs/minatar_seaquest.hpp"
#include "envs/minatar_space_invaders.hpp"

namespace {

using rlp::minatar::Settings;

template <typename G>
py::object make(const Vector<std::uint64_t>& key, std::int64_t threads, const Settings& settings) {
  const rlp::MinAtar<G> prototype(settings);
  return py::cast(std::make_unique<rlp::EnvBatch<rlp::MinAtar<G>>>(
      prototype, key.data(), static_cast<std::size_t>(key.size()), static_cast<std::size_t>(threads)));
}

struct Entry {
  const char* name;
  py::object (*make)(const Vector<std::uint64_t>&, std::int64_t, const Settings&);
};

constexpr std::array games{
    Entry{"Asterix", make<rlp::minatar::Asterix>},
    Entry{"Breakout", make<rlp::minatar::Breakout>},
    Entry{"Freeway", make<rlp::minatar::Freeway>},
    Entry{"Seaquest", make<rlp::minatar::Seaquest>},
    Entry{"SpaceInvaders", make<rlp::minatar::SpaceInvaders>},
};

// The classes' names are hidden: minatar_batch() makes them.
template <typename G>
void bind_game(py::module_& m, const char* name) {
  bind_batch<rlp::MinAtar<G>>(m, name, "N games of MinAtar.");
}

}  // namespace

void bind_minatar(py::module_& m) {
  bind_game<rlp::minatar::Asterix>(m, "_MinAtarAsterix");
  bind_game<rlp::minatar::Breakout>(m, "_MinAtarBreakout");
  bind_game<rlp::minatar::Freeway>(m, "_MinAtarFreeway");
  bind_game<rlp::minatar::Seaquest>(m, "_MinAtarSeaquest");
  bind_game<rlp::minatar::SpaceInvaders>(m, "_MinAtarSpaceInvaders");

  m.def(
      "minatar_batch",
      [](const std::string& game, const Vector<std::uint64_t>& key, std::int64_t threads, double sticky, bool ramping,
         std::int64_t episode_steps) {
        check_batch(key, threads);
        if (!(sticky >= 0.0 && sticky < 1.0)) throw py::value_error("sticky must lie in [0, 1)");
        if (episode_steps < 0 || episode_steps > std::numeric_limits<std::int32_t>::max())
          throw py::value_error("episode_steps must lie in [0, 2^31)");
        for (const Entry& entry : games)
          if (game == entry.name) return entry.make(key, threads, {sticky, ramping, static_cast<std::int32_t>(episode_steps)});
        throw py::value_error("MinAtar has no game '" + game + "'");
      },
      "game"_a, "key"_a.noconvert(), "threads"_a, "sticky"_a, "ramping"_a, "episode_steps"_a,
      "N games of MinAtar, with the methods of CatchBatch; environment i draws from the stream key[i].");
}
