#include <numeric>
#include <vector>

#include "check.hpp"
#include "env_batch.hpp"
#include "envs/catch.hpp"

using rlp::Catch;
using rlp::EnvBatch;

namespace {

// Counts to a length that it draws, then ends: by termination at odd lengths, by truncation at even ones.
class Counter {
 public:
  static constexpr std::size_t saved = 2;
  [[nodiscard]] std::int64_t actions() const noexcept { return 4; }
  [[nodiscard]] std::size_t frame_size() const noexcept { return 2; }
  void reset(rlp::Stream& stream) noexcept {
    length_ = 1 + static_cast<std::int32_t>(stream.below(5));
    at_ = 0;
  }
  rlp::Outcome step(std::int64_t action, rlp::Stream& stream) noexcept {
    ++at_;
    const float noise = static_cast<float>(stream.below(100));
    return {noise + static_cast<float>(action), at_ == length_ && length_ % 2 == 1, at_ == length_ && length_ % 2 == 0};
  }
  void draw(std::uint8_t* frame) const noexcept {
    frame[0] = static_cast<std::uint8_t>(at_);
    frame[1] = static_cast<std::uint8_t>(length_);
  }
  void save(std::int64_t* out) const noexcept {
    out[0] = at_;
    out[1] = length_;
  }
  bool load(const std::int64_t* in) noexcept {
    if (in[0] < 0 || in[0] >= in[1]) return false;
    at_ = static_cast<std::int32_t>(in[0]);
    length_ = static_cast<std::int32_t>(in[1]);
    return true;
  }

 private:
  std::int32_t at_ = 0, length_ = 1;
};

template <rlp::Env E>
struct Run {
  EnvBatch<E> batch;
  std::vector<std::uint8_t> frame, final_frame;
  std::vector<float> reward;
  std::vector<char> terminated, truncated, reset;
  std::vector<std::int64_t> action;

  Run(const E& prototype, const std::vector<std::uint64_t>& key, std::size_t threads)
      : batch(prototype, key.data(), key.size(), threads), frame(key.size() * prototype.frame_size()),
        final_frame(frame.size()), reward(key.size()), terminated(key.size()), truncated(key.size()), reset(key.size()),
        action(key.size()) {
    batch.reset(frame.data());
  }

  void step(int t) {
    for (std::size_t i = 0; i < action.size(); ++i)
      action[i] = (t + static_cast<std::int64_t>(batch_number(i))) % batch.prototype().actions();
    std::fill(final_frame.begin(), final_frame.end(), std::uint8_t{77});
    batch.step(action.data(), {frame.data(), reward.data(), reinterpret_cast<bool*>(terminated.data()),
                               reinterpret_cast<bool*>(truncated.data()), reinterpret_cast<bool*>(reset.data()),
                               final_frame.data()});
  }

