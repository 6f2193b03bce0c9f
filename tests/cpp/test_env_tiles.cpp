// What a block of the GPU does to a tile of environments, done by a loop, against EnvBatch: every game, at sizes around every
// edge of a tile, through hundreds of ends of games. Memory is exact, so that ASan sees a thread past the end; the threads
// of a phase take turns in either order, so that a phase which reads what its own threads write is found out.

#include "env_tiles.hpp"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <vector>

#include "check.hpp"
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

namespace {

using rlp::Cell;
using rlp::EnvBatch;
using rlp::Lanes;
using rlp::LoopTeam;

std::vector<std::uint64_t> keys(std::size_t n) {
  std::vector<std::uint64_t> out(n);
  std::iota(out.begin(), out.end(), 1000);
  return out;
}

template <typename T>
bool same(const T* a, const T* b, std::size_t n) {  // as bits: NaN equals itself
  return n == 0 || std::memcmp(a, b, n * sizeof(T)) == 0;
}

// Results of a step, `offset` cells into their memory: as a row of a larger tensor may lie.
template <typename T>
struct Out {
  std::size_t n, cells, offset;
  std::vector<T> frame, final_frame;
  std::vector<float> reward;
  std::vector<char> terminated, truncated, reset;

  Out(std::size_t n_, std::size_t cells_, std::size_t offset_)
      : n(n_), cells(cells_), offset(offset_), frame(offset + n * cells), final_frame(frame.size()), reward(n), terminated(n),
        truncated(n), reset(n) {}

  rlp::StepOut<T> clear() {
    std::fill(frame.begin(), frame.end(), T{55});
    std::fill(final_frame.begin(), final_frame.end(), T{77});
    for (auto* flags : {&terminated, &truncated, &reset}) std::fill(flags->begin(), flags->end(), char{9});
    std::fill(reward.begin(), reward.end(), 99.0f);
    return {frame.data() + offset,
            reward.data(),
            reinterpret_cast<bool*>(terminated.data()),
            reinterpret_cast<bool*>(truncated.data()),
            reinterpret_cast<bool*>(reset.data()),
            final_frame.data() + offset};
  }
};

template <typename T>
bool equal(const Out<T>& a, const Out<T>& b) {
  const std::size_t all = a.n * a.cells;
  return same(a.frame.data() + a.offset, b.frame.data() + b.offset, all) &&
         same(a.final_frame.data() + a.offset, b.final_frame.data() + b.offset, all) && same(a.reward.data(), b.reward.data(), a.n) &&
         a.terminated == b.terminated && a.truncated == b.truncated && a.reset == b.reset;
}

// What the launchers of cuda/env_batch.cuh enqueue, one block after the other.
template <rlp::Env E>
struct Device {
  using Action = typename EnvBatch<E>::Action;
  E prototype;
  std::vector<E> env;
  std::vector<rlp::Stream> stream;
  std::int64_t fault[2];
  LoopTeam team;

  Device(const E& e, const std::vector<std::uint64_t>& key, bool backwards)
      : prototype(e), env(key.size(), e), stream(key.size()), fault{rlp::no_fault(key.size()), 0}, team{backwards} {
    for (std::size_t i = 0; i < key.size(); ++i) stream[i].key = key[i];
  }

  // One tile's shared memory is another's no longer: what is not written is noise.
  template <typename Block>
  void launch(const Block& block) {
    const Lanes<E> lanes{env.data(), stream.data(), fault, env.size()};
    const std::size_t bytes = rlp::tile_bytes(prototype);
    for (std::size_t number = 0; number < lanes.tiles(); ++number) {
      std::byte* const tile = bytes == 0 ? nullptr : static_cast<std::byte*>(std::aligned_alloc(16, bytes));
      if (tile != nullptr) std::memset(tile, 0xA5, bytes);
      block(lanes, number, tile);
      std::free(tile);
    }
  }
  void reset(Cell<E>* frame) {
    launch([&](const auto& lanes, std::size_t number, std::byte* tile) { rlp::reset_tile(team, lanes, number, frame, tile); });
  }
  void step(const Action* action, const rlp::StepOut<Cell<E>>& out) {
    launch([&](const auto& lanes, std::size_t number, std::byte* tile) { rlp::step_tile(team, lanes, number, action, out, tile); });
  }

