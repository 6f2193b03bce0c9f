// The kernels of the device replay, walked thread by thread in three orders, against the CPU replay: all that can be read after
// every rollout, draw and update, bit for bit. All memory has its exact size, so that ASan sees an access outside of it.

#include <cstring>
#include <limits>
#include <memory>

#include "check.hpp"
#include "cuda/augment.cuh"
#include "cuda/replay_add.cuh"
#include "cuda/replay_gather.cuh"
#include "cuda/replay_priority.cuh"
#include "cuda/replay_sample.cuh"
#include "replay.hpp"

namespace {

namespace dev = rlp::cuda;
using Bytes = std::vector<std::uint8_t>;

std::byte* raw(Bytes& bytes) { return reinterpret_cast<std::byte*>(bytes.data()); }

struct Case {
  std::size_t frame_bytes, stack, streams, per_stream;
  rlp::Horizon horizon;
  double alpha;
  [[nodiscard]] rlp::RingShape shape() const { return {frame_bytes, sizeof(std::int64_t), stack, streams, per_stream}; }
};

// The memory of a device replay, as the Python face makes it.
struct Device {
  std::size_t slots;
  std::int64_t base = 1;
  Bytes frame, action, bits, eligible;
  std::vector<float> reward;
  std::vector<double> priority, tree;
  std::vector<std::int32_t> claim;
  std::vector<std::int64_t> count, before;
  dev::Scalars scalars{0, 1, 7, 0, dev::kNoFault, 0, 0.9, 1.0};
  dev::Memory memory;

  explicit Device(const Case& c)
      : slots(c.streams * c.per_stream),
        frame(slots * c.frame_bytes),
        action(slots * sizeof(std::int64_t)),
        bits(slots),
        eligible(slots),
        reward(slots),
        priority(slots),
        claim(slots),
        count(c.streams),
        before(c.streams) {
    while (base < static_cast<std::int64_t>(slots)) base *= 2;
    tree.assign(static_cast<std::size_t>(2 * base), 0.0);
    memory = {c.shape(), c.horizon.max_n, std::max(c.horizon.max_n, c.horizon.max_k), c.alpha, 5, 0, raw(frame),
              raw(action), reward.data(), bits.data(), priority.data(), eligible.data(), claim.data(), count.data(),
              before.data(), tree.data(), base, &scalars};
  }

  [[nodiscard]] std::vector<std::int64_t> items() const {
    std::vector<std::int64_t> out;
    for (std::size_t place = 0; place < slots; ++place)
      if (eligible[place]) out.push_back(memory.index_at(place));
    std::sort(out.begin(), out.end());
    return out;
  }
};

// Rollouts of random events; no two frames are alike.
struct Feed {
  const Case& shape;
  rlp::Stream draws;
  std::vector<std::uint8_t> ended = std::vector<std::uint8_t>(shape.streams, 1);
  std::uint64_t made = 0;
  std::size_t steps = 0, envs = 0, first_env = 0, finals = 0;
  Bytes frame = {}, first = {}, terminated = {}, truncated = {}, final_frame = {};
  std::vector<std::int64_t> action = {}, final_at = {};
  std::vector<float> reward = {};

  void put_frame(Bytes& to) {
    ++made;
    for (std::size_t b = 0; b < shape.frame_bytes; ++b) to.push_back(static_cast<std::uint8_t>(1 + (made * 7 + b * 3) % 255));
  }

  void make(std::size_t steps_, std::size_t envs_, std::size_t first_env_) {
    steps = steps_, envs = envs_, first_env = first_env_;
    frame.clear(), first.clear(), terminated.clear(), truncated.clear(), final_frame.clear();
    action.clear(), final_at.clear(), reward.clear();
    for (std::size_t t = 0; t < steps; ++t)
      for (std::size_t i = 0; i < envs; ++i) {
        const std::uint32_t event = draws.below(14);  // a life, the game, a time limit, the game at the limit, a cut
        put_frame(frame);
        first.push_back(ended[first_env + i] || event == 4);
        action.push_back(draws.below(5));
        reward.push_back(static_cast<float>(draws.uniform() - 0.5));
        terminated.push_back(event == 0 || event == 1 || event == 3);
        truncated.push_back(event == 2 || event == 3);
        ended[first_env + i] = event < 4;
        if (event < 1 || event > 3) continue;
        put_frame(final_frame);
        final_at.push_back(static_cast<std::int64_t>(t));
        final_at.push_back(static_cast<std::int64_t>(i));
      }
    finals = final_at.size() / 2;
  }