  std::size_t offset = 0;  // number of environment 0
  [[nodiscard]] std::size_t batch_number(std::size_t i) const { return i + offset; }
};

std::vector<std::uint64_t> keys(std::size_t n, std::size_t first = 0) {
  std::vector<std::uint64_t> out(n);
  std::iota(out.begin(), out.end(), 1000 + first);
  return out;
}

template <rlp::Env E>
void threads_and_company_do_not_matter(const E& prototype) {
  Run<E> one(prototype, keys(11), 1), four(prototype, keys(11), 4), many(prototype, keys(11), 64), part(prototype, keys(3, 5), 2);
  part.offset = 5;
  const std::size_t bytes = prototype.frame_size();
  for (int t = 0; t < 60; ++t) {
    one.step(t), four.step(t), many.step(t), part.step(t);
    CHECK(one.frame == four.frame && one.reward == four.reward && one.final_frame == four.final_frame);
    CHECK(one.frame == many.frame && one.reward == many.reward && one.final_frame == many.final_frame);
    CHECK(one.terminated == four.terminated && one.truncated == four.truncated && one.reset == four.reset);
    CHECK(std::equal(part.frame.begin(), part.frame.end(), one.frame.begin() + static_cast<std::ptrdiff_t>(5 * bytes)));
    CHECK(std::equal(part.reward.begin(), part.reward.end(), one.reward.begin() + 5));
    CHECK(std::equal(part.reset.begin(), part.reset.end(), one.reset.begin() + 5));
  }
}

void a_game_s_end_is_shown_and_the_next_begun() {
  Run<Counter> run(Counter(), keys(9), 3);
  std::vector<std::uint8_t> length(9), at(9, 0);
  int ends = 0, truncations = 0;
  for (std::size_t i = 0; i < 9; ++i) length[i] = run.frame[2 * i + 1];
  for (int t = 0; t < 100; ++t) {
    run.step(t);
    for (std::size_t i = 0; i < 9; ++i) {
      const bool over = ++at[i] == length[i];
      CHECK(run.reset[i] == over);
      CHECK(run.terminated[i] == (over && length[i] % 2 == 1));
      CHECK(run.truncated[i] == (over && length[i] % 2 == 0));
      if (over) {
        CHECK(run.final_frame[2 * i] == length[i] && run.final_frame[2 * i + 1] == length[i]);
        CHECK(run.frame[2 * i] == 0);
        at[i] = 0;
        length[i] = run.frame[2 * i + 1];
        ++ends;
        truncations += run.truncated[i];
      } else {
        CHECK(run.frame[2 * i] == at[i] && run.frame[2 * i + 1] == length[i]);
        CHECK(run.final_frame[2 * i] == 77);  // not written
      }
    }
  }
  CHECK(ends > 100 && truncations > 20 && truncations < ends);
}

template <rlp::Env E>
void a_saved_batch_goes_on(const E& prototype) {
  Run<E> run(prototype, keys(5), 2), other(prototype, keys(5, 100), 1);
  for (int t = 0; t < 23; ++t) run.step(t);
  std::vector<std::int64_t> env(5 * E::saved);
  std::vector<std::uint64_t> key(5), counter(5);
  run.batch.save(env.data(), key.data(), counter.data());
  CHECK(other.batch.load(env.data(), key.data(), counter.data(), true) == 5);
  for (int t = 23; t < 80; ++t) {
    run.step(t), other.step(t);
    CHECK(run.frame == other.frame && run.reward == other.reward && run.reset == other.reset);
  }
  // What is no state changes nothing, whichever environment it is meant for.
  run.batch.save(env.data(), key.data(), counter.data());
  const auto good = env;
  for (std::size_t bad = 0; bad < 5; ++bad) {
    auto wrong = good;
    wrong[bad * E::saved] = -1;
    const std::vector<std::uint64_t> zero(5, 0);
    CHECK(run.batch.load(wrong.data(), zero.data(), zero.data(), false) == bad);
    CHECK(run.batch.started());
    run.batch.save(env.data(), key.data(), counter.data());
    CHECK(env == good && key == keys(5));
  }
  CHECK(run.batch.load(good.data(), key.data(), counter.data(), false) == 5);
  CHECK(!run.batch.started());
}

void bad_actions_are_found() {
  EnvBatch<Counter> batch(Counter(), keys(4).data(), 4, 1);
  const std::vector<std::int64_t> good{0, 3, 1, 2}, low{0, 1, -1, 9}, high{0, 4, 0, 0};
  CHECK(batch.first_bad_action(good.data()) == 4);
  CHECK(batch.first_bad_action(low.data()) == 2);
  CHECK(batch.first_bad_action(high.data()) == 1);
}

void catch_refuses_states_off_the_board() {
  Catch env(10, 5);
  for (const auto& [row, column, player, good] :
       {std::tuple{0, 0, 0, true}, {8, 4, 4, true}, {9, 0, 0, false}, {-1, 0, 0, false}, {0, 5, 0, false}, {0, -1, 0, false},
        {0, 0, 5, false}, {0, 0, -1, false}}) {
    const std::int64_t in[] = {row, column, player};
    CHECK(env.load(in) == good);
  }
}

}  // namespace

int main() {
  static_assert(sizeof(bool) == sizeof(char));
  threads_and_company_do_not_matter(Counter());
  threads_and_company_do_not_matter(Catch(10, 5));
  a_game_s_end_is_shown_and_the_next_begun();
  a_saved_batch_goes_on(Counter());
  a_saved_batch_goes_on(Catch(6, 7));
  bad_actions_are_found();
  catch_refuses_states_off_the_board();
  return check::failures();
}
