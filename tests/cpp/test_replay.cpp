// Replay from C++: a long random run checked item by item, and three threads at once.
//
// Every frame, action and reward says which stream and which slot it is, so that a torn or misplaced copy shows itself.

#include <atomic>
#include <thread>

#include "check.hpp"
#include "replay.hpp"

namespace {

constexpr std::size_t kStreams = 3, kWords = 5, kStack = 4;  // a frame is five equal 64-bit words
constexpr rlp::Horizon kHorizon{3, 2};

std::uint64_t tag(std::size_t stream, std::uint64_t step) { return (step + 1) * 16 + stream + 1; }

// Rollouts of one step of all streams. The frame of an episode's step carries its tag; a final frame, tag + 8.
struct Source {
  rlp::Stream draws{9, 0};
  std::uint64_t step = 0;
  bool ended[kStreams] = {true, true, true};
  std::uint64_t frame[kStreams][kWords], action[kStreams], final_frame[kStreams][kWords];
  float reward[kStreams];
  std::uint8_t first[kStreams], terminated[kStreams], truncated[kStreams];
  std::int64_t final_at[kStreams][2];
  std::size_t finals = 0;

  rlp::RolloutView next() {
    finals = 0;
    for (std::size_t s = 0; s < kStreams; ++s) {
      const std::uint32_t event = draws.below(12);  // 0: life lost, 1: time limit, 2: the stream is cut
      for (std::uint64_t& word : frame[s]) word = tag(s, step);
      action[s] = tag(s, step);
      reward[s] = static_cast<float>(step % 1000);
      first[s] = ended[s] || event == 2;
      terminated[s] = event == 0;
      truncated[s] = event == 1;
      ended[s] = event < 2;
      if (event != 1) continue;
      for (std::uint64_t& word : final_frame[finals]) word = tag(s, step) + 8;
      final_at[finals][0] = 0;
      final_at[finals++][1] = static_cast<std::int64_t>(s);
    }
    ++step;
    return {1, kStreams, 0, reinterpret_cast<std::byte*>(frame), first, reinterpret_cast<std::byte*>(action), reward,
            terminated, truncated, finals, reinterpret_cast<std::byte*>(final_frame), &final_at[0][0]};
  }
};

// A batch of its own memory, which is not 0 before it is written.
struct Output {
  std::size_t batch, k, h = std::max<std::size_t>(k, 1);
  std::vector<std::uint64_t> obs = std::vector<std::uint64_t>(batch * (k + 1) * kStack * kWords, 7);
  std::vector<std::uint64_t> action = std::vector<std::uint64_t>(batch * h);
  std::vector<std::uint64_t> next_obs = std::vector<std::uint64_t>(batch * kStack * kWords, 7);
  std::vector<float> reward = std::vector<float>(batch * h), n_return = std::vector<float>(batch);
  std::vector<float> discount = std::vector<float>(batch);
  std::vector<std::uint8_t> terminated = std::vector<std::uint8_t>(batch * h), mask = std::vector<std::uint8_t>(batch * k);
  std::vector<std::int64_t> index = std::vector<std::int64_t>(batch);
  std::vector<double> priority = std::vector<double>(batch);