  rlp::RolloutView view() {
    return {steps, envs, first_env, raw(frame), first.data(), reinterpret_cast<std::byte*>(action.data()), reward.data(),
            terminated.data(), truncated.data(), finals, raw(final_frame), final_at.data()};
  }

  // With `spare` rows of final frames that are not used, as a producer on the device leaves them.
  void add_to(Device& device, const dev::HostQueue& queue, std::size_t spare) {
    std::vector<std::int64_t> at = final_at;
    Bytes last = final_frame;
    at.resize(2 * (finals + spare), -1);
    last.resize((finals + spare) * shape.frame_bytes, 0xFF);  // NaN, as floats
    std::vector<std::int64_t> seq(steps * envs + finals + spare, 99);
    std::vector<std::int64_t> leaf(envs * dev::touched_slots(device.memory, steps), 99);
    dev::add(queue, device.memory,
             {steps, envs, first_env, raw(frame), first.data(), reinterpret_cast<std::byte*>(action.data()), reward.data(),
              terminated.data(), truncated.data(), finals + spare, raw(last), at.data(), seq.data(), leaf.data()});
  }
};

// A batch of its own memory, which holds rubbish before it is written.
struct Output {
  std::size_t batch, k, h = std::max<std::size_t>(k, 1), observation;
  Bytes obs, next_obs, terminated = Bytes(batch * h, 9), mask = Bytes(batch * k, 9);
  std::vector<std::int64_t> action = std::vector<std::int64_t>(batch * h, 9), index = std::vector<std::int64_t>(batch, 9);
  std::vector<float> reward = std::vector<float>(batch * h, 9), n_return = std::vector<float>(batch, 9);
  std::vector<float> discount = std::vector<float>(batch, 9);
  std::vector<double> priority = std::vector<double>(batch, 9);
  std::vector<dev::Source> source = std::vector<dev::Source>(batch * (k + 2));

  Output(const Case& c, std::size_t batch_, std::size_t k_)
      : batch(batch_), k(k_), observation(c.stack * c.frame_bytes), obs(batch * (k + 1) * observation, 9),
        next_obs(batch * observation, 9) {}

