#pragma once
// N environments of one kind, stepped together on a thread pool.

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <type_traits>
#include <vector>

#include "random.hpp"
#include "thread_pool.hpp"

namespace rlp {

// What one step of one environment said beside its frame.
struct Outcome {
  float reward = 0.0f;
  bool terminated = false;
  bool truncated = false;
};

// What an environment draws a frame of: E::Cell, or bytes where it names none.
template <typename E>
struct CellOf {
  using type = std::uint8_t;
};
template <typename E>
  requires requires { typename E::Cell; }
struct CellOf<E> {
  using type = typename E::Cell;
};
template <typename E>
using Cell = typename CellOf<E>::type;

// One environment: a small trivially copyable value, so that the same code runs on the CPU and on a GPU. It owns neither
// memory nor randomness: frames go where draw() is told, random numbers come from the stream it is handed.
//   saved     the integers that save() gives. load() takes them back, or says false where no such state exists.
template <typename E>
concept Game = std::is_trivially_copyable_v<E> &&
               requires(E env, const E fixed, Stream& stream, Cell<E>* frame, const std::int64_t* in, std::int64_t* out) {
                 { E::saved } -> std::convertible_to<std::size_t>;
                 { fixed.frame_size() } -> std::convertible_to<std::size_t>;
                 { env.reset(stream) } -> std::same_as<void>;
                 { fixed.draw(frame) } -> std::same_as<void>;
                 { fixed.save(out) } -> std::same_as<void>;
                 { env.load(in) } -> std::same_as<bool>;
               };

// An action is one of 0, ..., actions() - 1.
template <typename E>
concept Discrete = Game<E> && requires(E env, const E fixed, Stream& stream) {
  { fixed.actions() } -> std::convertible_to<std::int64_t>;
  { env.step(std::int64_t{}, stream) } -> std::same_as<Outcome>;
};

// An action is `action_size` numbers in [-1, 1].
template <typename E>
concept Continuous = Game<E> && requires(E env, Stream& stream, const float* action) {
  { E::action_size } -> std::convertible_to<std::size_t>;
  { env.step(action, stream) } -> std::same_as<Outcome>;
};

template <typename E>
concept Env = Discrete<E> || Continuous<E>;

// Where a step's results go, row i for environment i: frame and final_frame [N, frame_size], the rest [N].
template <typename Cell = std::uint8_t>
struct StepOut {
  Cell* frame;
  float* reward;
  bool* terminated;
  bool* truncated;
  bool* reset;
  Cell* final_frame;  // written in the rows where `reset` is true, and only there
};

// Same-step auto-reset: an environment whose game ended has begun the next one when step() returns; the frame on which it
// ended is in final_frame. Environment i draws from its own stream, so results depend neither on N nor on threads.
//
// Not thread safe: one call at a time.
template <Env E>
class EnvBatch {
 public:
  using Cell = rlp::Cell<E>;
  using Action = std::conditional_t<Continuous<E>, float, std::int64_t>;

  // Numbers in one environment's action.
  static constexpr std::size_t action_size = [] {
    if constexpr (Continuous<E>) {
      return std::size_t{E::action_size};
    } else {
      return std::size_t{1};
    }
  }();

  // One environment for each key; `prototype` holds the settings they share.
  EnvBatch(const E& prototype, const std::uint64_t* key, std::size_t n, std::size_t threads)
      : env_(n, prototype), stream_(n), pool_(std::make_unique<ThreadPool>(std::max<std::size_t>(1, std::min(threads, n)))) {
    for (std::size_t i = 0; i < n; ++i) stream_[i].key = key[i];
  }

  [[nodiscard]] std::size_t size() const noexcept { return env_.size(); }
  [[nodiscard]] std::size_t frame_size() const noexcept { return prototype().frame_size(); }
  [[nodiscard]] bool started() const noexcept { return started_; }
  [[nodiscard]] const E& prototype() const noexcept { return env_.front(); }

  // How many discrete actions there are; 0 where actions are continuous.
  [[nodiscard]] std::int64_t actions() const noexcept {
    if constexpr (Continuous<E>) {
      return 0;
    } else {
      return prototype().actions();
    }
  }

  // Begin a game everywhere; frame is [N, frame_size].
  void reset(Cell* frame) {
    const std::size_t cells = frame_size();
    pool_->parallel_for(size(), [&](std::size_t begin, std::size_t end) {
      for (std::size_t i = begin; i < end; ++i) {
        env_[i].reset(stream_[i]);
        env_[i].draw(frame + i * cells);
      }
    });
    started_ = true;
  }

  // Where in action [N, action_size] the first number is that is no action: outside [0, actions()), or outside [-1, 1] or
  // NaN. size() * action_size where all are good.
  [[nodiscard]] std::size_t first_bad_action(const Action* action) const noexcept {
    const auto bad = [bound = actions()](Action a) {
      if constexpr (Continuous<E>) {
        return !(a >= -1.0f && a <= 1.0f);
      } else {
        return a < 0 || a >= bound;
      }
    };
    const std::size_t numbers = size() * action_size;
    return static_cast<std::size_t>(std::find_if(action, action + numbers, bad) - action);
  }

  // One agent step everywhere. Needs started() and actions in range.
  void step(const Action* action, const StepOut<Cell>& out) {
    const std::size_t cells = frame_size();
    pool_->parallel_for(size(), [&](std::size_t begin, std::size_t end) {
      for (std::size_t i = begin; i < end; ++i) {
        const Outcome outcome = stepped(env_[i], action + i * action_size, stream_[i]);
        const bool over = outcome.terminated || outcome.truncated;
        if (over) {
          env_[i].draw(out.final_frame + i * cells);
          env_[i].reset(stream_[i]);
        }
        env_[i].draw(out.frame + i * cells);
        out.reward[i] = outcome.reward;
        out.terminated[i] = outcome.terminated;
        out.truncated[i] = outcome.truncated;
        out.reset[i] = over;
      }
    });
  }

  // Everything that decides what comes next: per environment E::saved integers, and its stream.
  void save(std::int64_t* env, std::uint64_t* key, std::uint64_t* counter) const noexcept {
    for (std::size_t i = 0; i < size(); ++i) {
      env_[i].save(env + i * E::saved);
      key[i] = stream_[i].key;
      counter[i] = stream_[i].counter;
    }
  }

  // Back to what save() gave. Returns size(), or the number of the first environment whose integers are no state of it;
  // then nothing has changed.
  std::size_t load(const std::int64_t* env, const std::uint64_t* key, const std::uint64_t* counter, bool started) {
    std::vector<E> loaded(env_);
    for (std::size_t i = 0; i < size(); ++i)
      if (!loaded[i].load(env + i * E::saved)) return i;
    env_ = std::move(loaded);
    for (std::size_t i = 0; i < size(); ++i) stream_[i] = Stream{key[i], counter[i]};
    started_ = started;
    return size();
  }

 private:
  static Outcome stepped(E& env, const Action* action, Stream& stream) {
    if constexpr (Continuous<E>) {
      return env.step(action, stream);
    } else {
      return env.step(*action, stream);
    }
  }

  std::vector<E> env_;
  std::vector<Stream> stream_;
  std::unique_ptr<ThreadPool> pool_;
  bool started_ = false;
};

}  // namespace rlp
