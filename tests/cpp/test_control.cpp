#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "check.hpp"
#include "envs/acrobot.hpp"
#include "envs/cartpole.hpp"
#include "envs/mountain_car.hpp"
#include "envs/pendulum.hpp"

using rlp::Acrobot;
using rlp::CartPole;
using rlp::EnvBatch;
using rlp::MountainCar;
using rlp::MountainCarContinuous;
using rlp::Pendulum;

namespace {

std::vector<std::uint64_t> keys(std::size_t n, std::size_t first = 0) {
  std::vector<std::uint64_t> out(n);
  std::iota(out.begin(), out.end(), 1000 + first);
  return out;
}

template <rlp::Env E>
struct Run {
  using Action = typename EnvBatch<E>::Action;
  EnvBatch<E> batch;
  std::vector<float> frame, final_frame, reward;
  std::vector<char> terminated, truncated, reset;
  std::vector<Action> action;
  std::size_t offset = 0;  // number of environment 0

  Run(const E& prototype, const std::vector<std::uint64_t>& key, std::size_t threads, std::size_t first = 0)
      : batch(prototype, key.data(), key.size(), threads), frame(key.size() * prototype.frame_size()),
        final_frame(frame.size()), reward(key.size()), terminated(key.size()), truncated(key.size()), reset(key.size()),
        action(key.size()), offset(first) {
    batch.reset(frame.data());
  }

