// The tiles of env_tiles.hpp on the CPU, one after the other, for tensors that lie there: what runs on a GPU, where there is none.

#include <vector>

#include "bind_lanes.hpp"

namespace {

struct OnCpu {
  // `run(number, tile)` for every tile, with the memory that a block would share.
  template <rlp::Env E, typename Run>
  static void each_tile(const E& prototype, const rlp::Lanes<E>& lanes, const Run& run) {
    struct alignas(16) Sixteen {
      std::byte byte[16];
    };
    std::vector<Sixteen> memory(rlp::tile_bytes(prototype) / sizeof(Sixteen));
    for (std::size_t number = 0; number < lanes.tiles(); ++number)
      run(number, memory.empty() ? nullptr : reinterpret_cast<std::byte*>(memory.data()));
  }
  template <rlp::Env E>
  static void reset(const E& prototype, const rlp::Lanes<E>& lanes, rlp::Cell<E>* frame, const Queue&) {
    each_tile(prototype, lanes, [&](std::size_t number, std::byte* tile) {
      rlp::reset_tile(rlp::LoopTeam{}, lanes, number, frame, tile);
    });
  }
  template <rlp::Env E>
  static void step(const E& prototype, const rlp::Lanes<E>& lanes, const typename rlp::EnvBatch<E>::Action* action,
                   const rlp::StepOut<rlp::Cell<E>>& out, const Queue&) {
    each_tile(prototype, lanes, [&](std::size_t number, std::byte* tile) {
      rlp::step_tile(rlp::LoopTeam{}, lanes, number, action, out, tile);
    });
  }
};

}  // namespace

void bind_lanes(py::module_& m) { bind_kinds<OnCpu>(m); }