  std::vector<std::int64_t> saved() const {
    std::vector<std::int64_t> out(env.size() * (E::saved + 2));
    for (std::size_t i = 0; i < env.size(); ++i) {
      env[i].save(out.data() + i * E::saved);
      out[env.size() * E::saved + i] = static_cast<std::int64_t>(stream[i].key);
      out[env.size() * (E::saved + 1) + i] = static_cast<std::int64_t>(stream[i].counter);
    }
    return out;
  }
};

template <rlp::Env E>
std::vector<std::int64_t> saved(const EnvBatch<E>& batch) {
  const std::size_t n = batch.size();
  std::vector<std::int64_t> out(n * (E::saved + 2));
  std::vector<std::uint64_t> key(n), counter(n);
  batch.save(out.data(), key.data(), counter.data());
  for (std::size_t i = 0; i < n; ++i) {
    out[n * E::saved + i] = static_cast<std::int64_t>(key[i]);
    out[n * (E::saved + 1) + i] = static_cast<std::int64_t>(counter[i]);
  }
  return out;
}

template <rlp::Env E>
std::vector<typename EnvBatch<E>::Action> actions(const EnvBatch<E>& batch, std::uint64_t t) {
  using Action = typename EnvBatch<E>::Action;
  std::vector<Action> out(batch.size() * batch.action_size);
  for (std::size_t i = 0; i < out.size(); ++i) {
    const auto word = rlp::philox(i, t).word[0];
    if constexpr (rlp::Continuous<E>) {
      out[i] = 2.0f * rlp::to_unit_open0(word) - 1.0f;
    } else {
      out[i] = static_cast<Action>(word % static_cast<std::uint32_t>(batch.actions()));
    }
  }
  return out;
}

// Games that ended within the steps.
template <rlp::Env E>
int plays_as_the_batch_does(const E& prototype, std::size_t n, int steps, std::size_t offset) {
  EnvBatch<E> batch(prototype, keys(n).data(), n, 1);
  Device<E> forwards(prototype, keys(n), false), backwards(prototype, keys(n), true);
  Out<Cell<E>> expected(n, prototype.frame_size(), 0), one(n, prototype.frame_size(), offset), two(one);
  batch.reset(expected.clear().frame);
  forwards.reset(one.clear().frame);
  backwards.reset(two.clear().frame);
  CHECK(equal(one, expected) && equal(two, expected));
  int ends = 0;
  for (int t = 0; t < steps; ++t) {
    const auto action = actions(batch, static_cast<std::uint64_t>(t));
    batch.step(action.data(), expected.clear());
    forwards.step(action.data(), one.clear());
    backwards.step(action.data(), two.clear());
    CHECK(equal(one, expected) && equal(two, expected));
    ends += static_cast<int>(std::count(expected.reset.begin(), expected.reset.end(), char{1}));
  }
  CHECK(forwards.saved() == saved(batch) && backwards.saved() == saved(batch));
  CHECK(forwards.fault[0] == static_cast<std::int64_t>(n) && forwards.fault[1] == 0);
  for (std::size_t k = 0; k < offset; ++k) CHECK(one.frame[k] == Cell<E>{55} && one.final_frame[k] == Cell<E>{77});
  return ends;
}

template <rlp::Env E>
void at_every_edge(const E& prototype, int steps) {
  int ends = 0;
  for (const std::size_t n : {1u, 31u, 32u, 33u, 64u, 65u}) ends += plays_as_the_batch_does(prototype, n, steps, 0);
  ends += plays_as_the_batch_does(prototype, 257, steps / 4, 0);
  for (const std::size_t offset : {1u, 4u, 8u, 16u}) ends += plays_as_the_batch_does(prototype, 33, steps / 4, offset);
  CHECK(ends > 100);
}

// An environment that is given no action stays as it is, is shown as it is, and is noted; its neighbours play on.
template <rlp::Env E>
void what_is_no_action_is_noted(const E& prototype, const std::vector<typename EnvBatch<E>::Action>& wrong) {
  constexpr std::size_t n = 70;
  EnvBatch<E> batch(prototype, keys(n).data(), n, 1);
  Device<E> device(prototype, keys(n), false);
  Out<Cell<E>> expected(n, prototype.frame_size(), 0), before(expected), ours(expected);
  batch.reset(expected.clear().frame);
  device.reset(before.clear().frame);
  auto action = actions(batch, 7);
  batch.step(action.data(), expected.clear());
  const std::vector<std::size_t> refused{40, 69, 33};
  const auto state = device.saved();
  std::int64_t noted = 0;
  for (const auto value : wrong) {
    auto bad = action;
    for (const std::size_t i : refused) bad[i] = value;
    Device<E> again = device;
    again.step(bad.data(), ours.clear());
    CHECK(again.fault[0] == 33 && again.fault[1] == 3);
    const auto after = again.saved();
    for (std::size_t i = 0; i < n; ++i) {
      const bool still = std::count(refused.begin(), refused.end(), i) > 0;
      const Out<Cell<E>>& shown = still ? before : expected;
      const std::size_t row = i * prototype.frame_size();
      CHECK(same(ours.frame.data() + row, shown.frame.data() + row, prototype.frame_size()));
      CHECK(std::isnan(ours.reward[i]) == still);
      if (still) {
        CHECK(ours.terminated[i] == 0 && ours.truncated[i] == 0 && ours.reset[i] == 0);
        CHECK(same(after.data() + i * E::saved, state.data() + i * E::saved, E::saved));
        CHECK(after[n * (E::saved + 1) + i] == state[n * (E::saved + 1) + i]);
        ++noted;
      } else {
        CHECK(ours.reward[i] == expected.reward[i]);
      }
    }
    again.step(bad.data(), ours.clear());
    CHECK(again.fault[0] == 33 && again.fault[1] == 6);  // kept, and counted on
  }
  CHECK(noted == static_cast<std::int64_t>(3 * wrong.size()));
}

// Frames that no tile has room for are drawn in place, and are the same.
void large_frames() {
  CHECK(rlp::tile_bytes(rlp::Catch(38, 40)) == 32 * 38 * 40);
  CHECK(rlp::tile_bytes(rlp::Catch(32, 48)) == rlp::tile_bytes_max);
  CHECK(rlp::tile_bytes(rlp::Catch(40, 40)) == 0);
  CHECK(plays_as_the_batch_does(rlp::Catch(40, 40), 33, 90, 0) > 30);
  CHECK(plays_as_the_batch_does(rlp::Catch(32, 48), 33, 70, 3) > 30);
}

template <typename G>
void minatar() {
  at_every_edge(rlp::MinAtar<G>({0.1, true, 0}), 120);
  at_every_edge(rlp::MinAtar<G>({0.25, false, 17}), 40);  // every game ends here, Freeway too
  what_is_no_action_is_noted(rlp::MinAtar<G>({0.1, true, 0}), {-1, 6, std::int64_t{1} << 40});
}

}  // namespace