  void step(std::uint64_t t) {
    for (std::size_t i = 0; i < action.size(); ++i) {
      const auto word = rlp::philox(i + offset, t).word[0];
      if constexpr (rlp::Continuous<E>) {
        action[i] = 2.0f * rlp::to_unit_open0(word) - 1.0f;
      } else {
        action[i] = static_cast<std::int64_t>(word % static_cast<std::uint32_t>(batch.actions()));
      }
    }
    std::fill(final_frame.begin(), final_frame.end(), 77.0f);
    batch.step(action.data(), {frame.data(), reward.data(), reinterpret_cast<bool*>(terminated.data()),
                               reinterpret_cast<bool*>(truncated.data()), reinterpret_cast<bool*>(reset.data()),
                               final_frame.data()});
  }
};

template <rlp::Env E>
void threads_and_company_do_not_matter() {
  const E prototype(30);
  Run<E> one(prototype, keys(11), 1), four(prototype, keys(11), 4), part(prototype, keys(3, 5), 2, 5);
  const auto cells = static_cast<std::ptrdiff_t>(prototype.frame_size());
  int ends = 0;
  for (std::uint64_t t = 0; t < 100; ++t) {
    one.step(t), four.step(t), part.step(t);
    CHECK(one.frame == four.frame && one.reward == four.reward && one.final_frame == four.final_frame);
    CHECK(one.terminated == four.terminated && one.truncated == four.truncated && one.reset == four.reset);
    CHECK(std::equal(part.frame.begin(), part.frame.end(), one.frame.begin() + 5 * cells));
    for (std::size_t i = 0; i < 11; ++i) {
      CHECK(one.reset[i] == (one.terminated[i] || one.truncated[i]));
      CHECK((one.final_frame[i * prototype.frame_size()] == 77.0f) == !one.reset[i]);
      ends += one.reset[i];
    }
  }
  CHECK(ends >= 33);
}

template <rlp::Env E>
void a_saved_batch_goes_on() {
  const E prototype(50);
  Run<E> run(prototype, keys(5), 2), other(prototype, keys(5, 100), 1);
  std::vector<std::int64_t> env(5 * E::saved);
  std::vector<std::uint64_t> key(5), counter(5);
  for (std::uint64_t t = 0; t < 120; ++t) {  // right after resets, too
    run.batch.save(env.data(), key.data(), counter.data());
    CHECK(other.batch.load(env.data(), key.data(), counter.data(), true) == 5);
    run.step(t), other.step(t);
    CHECK(run.frame == other.frame && run.reward == other.reward && run.reset == other.reset);
  }
}

// Each of the integers in turn is no state: a count of steps out of range, numbers that are none.
template <rlp::Env E>
void what_is_no_state_is_refused(std::size_t unbounded) {
  E env(20);
  rlp::Stream stream{7, 0};
  env.reset(stream);
  std::vector<std::int64_t> good(E::saved);
  env.save(good.data());
  CHECK(env.load(good.data()));
  for (const std::int64_t steps : {std::int64_t{-1}, std::int64_t{20}, std::int64_t{1} << 40}) {
    auto wrong = good;
    wrong[0] = steps;
    CHECK(!E(env).load(wrong.data()));
  }
  for (std::size_t k = 1; k < E::saved; ++k) {
    for (const double x : {std::nan(""), std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity(), 1e3, -1e3}) {
      if (std::isfinite(x) && unbounded >> k & 1) continue;
      auto wrong = good;
      wrong[k] = std::bit_cast<std::int64_t>(x);
      CHECK(!E(env).load(wrong.data()));
    }
  }
}

template <rlp::Env E>
bool loads(std::int64_t steps, std::initializer_list<double> numbers) {
  std::vector<std::int64_t> in{steps};
  for (const double x : numbers) in.push_back(std::bit_cast<std::int64_t>(x));
  return E(200).load(in.data());
}

void states_where_the_game_is_over_are_refused() {
  CHECK(loads<CartPole>(3, {2.4, 0.0, CartPole::max_theta, 0.0}) && !loads<CartPole>(3, {2.41, 0.0, 0.0, 0.0}));
  CHECK(!loads<CartPole>(3, {-2.41, 0.0, 0.0, 0.0}) && !loads<CartPole>(3, {0.0, 0.0, 0.21, 0.0}));
  CHECK(!loads<CartPole>(3, {0.0, 0.0, -0.21, 0.0}));
  CHECK(loads<MountainCar>(3, {0.5, -0.01}) && !loads<MountainCar>(3, {0.5, 0.0}) && loads<MountainCar>(3, {0.49, 0.07}));
  CHECK(!loads<MountainCar>(3, {0.0, 0.071}) && !loads<MountainCar>(3, {-1.21, 0.0}) && !loads<MountainCar>(3, {0.61, -0.01}));
  CHECK(loads<MountainCarContinuous>(3, {0.25, 0.0625}) && !loads<MountainCarContinuous>(3, {0.5, 0.0}));
  CHECK(!loads<MountainCarContinuous>(3, {0.1, 0.0}) && !loads<MountainCarContinuous>(3, {0.25, 0.01}));  // no floats
  CHECK(loads<MountainCarContinuous>(0, {-0.5001, 0.0}) && !loads<MountainCarContinuous>(0, {-0.5001, 0.0625}));
  CHECK(!loads<MountainCarContinuous>(0, {-0.39, 0.0}) && !loads<MountainCarContinuous>(0, {-0.61, 0.0}));
  CHECK(!loads<MountainCarContinuous>(3, {-1.25, 0.0}) && !loads<MountainCarContinuous>(3, {0.625, -0.0625}));
  CHECK(!loads<MountainCarContinuous>(3, {0.0, 0.125}) && !loads<MountainCarContinuous>(3, {0.0, -0.125}));
  CHECK(loads<Pendulum>(3, {100.0, -8.0}) && !loads<Pendulum>(3, {0.0, 8.01}));
  CHECK(loads<Acrobot>(3, {1.0, -3.0, 12.0, 28.0}) && !loads<Acrobot>(3, {3.1, 0.0, 0.0, 0.0}));
  CHECK(!loads<Acrobot>(3, {0.0, 3.15, 0.0, 0.0}) && !loads<Acrobot>(3, {0.0, 0.0, 12.6, 0.0}));
  CHECK(!loads<Acrobot>(3, {0.0, 0.0, 0.0, 28.3}));
}

void bad_continuous_actions_are_found() {
  EnvBatch<Pendulum> batch(Pendulum(200), keys(4).data(), 4, 1);
  const float nan = std::nanf("");
  const std::vector<float> good{0.0f, 1.0f, -1.0f, 0.5f}, low{0.0f, 0.0f, -1.001f, 9.0f}, high{0.0f, 1.001f, 0.0f, 0.0f},
      none{0.0f, 0.0f, 0.0f, nan};
  CHECK(batch.first_bad_action(good.data()) == 4);
  CHECK(batch.first_bad_action(low.data()) == 2);
  CHECK(batch.first_bad_action(high.data()) == 1);
  CHECK(batch.first_bad_action(none.data()) == 3);
  CHECK(batch.actions() == 0);
}

// The last step before the limit, by itself and together with a termination.
void the_limit_truncates() {
  rlp::Stream stream{3, 0};
  for (const std::int32_t limit : {1, 5}) {
    CartPole env(limit);
    env.reset(stream);
    for (std::int32_t t = 1; t <= limit; ++t) {
      const rlp::Outcome outcome = env.step(t % 2, stream);
      CHECK(outcome.truncated == (t == limit) && !outcome.terminated && outcome.reward == 1.0f);
    }
    env.reset(stream);
    CHECK(env.step(0, stream).truncated == (limit == 1));  // the count begins anew
  }
  CartPole falling(200);
  const std::int64_t in[] = {199, 0, 0, std::bit_cast<std::int64_t>(0.209), std::bit_cast<std::int64_t>(3.0)};
  CHECK(falling.load(in));
  const rlp::Outcome outcome = falling.step(0, stream);
  CHECK(outcome.terminated && outcome.truncated);
}

// Each side of the track, and of the pole, ends the episode at its bound: a step moves by 0.02 s of the velocity.
void cartpole_ends_on_every_side() {
  rlp::Stream stream{3, 0};
  for (const int axis : {1, 3}) {  // the cart's position, the pole's angle
    const double bound = axis == 1 ? CartPole::max_x : CartPole::max_theta;
    for (const double side : {-1.0, 1.0}) {
      for (const double beyond : {-0.001, 0.001}) {
        std::int64_t in[5] = {7, 0, 0, 0, 0};
        in[axis] = std::bit_cast<std::int64_t>(side * (bound - 0.02));
        in[axis + 1] = std::bit_cast<std::int64_t>(side * (1.0 + beyond));
        CartPole env(200);
        CHECK(env.load(in));
        CHECK(env.step(0, stream).terminated == (beyond > 0.0));
      }
    }
  }
}

// Speed and position after a step with full force that way, from a state that play hardly ever reaches.
template <rlp::Env E>
std::array<float, 2> driven(float x, float speed, int force) {
  rlp::Stream stream{3, 0};
  E env(200);
  const std::int64_t in[] = {7, std::bit_cast<std::int64_t>(static_cast<double>(x)), std::bit_cast<std::int64_t>(static_cast<double>(speed))};
  CHECK(env.load(in));
  if constexpr (rlp::Continuous<E>) {
    const float action = static_cast<float>(force);
    env.step(&action, stream);
  } else {
    env.step(1 + force, stream);
  }
  std::array<float, 2> frame;
  env.draw(frame.data());
  return frame;
}

template <rlp::Env E>
void cars_keep_to_their_bounds() {
  CHECK(driven<E>(-0.9f, 0.0695f, 1)[1] == 0.07f && driven<E>(0.0f, -0.0695f, -1)[1] == -0.07f);
  CHECK(std::fabs(driven<E>(-0.9f, 0.0695f, 1)[0] + 0.83f) < 1e-6f);  // moved by the clipped speed
  CHECK(driven<E>(0.5999f, -0.0001f, 1)[0] == 0.6f);
  CHECK((driven<E>(-1.19f, -0.05f, -1) == std::array{-1.2f, 0.0f}));
}

// A step of Gymnasium's at which both angles wrap and both velocities are clipped; and its mirror image.
void acrobot_keeps_to_its_bounds() {
  rlp::Stream stream{3, 0};
  for (const int side : {1, -1}) {
    const double before[] = {-0.5, 1.5, 5.3, 24.4};
    const double after[] = {-2.091509500678346, -2.4243479564454393, 12.566370614359172, 28.274333882308138};
    std::int64_t state[5] = {7};
    for (std::size_t k = 0; k < 4; ++k) state[1 + k] = std::bit_cast<std::int64_t>(side * before[k]);
    Acrobot env(200);
    CHECK(env.load(state));
    env.step(1 + side, stream);
    env.save(state);
    for (std::size_t k = 0; k < 4; ++k)  // 1e-13: a few roundings of sines and cosines, measured 0
      CHECK(std::fabs(std::bit_cast<double>(state[1 + k]) - side * after[k]) <= 1e-13);
  }
}

}  // namespace

