#include <algorithm>
#include <numeric>
#include <vector>

#include "check.hpp"
#include "envs/minatar_asterix.hpp"
#include "envs/minatar_breakout.hpp"
#include "envs/minatar_freeway.hpp"
#include "envs/minatar_seaquest.hpp"
#include "envs/minatar_space_invaders.hpp"

using rlp::EnvBatch;
using rlp::MinAtar;
using rlp::Stream;
using rlp::minatar::Few;
using rlp::minatar::Settings;

namespace {

constexpr Settings plain{0.1, true, 0};

// Frames come out right whatever lay there before, and hold 0 and 255 alone. One more byte is left alone.
template <typename G>
void frames_are_whole() {
  MinAtar<G> env(plain);
  Stream stream{7, 0}, actions{8, 0};
  std::vector<std::uint8_t> zeros(env.frame_size() + 1, 0), noise(env.frame_size() + 1, 99);
  env.reset(stream);
  for (int t = 0; t < 2000; ++t) {
    std::fill(noise.begin(), noise.end(), std::uint8_t{99});
    env.draw(zeros.data());
    env.draw(noise.data());
    CHECK(std::equal(zeros.begin(), zeros.end() - 1, noise.begin()));
    CHECK(noise.back() == 99 && zeros.back() == 0);
    CHECK(std::all_of(zeros.begin(), zeros.end(), [](std::uint8_t x) { return x == 0 || x == 255; }));
    CHECK(std::count(zeros.begin(), zeros.begin() + 100, 255) == 1);  // the player
    if (env.step(actions.below(6), stream).terminated) env.reset(stream);
  }
}

// What save() gives, load() takes, and gives again: through whole games, and through any other state that it takes.
template <typename G>
void states_come_back() {
  MinAtar<G> env(plain), other(plain);
  Stream stream{9, 0}, actions{10, 0};
  std::vector<std::int64_t> out(env.saved), again(env.saved);
  env.reset(stream);
  for (int t = 0; t < 3000; ++t) {
    env.save(out.data());
    CHECK(other.load(out.data()));
    other.save(again.data());
    CHECK(out == again);
    if (env.step(actions.below(6), stream).terminated) env.reset(stream);
  }
}

// Integers changed at random: what load() takes can be played and drawn without leaving the board or a list (the
// sanitizers watch), and what it refuses changes nothing.
template <typename G>
void strange_states_are_safe() {
  MinAtar<G> env(plain), reached(plain);
  Stream stream{11, 0}, chance{12, 0};
  std::vector<std::int64_t> state(env.saved), before(env.saved), after(env.saved);
  std::vector<std::uint8_t> frame(env.frame_size());
  std::size_t taken = 0, refused = 0;
  reached.reset(stream);
  for (int round = 0; round < 4000; ++round) {
    if (reached.step(chance.below(6), stream).terminated) reached.reset(stream);
    reached.save(state.data());
    env.load(state.data());
    for (std::uint32_t changes = 1 + chance.below(30); changes > 0; --changes) {
      std::int64_t& at = state[chance.below(static_cast<std::uint32_t>(state.size()))];
      const std::uint32_t ranges[] = {3, 12, 70, 1030, 14000};
      at = static_cast<std::int64_t>(chance.below(ranges[chance.below(5)])) - (chance.below(4) == 0 ? 1 : 0);
    }
    env.save(before.data());
    if (!env.load(state.data())) {
      env.save(after.data());
      CHECK(before == after);
      ++refused;
      continue;
    }
    ++taken;
    env.save(after.data());
    CHECK(state == after);
    for (int t = 0; t < 30; ++t) {
      env.draw(frame.data());
      if (env.step(chance.below(6), stream).terminated) env.reset(stream);
    }
  }
  CHECK(taken > 10 && refused > 100);
}

// Lists at their limit: nothing joins a full one, and the order of the others stays.
void few_keeps_its_order() {
  Few<int, 3> few;
  for (int k = 0; k < 5; ++k) few.push(k);
  CHECK(few.size == 3 && few.item[0] == 0 && few.item[2] == 2);
  few.erase(1);
  CHECK(few.size == 2 && few.item[0] == 0 && few.item[1] == 2);
  few.push(7);
  few.erase(0);
  few.erase(1);
  CHECK(few.size == 1 && few.item[0] == 2);
}

// A state of Seaquest whose lists are all full is one that load() takes; more may be due to arrive.
void a_full_sea_is_safe() {
  using rlp::minatar::Seaquest;
  std::vector<std::int64_t> state(Seaquest::saved);
  Seaquest game;
  Stream stream{13, 0}, chance{14, 0};
  std::vector<std::uint8_t> frame(1000);
  int taken = 0;
  for (int round = 0; round < 200; ++round) {
    Seaquest().save(state.data());
    state[7] = state[8] = 0;  // an enemy and a diver are due
    std::size_t at = Seaquest::scalars;
    for (const std::int64_t room : {4, 4, 64, 64, 64}) {
      state[at++] = room;
      for (std::int64_t k = 0; k < room; ++k) state[at++] = static_cast<std::int64_t>(chance.below(10) + 10 * (1 + chance.below(8)) + 100 * chance.below(2));
    }
    CHECK(at == Seaquest::saved);
    if (!game.load(state.data())) continue;
    ++taken;
    for (int t = 0; t < 60; ++t) {
      (void)game.step(static_cast<rlp::minatar::Move>(chance.below(6)), true, stream);
      std::fill(frame.begin(), frame.end(), std::uint8_t{0});
      game.draw(frame.data());
    }
  }
  CHECK(taken == 200);
}

// One integer of a fresh game replaced: what is just outside its range is refused, the end of the range is not.
template <typename G>
bool takes(std::size_t at, std::int64_t value) {
  MinAtar<G> env(plain);
  Stream stream{15, 0};
  env.reset(stream);
  std::vector<std::int64_t> state(env.saved);
  env.save(state.data());
  state[at] = value;
  return env.load(state.data());
}

void ranges_end_where_they_should() {
  using namespace rlp::minatar;
  CHECK(takes<Asterix>(0, 5) && !takes<Asterix>(0, 6) && !takes<Asterix>(0, -1));  // the last action
  CHECK(takes<Asterix>(1, 0) && !takes<Asterix>(1, 1));                            // steps are not counted without a limit
  CHECK(takes<Asterix>(3, 8) && takes<Asterix>(3, 1) && !takes<Asterix>(3, 9) && !takes<Asterix>(3, 0));
  CHECK(takes<Asterix>(7, 9) && !takes<Asterix>(7, 10));
  CHECK(takes<Asterix>(8, 40) && !takes<Asterix>(8, 41) && !takes<Asterix>(8, -1));
  CHECK(takes<Breakout>(2, 9) && !takes<Breakout>(2, 10) && !takes<Breakout>(4, 9) && takes<Breakout>(4, 8));
  CHECK(!takes<Breakout>(5, 0) && takes<Breakout>(5, -1) && !takes<Breakout>(12, 1024) && takes<Breakout>(12, 1023));
  CHECK(takes<Freeway>(2, 1) && !takes<Freeway>(2, 0) && !takes<Freeway>(2, 10));
  CHECK(!takes<Freeway>(5, 10) && takes<Freeway>(5, 9) && !takes<Freeway>(7, 0) && !takes<Freeway>(7, -6));
  CHECK(takes<Seaquest>(2, 1) && takes<Seaquest>(2, 8) && takes<Seaquest>(2, 0) && !takes<Seaquest>(2, 9));  // its back is on the board
  CHECK(takes<Seaquest>(7, -100) && takes<Seaquest>(7, 6) && !takes<Seaquest>(7, 7));
  CHECK(takes<Seaquest>(11, 19) && !takes<Seaquest>(11, 20));
  CHECK(takes<Seaquest>(12, 4) && !takes<Seaquest>(12, 5));  // own bullets
  CHECK(takes<SpaceInvaders>(2, 9) && !takes<SpaceInvaders>(2, 10) && !takes<SpaceInvaders>(3, 5) && !takes<SpaceInvaders>(3, 13));
}

template <typename G>
void batches_agree() {
  constexpr std::size_t n = 17;
  std::vector<std::uint64_t> key(n);
  std::iota(key.begin(), key.end(), 5);
  const MinAtar<G> prototype(plain);
  EnvBatch<MinAtar<G>> one(prototype, key.data(), n, 1), many(prototype, key.data(), n, 4);
  const std::size_t bytes = n * prototype.frame_size();
  std::vector<std::uint8_t> frame[2], final_frame[2];
  std::vector<float> reward[2];
  std::vector<char> flags[2][3];
  std::vector<std::int64_t> action(n);
  Stream actions{3, 0};
  for (int k = 0; k < 2; ++k) {
    frame[k].resize(bytes), final_frame[k].resize(bytes), reward[k].resize(n);
    for (auto& flag : flags[k]) flag.resize(n);
    (k == 0 ? one : many).reset(frame[k].data());
  }
  for (int t = 0; t < 150; ++t) {
    for (auto& a : action) a = actions.below(6);
    for (int k = 0; k < 2; ++k)
      (k == 0 ? one : many)
          .step(action.data(), {frame[k].data(), reward[k].data(), reinterpret_cast<bool*>(flags[k][0].data()),
                                reinterpret_cast<bool*>(flags[k][1].data()), reinterpret_cast<bool*>(flags[k][2].data()),
                                final_frame[k].data()});
    CHECK(frame[0] == frame[1] && final_frame[0] == final_frame[1] && reward[0] == reward[1]);
    for (int f = 0; f < 3; ++f) CHECK(flags[0][f] == flags[1][f]);
  }
}

template <typename G>
void all() {
  frames_are_whole<G>();
  states_come_back<G>();
  strange_states_are_safe<G>();
  batches_agree<G>();
}

}  // namespace

int main() {
  static_assert(sizeof(bool) == sizeof(char));
  all<rlp::minatar::Asterix>();
  all<rlp::minatar::Breakout>();
  all<rlp::minatar::Freeway>();
  all<rlp::minatar::Seaquest>();
  all<rlp::minatar::SpaceInvaders>();
  few_keeps_its_order();
  a_full_sea_is_safe();
  ranges_end_where_they_should();
  return check::failures();
}
