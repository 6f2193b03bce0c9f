#include <algorithm>
#include <vector>

#include "check.hpp"
#include "envs/acrobot.hpp"
#include "envs/cartpole.hpp"
#include "envs/control_continual.hpp"
#include "envs/minatar_continual.hpp"
#include "envs/mountain_car.hpp"
#include "envs/pendulum.hpp"

using rlp::ContinualControl;
using rlp::ContinualMinAtar;
using rlp::PhaseClock;
using rlp::Stream;
using rlp::control::Scaled;
using rlp::minatar::Title;

namespace {

rlp::minatar::Changes five(std::int64_t phase_steps, bool permuted) {
  rlp::minatar::Changes changes{};
  changes.settings = {0.1, true, 0};
  changes.phase_steps = phase_steps;
  for (const Title title : {Title::space_invaders, Title::asterix, Title::seaquest, Title::freeway, Title::breakout})
    changes.game[changes.games++] = title;
  changes.channels = 10;
  changes.permuted = permuted;
  changes.key = permuted ? 77 : 0;
  return changes;
}

rlp::control::Changes dynamics(bool drawn) {
  rlp::control::Changes changes{};
  changes.phase_steps = 40;
  changes.gravity = {{1.0, 2.0, 0.5}, 3};
  changes.length = {{1.0, 1.5}, 2};
  changes.force = {{1.0}, 1};
  changes.drawn = drawn;
  changes.key = drawn ? 99 : 0;
  return changes;
}

void a_clock_ends_phases() {
  PhaseClock clock{3, 5};
  std::vector<bool> ends;
  std::vector<std::int64_t> phases;
  for (int t = 0; t < 7; ++t) {
    ends.push_back(clock.tick());
    phases.push_back(clock.phase);
  }
  CHECK((ends == std::vector<bool>{false, false, true, false, false, true, false}));
  CHECK((phases == std::vector<std::int64_t>{5, 5, 6, 6, 6, 7, 7}));
  PhaseClock each{1, 0};
  CHECK(each.tick() && each.tick() && each.phase == 2);
}

void a_clock_takes_what_it_gives_and_no_more() {
  const auto takes = [](std::int64_t phase, std::int64_t left) {
    PhaseClock clock{3, 5};
    const std::int64_t in[] = {phase, left};
    const bool taken = clock.load(in);
    CHECK(taken ? clock.phase == phase && clock.left == left : clock.phase == 5 && clock.left == 3);
    return taken;
  };
  CHECK(takes(0, 1) && takes(9, 3) && takes(PhaseClock::most, 2));
  CHECK(!takes(-1, 1) && !takes(PhaseClock::most + 1, 1) && !takes(0, 0) && !takes(0, 4));
}

// Frames come out right whatever lay there before, in games with fewer channels than the frame; one more byte is left alone.
void frames_are_whole() {
  ContinualMinAtar env(five(50, false));
  Stream stream{7, 0}, actions{8, 0};
  std::vector<std::uint8_t> zeros(1001, 0), noise(1001, 99);
  env.reset(stream);
  for (int t = 0; t < 600; ++t) {
    std::fill(noise.begin(), noise.end(), std::uint8_t{99});
    env.draw(zeros.data());
    env.draw(noise.data());
    CHECK(std::equal(zeros.begin(), zeros.end() - 1, noise.begin()) && noise.back() == 99);
    const rlp::Outcome outcome = env.step(actions.below(6), stream);
    if (outcome.terminated || outcome.truncated) env.reset(stream);
  }
}

template <typename E, typename Act>
void states_come_back(const E& prototype, Act act) {
  E env(prototype), other(prototype);
  Stream stream{9, 0}, actions{10, 0};
  std::vector<std::int64_t> out(E::saved), again(E::saved);
  env.reset(stream);
  for (int t = 0; t < 700; ++t) {
    env.save(out.data());
    CHECK(other.load(out.data()));
    other.save(again.data());
    CHECK(out == again && env.phase() == other.phase());
    const rlp::Outcome outcome = act(env, actions, stream);
    if (outcome.terminated || outcome.truncated) env.reset(stream);
  }
  CHECK(env.phase() > 5);
}

// Integers changed at random, the phase among them, so that one game's are taken for another's: what load() takes can be
// played and drawn (the sanitizers watch).
void strange_states_are_safe() {
  ContinualMinAtar env(five(25, true)), reached(five(25, true));
  Stream stream{11, 0}, chance{12, 0};
  std::vector<std::int64_t> state(env.saved), after(env.saved);
  std::vector<std::uint8_t> frame(1000);
  int taken = 0, refused = 0;
  reached.reset(stream);
  for (int round = 0; round < 3000; ++round) {
    const rlp::Outcome outcome = reached.step(chance.below(6), stream);
    if (outcome.terminated || outcome.truncated) reached.reset(stream);
    reached.save(state.data());
    if (chance.below(2) == 0) state[0] = chance.below(12);
    for (std::uint32_t changes = chance.below(4); changes > 0; --changes)
      state[chance.below(static_cast<std::uint32_t>(state.size()))] = chance.below(1030);
    if (!env.load(state.data())) {
      ++refused;
      continue;
    }
    ++taken;
    env.save(after.data());
    CHECK(state == after);
    for (int t = 0; t < 40; ++t) {
      env.draw(frame.data());
      const rlp::Outcome ended = env.step(chance.below(6), stream);
      if (ended.terminated || ended.truncated) env.reset(stream);
    }
  }
  CHECK(taken > 100 && refused > 100);
}

template <typename G>
void a_phase_has_its_dynamics() {
  using E = ContinualControl<G>;
  for (const bool drawn : {false, true}) {
    const rlp::control::Changes changes = dynamics(drawn);
    E env(30, changes);
    Stream stream{3, 0};
    env.reset(stream);
    for (int t = 0; t < 400; ++t) {
      const Scaled now = env.dynamics(), expected = changes.at(t / 40);
      CHECK(now.gravity == expected.gravity && now.length == expected.length && now.force == expected.force);
      rlp::Outcome outcome;
      if constexpr (rlp::Continuous<G>) {
        const float action = 0.5f;
        outcome = env.step(&action, stream);
      } else {
        outcome = env.step(1, stream);
      }
      CHECK(t % 40 != 39 || outcome.terminated || outcome.truncated);
      if (outcome.terminated || outcome.truncated) env.reset(stream);
    }
  }
  states_come_back(E(30, dynamics(true)), [](E& env, Stream& actions, Stream& stream) {
    if constexpr (rlp::Continuous<G>) {
      const float action = static_cast<float>(2.0 * actions.uniform() - 1.0);
      return env.step(&action, stream);
    } else {
      return env.step(actions.below(2), stream);
    }
  });
}

}  // namespace

int main() {
  a_clock_ends_phases();
  a_clock_takes_what_it_gives_and_no_more();
  frames_are_whole();
  for (const bool permuted : {false, true})
    states_come_back(ContinualMinAtar(five(30, permuted)),
                     [](ContinualMinAtar& env, Stream& actions, Stream& stream) { return env.step(actions.below(6), stream); });
  strange_states_are_safe();
  a_phase_has_its_dynamics<rlp::AcrobotWith<Scaled>>();
  a_phase_has_its_dynamics<rlp::CartPoleWith<Scaled>>();
  a_phase_has_its_dynamics<rlp::MountainCarWith<Scaled>>();
  a_phase_has_its_dynamics<rlp::MountainCarContinuousWith<Scaled>>();
  a_phase_has_its_dynamics<rlp::PendulumWith<Scaled>>();
  return check::failures();
}