int main() {
  static_assert(sizeof(bool) == sizeof(char));
  threads_and_company_do_not_matter<CartPole>();
  threads_and_company_do_not_matter<Acrobot>();
  threads_and_company_do_not_matter<MountainCar>();
  threads_and_company_do_not_matter<MountainCarContinuous>();
  threads_and_company_do_not_matter<Pendulum>();
  a_saved_batch_goes_on<CartPole>();
  a_saved_batch_goes_on<Acrobot>();
  a_saved_batch_goes_on<MountainCar>();
  a_saved_batch_goes_on<MountainCarContinuous>();
  a_saved_batch_goes_on<Pendulum>();
  what_is_no_state_is_refused<CartPole>(1u << 2 | 1u << 4);  // velocities
  what_is_no_state_is_refused<Acrobot>(0);
  what_is_no_state_is_refused<MountainCar>(0);
  what_is_no_state_is_refused<MountainCarContinuous>(0);
  what_is_no_state_is_refused<Pendulum>(1u << 1);  // the angle
  states_where_the_game_is_over_are_refused();
  bad_continuous_actions_are_found();
  the_limit_truncates();
  cartpole_ends_on_every_side();
  cars_keep_to_their_bounds<MountainCar>();
  cars_keep_to_their_bounds<MountainCarContinuous>();
  acrobot_keeps_to_its_bounds();
  return check::failures();
}