  rlp::BatchView view() {
    return {reinterpret_cast<std::byte*>(obs.data()), reinterpret_cast<std::byte*>(action.data()), reward.data(),
            terminated.data(), mask.data(), n_return.data(), discount.data(),
            reinterpret_cast<std::byte*>(next_obs.data()), index.data(), priority.data()};
  }
};

// The frames of one observation: whole, of one stream, of steps that follow each other, zeros only in front.
void check_stack(const std::uint64_t* obs, std::uint64_t newest) {
  std::uint64_t expected = newest;
  bool empty = false;
  for (std::size_t back = 0; back < kStack; ++back) {
    const std::uint64_t* frame = obs + (kStack - 1 - back) * kWords;
    for (std::size_t w = 1; w < kWords; ++w) CHECK(frame[w] == frame[0]);
    empty = empty || frame[0] == 0;
    CHECK(frame[0] == (empty ? 0 : expected));
    expected = (expected & ~std::uint64_t{8}) - (expected & 8 ? 0 : 16);  // a final frame follows its own step
  }
}

void check_batch(const Output& out, double gamma) {
  constexpr std::size_t observation = kStack * kWords;
  for (std::size_t b = 0; b < out.batch; ++b) {
    const std::uint64_t own = out.action[b * out.h];
    CHECK((own & 7) == static_cast<std::uint64_t>(out.index[b]) % kStreams + 1);
    check_stack(&out.obs[b * (out.k + 1) * observation], own);
    for (std::size_t j = 0; j < out.k; ++j) {
      const std::uint64_t* obs = &out.obs[(b * (out.k + 1) + j + 1) * observation];
      if (out.mask[b * out.k + j]) check_stack(obs, own + 16 * (j + 1));
      else for (std::size_t w = 0; w < observation; ++w) CHECK(obs[w] == 0);
    }
    const std::uint64_t* next = &out.next_obs[b * observation];
    const std::uint64_t newest = next[observation - 1];
    CHECK((out.discount[b] == 0.0f) == (newest == 0));
    if (newest == 0) continue;
    check_stack(next, newest);
    const std::uint64_t steps = newest & 8 ? (newest - 8 - own) / 16 + 1 : (newest - own) / 16;
    CHECK(1 <= steps && steps <= 3);
    CHECK(std::abs(out.discount[b] - std::pow(gamma, static_cast<double>(steps))) < 1e-6);
  }
}

rlp::RingShape shape(std::size_t per_stream) {
  return {kWords * sizeof(std::uint64_t), sizeof(std::uint64_t), kStack, kStreams, per_stream};
}

// The smallest ring and a larger one, wrapped many times; every eligible item after every step.
void every_item_of_a_long_run() {
  for (const std::size_t per_stream : {std::size_t{8}, std::size_t{23}}) {
    rlp::Replay replay(shape(per_stream), kHorizon, 0.6, "");
    Source source;
    for (int t = 0; t < 1500; ++t) {
      replay.add(source.next());
      const std::vector<std::int64_t> items = replay.eligible();
      Output out{items.size(), static_cast<std::size_t>(t % 3)};
      const std::vector<double> gamma(items.size(), 0.9);
      replay.gather(items.data(), {items.size(), 1 + t % 3, t % 3, gamma.data()}, out.view());
      check_batch(out, 0.9);
      if (items.empty()) continue;
      const double priority[] = {1.0 + t, 0.5};
      const std::int64_t twice[] = {items[0], items[0]};
      replay.update_priority(twice, priority, 2);
      Output one{1, 0};
      replay.gather(items.data(), {1, 1, 0, gamma.data()}, one.view());
      CHECK(one.priority[0] == std::pow(0.5, 0.6));
    }
    CHECK(replay.size() <= static_cast<std::int64_t>(kStreams * per_stream));
    CHECK(replay.max_priority() == std::pow(1500.0, 0.6));
  }
}

// Everything that can be read is put into a second replay, which then is the same.
void restored_is_the_same() {
  rlp::Replay replay(shape(30), kHorizon, 1.0, ""), copy(shape(30), kHorizon, 1.0, "");
  Source source;
  for (int t = 0; t < 100; ++t) replay.add(source.next());
  std::vector<std::int64_t> counts;
  std::vector<std::byte> frame(30 * kWords * 8), action(30 * 8);
  std::vector<float> reward(30);
  std::vector<std::uint8_t> bits(30);
  for (std::size_t s = 0; s < kStreams; ++s) {
    counts.push_back(replay.count(s));
    replay.read_slots(s, counts[s] - 30, counts[s], frame.data(), action.data(), reward.data(), bits.data());
    copy.write_slots(s, counts[s] - 30, counts[s], frame.data(), action.data(), reward.data(), bits.data());
  }
  std::vector<double> priority(3 * 30);
  replay.read_priorities(priority.data());
  copy.restore(counts.data(), priority.data(), replay.max_priority());
  CHECK(copy.eligible() == replay.eligible() && copy.size() == replay.size());
  for (int t = 0; t < 50; ++t) {
    const rlp::RolloutView rollout = source.next();
    replay.add(rollout);
    copy.add(rollout);
    CHECK(copy.eligible() == replay.eligible() && copy.size() == replay.size());
    Output left{16, 2}, right{16, 2};
    const std::vector<double> gamma(16, 0.9);
    replay.sample({16, 3, 2, gamma.data()}, {1, static_cast<std::uint64_t>(t)}, left.view());
    copy.sample({16, 3, 2, gamma.data()}, {1, static_cast<std::uint64_t>(t)}, right.view());
    CHECK(left.index == right.index && left.obs == right.obs && left.priority == right.priority);
  }
}

template <typename Call>
bool refuses(Call call) {
  try {
    call();
  } catch (const std::exception&) {
    return true;
  }
  return false;
}

void refusals_change_nothing() {
  rlp::Replay replay(shape(20), kHorizon, 1.0, "");
  Source source;
  for (int t = 0; t < 30; ++t) replay.add(source.next());
  const std::vector<std::int64_t> before = replay.eligible();
  const std::int64_t counts[] = {replay.count(0), replay.count(1), replay.count(2)};
  Source wrong = source;
  rlp::RolloutView rollout = wrong.next();
  wrong.reward[2] = std::nanf("");
  CHECK(refuses([&] { replay.add(rollout); }));
  const std::int64_t item[] = {before[0], before[0]};
  const double priority[] = {1.0, -1.0};
  CHECK(refuses([&] { replay.update_priority(item, priority, 2); }));
  const std::int64_t never[] = {-1};
  CHECK(refuses([&] { replay.update_priority(never, priority, 1); }));
  CHECK(refuses([&] { replay.read_slots(0, 0, 1, nullptr, nullptr, nullptr, nullptr); }));
  CHECK(refuses([&] { rlp::Replay(shape(20), kHorizon, 1.0, "/no/such/folder"); }));
  CHECK(replay.eligible() == before && replay.max_priority() == 1.0);
  for (std::size_t s = 0; s < kStreams; ++s) CHECK(replay.count(s) == counts[s]);
}

// One thread adds, one samples, one gives late and early priorities: no race (under TSan), and no batch is torn.
void three_threads() {
  rlp::Replay replay(shape(40), kHorizon, 0.5, "");
  Source source;
  for (int t = 0; t < 40; ++t) replay.add(source.next());
  std::atomic<bool> done{false};
  std::thread adder([&] {
    for (int t = 0; t < 4000; ++t) replay.add(source.next());
    done = true;
  });
  std::thread updater([&] {
    rlp::Stream draws{11, 0};
    while (!done) {
      const std::vector<std::int64_t> items = replay.eligible();
      const double priority[] = {draws.uniform(), 1.0 + draws.uniform()};
      if (items.size() > 1) replay.update_priority(items.data(), priority, 2);
    }
  });
  const std::vector<double> gamma(8, 0.9);
  for (std::uint64_t draw = 0; !done; ++draw) {
    if (!replay.can_sample()) continue;
    Output out{8, 2};
    replay.sample({8, 3, 2, gamma.data()}, {12, 4 * draw}, out.view());
    check_batch(out, 0.9);
    CHECK(replay.size() > 0);
  }
  adder.join();
  updater.join();
}

}  // namespace

int main() {
  every_item_of_a_long_run();
  restored_is_the_same();
  refusals_change_nothing();
  three_threads();
  return check::failures();
}