  rlp::BatchView view() {
    return {raw(obs), reinterpret_cast<std::byte*>(action.data()), reward.data(), terminated.data(), mask.data(),
            n_return.data(), discount.data(), raw(next_obs), index.data(), priority.data()};
  }
  dev::DeviceBatch device() {
    return {batch, static_cast<std::int64_t>(k), reinterpret_cast<std::byte*>(action.data()), reward.data(),
            terminated.data(), mask.data(), n_return.data(), discount.data(), index.data(), priority.data(), source.data()};
  }
  [[nodiscard]] bool same(const Output& o) const {
    return obs == o.obs && next_obs == o.next_obs && terminated == o.terminated && mask == o.mask && action == o.action &&
           index == o.index && reward == o.reward && n_return == o.n_return && discount == o.discount &&
           priority == o.priority;
  }
};

// Every inner node is the sum of its children, every leaf what the CPU would have there.
void check_tree(const Device& device, const rlp::Replay& replay) {
  std::vector<double> priority(device.slots);
  replay.read_priorities(priority.data());
  for (std::size_t place = 0; place < device.slots; ++place) {
    const double leaf = device.tree[static_cast<std::size_t>(device.base) + place];
    CHECK(leaf == (device.eligible[place] ? priority[place] : 0.0));
    CHECK(device.priority[place] == priority[place]);
    CHECK(device.claim[place] == 0);
  }
  for (std::size_t node = 1; node < static_cast<std::size_t>(device.base); ++node)
    CHECK(device.tree[node] == device.tree[2 * node] + device.tree[2 * node + 1]);
}

template <typename T>
void check_images(const Case& c, Device& device, const dev::HostQueue& queue, Output& out, rlp::Stream draws) {
  const rlp::ImageShape image{static_cast<std::int64_t>(c.stack), 1, static_cast<std::int64_t>(c.frame_bytes)};
  const std::size_t columns = out.k + 2, images = out.batch * columns;
  std::vector<std::int64_t> shift(2 * images);
  std::vector<float> intensity(images);
  for (std::size_t m = 0; m < images; ++m) {
    shift[2 * m] = static_cast<std::int64_t>(draws.below(3)) - 1;
    shift[2 * m + 1] = static_cast<std::int64_t>(draws.below(9)) - 4;
    intensity[m] = 0.9f + 0.2f * static_cast<float>(draws.uniform());
  }
  std::vector<T> ours(images * out.observation, T{9}), expected(out.observation);
  dev::shift_images(queue, dev::ShiftImages<T>{device.memory, out.source.data(), out.batch, columns, image, shift.data(),
                                               intensity.data(), ours.data()});
  for (std::size_t m = 0; m < images; ++m) {
    const std::size_t o = m / out.batch, b = m % out.batch;
    const std::uint8_t* from = o <= out.k ? &out.obs[(b * (out.k + 1) + o) * out.observation] : &out.next_obs[b * out.observation];
    rlp::shift_image(from, image, {shift[2 * m], shift[2 * m + 1]}, intensity[m], expected.data());
    CHECK(std::memcmp(expected.data(), &ours[m * out.observation], out.observation * sizeof(T)) == 0);
  }
}

void draw_and_compare(const Case& c, const rlp::Replay& replay, Device& device, const dev::HostQueue& queue,
                      std::size_t batch, std::int64_t n, std::size_t k) {
  Output ours(c, batch, k), theirs(c, batch, k);
  const std::vector<double> gamma(batch, 0.9);
  device.scalars.n = n;
  const rlp::Stream stream{device.scalars.key, device.scalars.counter};
  dev::sample(queue, device.memory, ours.device());
  if (!replay.can_sample()) {
    CHECK((device.scalars.fault & 15) == static_cast<std::int64_t>(dev::Fault::kEmpty));
    CHECK(device.scalars.counter == stream.counter);
    for (std::size_t j = 0; j < batch; ++j) CHECK(ours.index[j] == -1 && ours.n_return[j] == 0.0f && ours.discount[j] == 0.0f);
    for (const dev::Source& source : ours.source) CHECK(source.depth == 0);
    device.scalars.fault = dev::kNoFault;
    return;
  }
  replay.sample({batch, n, static_cast<std::int64_t>(k), gamma.data()}, stream, theirs.view());
  dev::stack(queue, device.memory, ours.device(), raw(ours.obs), raw(ours.next_obs));
  CHECK(ours.same(theirs));
  CHECK(device.scalars.counter == stream.counter + (batch + 1) / 2);
  check_images<float>(c, device, queue, ours, stream);
  check_images<std::uint16_t>(c, device, queue, ours, stream);

  Output again(c, batch, k);
  dev::gather(queue, device.memory, theirs.index.data(), again.device());
  dev::stack(queue, device.memory, again.device(), raw(again.obs), raw(again.next_obs));
  CHECK(again.same(theirs));
  CHECK(device.scalars.fault == dev::kNoFault);
}

// Items that live, wait or are gone, some of them twice or more.
void update_and_compare(rlp::Replay& replay, Device& device, const dev::HostQueue& queue, rlp::Stream& draws, std::size_t n) {
  std::vector<std::int64_t> known;
  const std::size_t streams = device.memory.shape.streams;
  for (std::size_t s = 0; s < streams; ++s)
    for (std::int64_t seq = std::max<std::int64_t>(0, device.count[s] - 40); seq < device.count[s]; ++seq)
      if (!device.memory.is_live(s, seq) || !(device.bits[device.memory.place(s, seq)] & rlp::kFinal))
        known.push_back(seq * static_cast<std::int64_t>(streams) + static_cast<std::int64_t>(s));
  if (known.empty()) return;
  std::vector<std::int64_t> index(n), leaf(n, 99);
  std::vector<double> priority(n);
  std::vector<float> single(n);
  for (std::size_t j = 0; j < n; ++j) {
    index[j] = known[draws.below(static_cast<std::uint32_t>(known.size()))];
    single[j] = static_cast<float>(draws.uniform() * 4.0) * static_cast<float>(draws.below(4) > 0);
    priority[j] = static_cast<double>(single[j]);
  }
  replay.update_priority(index.data(), priority.data(), n);
  if (draws.below(2)) dev::update_priority(queue, device.memory, index.data(), single.data(), n, leaf.data());
  else dev::update_priority(queue, device.memory, index.data(), priority.data(), n, leaf.data());
  CHECK(device.scalars.fault == dev::kNoFault);
  CHECK(device.scalars.max_priority == replay.max_priority());
}

void compare(const rlp::Replay& replay, const Device& device) {
  CHECK(device.items() == replay.eligible());
  CHECK(device.scalars.size == replay.size());
  for (std::size_t s = 0; s < device.count.size(); ++s) CHECK(device.count[s] == replay.count(s));
  check_tree(device, replay);
}

// What can be loaded: the slots, counts and priorities; the rest is worked out.
void restored_is_the_same(const Case& c, const Device& device, const dev::HostQueue& queue) {
  Device copy(c);
  copy.frame = device.frame, copy.action = device.action, copy.bits = device.bits, copy.reward = device.reward;
  copy.priority = device.priority, copy.count = device.count;
  std::vector<std::int64_t> leaf(copy.slots, 99);
  dev::settle_all(queue, copy.memory, leaf.data());
  CHECK(copy.eligible == device.eligible && copy.tree == device.tree);
}

void long_run(const Case& c, dev::Order order) {
  const dev::HostQueue queue(0, static_cast<std::uintptr_t>(order));
  rlp::Replay replay(c.shape(), c.horizon, c.alpha, "");
  Device device(c);
  Feed feed{c, {c.frame_bytes + 100 * c.streams, 0}};
  const std::size_t batches[] = {1, 2, 31, 32, 33, 65};
  for (std::size_t turn = 0; turn < 60; ++turn) {
    const std::size_t first_env = feed.draws.below(static_cast<std::uint32_t>(c.streams));
    const std::size_t envs = 1 + feed.draws.below(static_cast<std::uint32_t>(c.streams - first_env));
    const std::size_t steps = turn % 20 == 19 ? 2 * c.per_stream + 3 : feed.draws.below(6);
    feed.make(steps, envs, first_env);
    replay.add(feed.view());
    feed.add_to(device, queue, turn % 3);
    CHECK(device.scalars.fault == dev::kNoFault);
    compare(replay, device);
    const std::int64_t n = 1 + feed.draws.below(static_cast<std::uint32_t>(c.horizon.max_n));
    const std::size_t k = feed.draws.below(static_cast<std::uint32_t>(c.horizon.max_k) + 1);
    draw_and_compare(c, replay, device, queue, batches[turn % 6], n, k);
    update_and_compare(replay, device, queue, feed.draws, batches[(turn / 2) % 6]);
    compare(replay, device);
    if (turn % 15 == 0) restored_is_the_same(c, device, queue);
  }
}

// --- refusals: noted, the first one, and without any other effect until the note is taken away ---

struct Kept {
  Bytes frame, bits, eligible;
  std::vector<double> priority, tree;
  std::vector<std::int64_t> count;
  double max_priority;
  std::int64_t size;
  explicit Kept(const Device& d)
      : frame(d.frame), bits(d.bits), eligible(d.eligible), priority(d.priority), tree(d.tree), count(d.count),
        max_priority(d.scalars.max_priority), size(d.scalars.size) {}
  bool operator==(const Kept&) const = default;
};

std::int64_t noted(dev::Fault kind, std::size_t row, std::size_t stream) {
  return static_cast<std::int64_t>(row << 31 | stream << 4) | static_cast<std::int64_t>(kind);
}

void refusals(dev::Order order) {
  const dev::HostQueue queue(0, static_cast<std::uintptr_t>(order));
  const Case c{8, 2, 3, 20, {3, 2}, 0.5};
  Device device(c);
  Feed feed{c, {5, 0}};
  feed.make(30, 3, 0);
  feed.add_to(device, queue, 0);
  feed.make(4, 2, 1);
  while (feed.finals == 0 || !feed.truncated[static_cast<std::size_t>(feed.final_at[0] * 2 + feed.final_at[1])]) {
    feed.add_to(device, queue, 0);
    feed.make(4, 2, 1);
  }
  Kept before(device);
  const auto refused = [&](std::int64_t expected, auto spoil) {
    Feed wrong = feed;
    spoil(wrong);
    wrong.add_to(device, queue, 1);
    CHECK(device.scalars.fault == expected);
    CHECK(Kept(device) == before);
    feed.add_to(device, queue, 0);  // good, but what was wrong has not been read
    CHECK(device.scalars.fault == expected);
    CHECK(Kept(device) == before);
    device.scalars.fault = dev::kNoFault;
  };
  const auto cut_t = static_cast<std::size_t>(feed.final_at[0]), cut_i = static_cast<std::size_t>(feed.final_at[1]);
  refused(noted(dev::Fault::kReward, 1, 2), [](Feed& f) { f.reward[3] = f.reward[5] = std::nanf(""); });
  refused(noted(dev::Fault::kReward, 3, 1), [](Feed& f) { f.reward[6] = -INFINITY; });
  refused(noted(dev::Fault::kAction, 2, 1), [](Feed& f) { f.action[4] = 5; });
  refused(noted(dev::Fault::kAction, 2, 2), [](Feed& f) { f.action[5] = -1; });
  refused(noted(dev::Fault::kFinalAt, 0, 0), [](Feed& f) { f.final_at[0] = 4; });
  refused(noted(dev::Fault::kFinalAt, 0, 0), [](Feed& f) { f.final_at[1] = 2; });
  refused(noted(dev::Fault::kFinalAt, 1, 0), [](Feed& f) {
    f.final_at.insert(f.final_at.begin(), {f.final_at[0], f.final_at[1]});
    f.final_frame.insert(f.final_frame.end(), 8, 1), ++f.finals;
  });
  refused(noted(dev::Fault::kLacksFinal, cut_t, cut_i + 1), [](Feed& f) {
    f.final_at.clear(), f.final_frame.clear(), f.finals = 0;
    std::fill(f.terminated.begin(), f.terminated.end(), std::uint8_t{0});
  });
  refused(noted(dev::Fault::kEnded, 0, 1), [&](Feed& f) {
    f.make(1, 2, 1);
    std::fill(f.first.begin(), f.first.end(), std::uint8_t{0});
    std::fill(f.terminated.begin(), f.terminated.end(), std::uint8_t{0});
    std::fill(f.truncated.begin(), f.truncated.end(), std::uint8_t{0});
    f.final_at.clear(), f.final_frame.clear(), f.finals = 0;
    const std::size_t newest = device.memory.place(1, device.count[1] - 1);
    device.bits[newest] = static_cast<std::uint8_t>(device.bits[newest] | rlp::kTerminated);
    before.bits = device.bits;
  });

  const auto update_refused = [&](std::int64_t expected, std::vector<std::int64_t> index, std::vector<double> priority) {
    std::vector<std::int64_t> leaf(index.size());
    dev::update_priority(queue, device.memory, index.data(), priority.data(), index.size(), leaf.data());
    CHECK(device.scalars.fault == expected);
    CHECK(Kept(device) == before);
    for (const std::int32_t claim : device.claim) CHECK(claim == 0);
    device.scalars.fault = dev::kNoFault;
  };
  const std::int64_t good = device.items()[0], next = device.count[0] * 3;
  update_refused(noted(dev::Fault::kPriority, 1, 0), {good, good, good}, {1.0, std::nan(""), -1.0});
  update_refused(noted(dev::Fault::kPriority, 0, 0), {good}, {-1e-9});
  update_refused(noted(dev::Fault::kPriority, 1, 0), {good, good}, {1.0, INFINITY});
  update_refused(noted(dev::Fault::kUnknown, 1, 0), {good, next}, {1.0, 1.0});
  update_refused(noted(dev::Fault::kUnknown, 0, 0), {-1, good}, {1.0, 1.0});
  update_refused(noted(dev::Fault::kUnknown, 0, 0), {std::numeric_limits<std::int64_t>::min()}, {1.0});

  Output out(c, 2, 1);
  const std::int64_t items[] = {good, next};
  device.scalars.n = 3;
  dev::gather(queue, device.memory, items, out.device());
  CHECK(device.scalars.fault == noted(dev::Fault::kIneligible, 1, 0));
  CHECK(out.index[0] == good && out.index[1] == -1 && out.n_return[1] == 0.0f && out.priority[1] == 0.0);
  device.scalars.fault = dev::kNoFault;
  for (const std::int64_t n : {std::int64_t{0}, std::int64_t{4}}) {
    device.scalars.n = n;
    dev::sample(queue, device.memory, out.device());
    CHECK(device.scalars.fault == noted(dev::Fault::kQuery, 0, 0));
    device.scalars.fault = dev::kNoFault;
  }
}

void float_frames_are_finite(dev::Order order) {
  const dev::HostQueue queue(0, static_cast<std::uintptr_t>(order));
  for (const std::size_t size : {sizeof(float), sizeof(double)}) {
    const Case c{3 * size, 2, 2, 10, {3, 0}, 0.0};
    Device device(c);
    device.memory.frame_float = static_cast<std::int64_t>(size);
    Feed feed{c, {5, 0}};
    feed.make(4, 2, 0);
    std::fill(feed.frame.begin(), feed.frame.end(), std::uint8_t{1});
    std::fill(feed.final_frame.begin(), feed.final_frame.end(), std::uint8_t{1});
    feed.frame[5 * 3 * size + 2 * size - 1] = 0x7F, feed.frame[5 * 3 * size + 2 * size - 2] = 0xFF;  // NaN in step 2 of stream 1
    feed.add_to(device, queue, 1);  // the unused row is not looked at
    CHECK(device.scalars.fault == noted(dev::Fault::kFrame, 2, 1));
    CHECK(device.count[0] == 0);
  }
}

// Shifts and intensities are those of a Stream, in its order.
void augmentation_draws() {
  for (const std::size_t images : {1u, 3u, 4u, 5u, 33u}) {
    rlp::Stream cpu{42, 1000};
    dev::DeviceStream gpu{42, 1000};
    std::vector<std::int64_t> shift(2 * images);
    std::vector<float> intensity(images), normal(images);
    std::vector<double> uniform(2 * images);
    cpu.uniform(uniform.data(), uniform.size());
    cpu.normal(normal.data(), images);
    dev::draw_augmentation(dev::HostQueue(0, 2), {&gpu, images, 4, 0.05f, 2.0f, shift.data(), intensity.data()});
    for (std::size_t m = 0; m < 2 * images; ++m) CHECK(shift[m] == static_cast<std::int64_t>(uniform[m] * 8.0) - 4);
    for (std::size_t m = 0; m < images; ++m)
      CHECK(intensity[m] == 1.0f + 0.05f * std::clamp(normal[m], -2.0f, 2.0f));
    CHECK(gpu.counter == cpu.counter && gpu.key == cpu.key);
  }
}

void every_order_meets_every_thread() {
  for (const std::uintptr_t order : {0u, 1u, 2u})
    for (std::size_t n = 0; n < 70; ++n) {
      std::vector<int> met(n);
      dev::HostQueue(0, order).threads(n, [&](std::size_t i) { ++met[i]; });
      for (const int times : met) CHECK(times == 1);
    }
}

}  // namespace

int main() {
  every_order_meets_every_thread();
  const Case cases[] = {
      {16, 4, 2, 17, {3, 2}, 0.5},  {48, 4, 3, 8, {3, 2}, 0.5}, {3, 3, 1, 9, {1, 4}, 1.0}, {4, 1, 5, 7, {4, 0}, 0.0},
      {10, 2, 2, 40, {2, 3}, 0.25}, {8, 4, 1, 64, {10, 5}, 0.5},
  };
  for (const dev::Order order : {dev::Order::kForward, dev::Order::kBackward, dev::Order::kScattered}) {
    for (const Case& c : cases) long_run(c, order);
    refusals(order);
    float_frames_are_finite(order);
  }
  augmentation_draws();
  return check::failures();
}