int main() {
  at_every_edge(rlp::Catch(10, 5), 60);
  at_every_edge(rlp::Catch(3, 7), 40);  // 21 bytes: rows begin anywhere
  large_frames();
  minatar<rlp::minatar::Asterix>();
  minatar<rlp::minatar::Breakout>();
  minatar<rlp::minatar::Seaquest>();
  minatar<rlp::minatar::SpaceInvaders>();
  at_every_edge(rlp::MinAtar<rlp::minatar::Freeway>({0.25, true, 17}), 40);
  what_is_no_action_is_noted(rlp::MinAtar<rlp::minatar::Freeway>({0.1, true, 0}), {-1, 6});
  at_every_edge(rlp::CartPole(500), 80);
  at_every_edge(rlp::Acrobot(30), 60);
  at_every_edge(rlp::MountainCar(30), 60);
  at_every_edge(rlp::MountainCarContinuous(30), 60);
  at_every_edge(rlp::Pendulum(30), 60);
  what_is_no_action_is_noted(rlp::Catch(10, 5), {-1, 3});
  what_is_no_action_is_noted(rlp::CartPole(500), {-1, 2});
  what_is_no_action_is_noted(rlp::Pendulum(30), {1.001f, -1.001f, NAN, INFINITY});
  return check::failures();
}
