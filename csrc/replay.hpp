#pragma once
// Prioritised replay of n-step transitions and subsequences, frames stored once.
//
// An item is named by its insertion number, seq * streams + stream: unique for ever, so that a late message about an
// item that was overwritten is recognised. With H = max(max_n, max_k), a step is *eligible* for sampling once the H
// slots after it exist or its episode ended before, and as long as no frame of its observation is overwritten. Which n
// and k a call asks for has no influence on what it draws.

#include <cmath>
#include <mutex>
#include <shared_mutex>
#include <stdexcept>

#include "power.hpp"
#include "random.hpp"
#include "ring.hpp"
#include "sum_tree.hpp"

namespace rlp {

struct Horizon {
  std::int64_t max_n;  // longest n-step return, >= 1
  std::int64_t max_k;  // longest subsequence after the first observation, >= 0
};

// T steps of N environments, [T, N, ...] row-major; environment i is stream first_env + i.
struct RolloutView {
  std::size_t steps, envs, first_env;
  const std::byte* frame;          // [T, N, frame]
  const std::uint8_t* first;       // [T, N]
  const std::byte* action;         // [T, N, action]
  const float* reward;             // [T, N]
  const std::uint8_t* terminated;  // [T, N]
  const std::uint8_t* truncated;   // [T, N]
  std::size_t finals;              // E
  const std::byte* final_frame;    // [E, frame]
  const std::int64_t* final_at;    // [E, 2]: (t, i), ascending
};

// Where a batch is written; h = max(k, 1).
struct BatchView {
  std::byte* obs;            // [B, k + 1, stack, frame]
  std::byte* action;         // [B, h, action]
  float* reward;             // [B, h]
  std::uint8_t* terminated;  // [B, h]
  std::uint8_t* mask;        // [B, k]
  float* n_return;           // [B]
  float* discount;           // [B]
  std::byte* next_obs;       // [B, stack, frame]
  std::int64_t* index;       // [B]
  double* priority;          // [B]
};

// What a call asks for.
struct Query {
  std::size_t batch;
  std::int64_t n;
  std::int64_t k;
  const double* gamma;  // [B], each in [0, 1]
};

// Thread safe: one lock, mutex_, shared by readers (sample, gather) and taken alone by writers (add, update_priority).
// A call that throws has changed nothing.
class Replay {
 public:
  // Largest priority, so that the sum of 2^27 of them is finite.
  static constexpr double kMaxPriority = 1e300;

  // `alpha` >= 0 is the exponent of the priorities. Throws std::system_error where there is no room for the frames.
  Replay(const RingShape& shape, const Horizon& horizon, double alpha, const std::string& folder)
      : horizon_(horizon),
        reach_(std::max(horizon.max_n, horizon.max_k)),
        alpha_(alpha),
        ring_(shape, folder),
        tree_(ring_.slots()),
        priority_(ring_.slots(), 0.0),
        eligible_(ring_.slots(), 0),
        pending_(shape.streams, 0) {}

  // The least slots a stream must have: H + stack, and one for the final frame of a truncated episode.
  [[nodiscard]] static std::int64_t least_slots(std::int64_t stack, const Horizon& horizon) noexcept {
    return std::max(horizon.max_n, horizon.max_k) + stack + 1;
  }

  // Append a rollout. New items enter at the largest priority ever recorded. O(stack + log slots) a step beside the copy
  // of its frame. Throws std::invalid_argument for a stream out of range, a reward that is not finite, a truncation
  // without its final frame, and an episode that goes on after its end.
  void add(const RolloutView& rollout) {
    const std::unique_lock lock(mutex_);
    check(rollout);
    std::size_t finals = 0;
    for (std::size_t t = 0; t < rollout.steps; ++t)
      for (std::size_t i = 0; i < rollout.envs; ++i) {
        const std::size_t row = t * rollout.envs + i, stream = rollout.first_env + i;
        const bool cut = rollout.truncated[row] && !rollout.terminated[row];
        const int bits =
            (rollout.first[row] ? kFirst : 0) | (rollout.terminated[row] ? kTerminated : 0) | (cut ? kTruncated : 0);
        append(stream, rollout.frame + row * shape().frame_bytes, rollout.action + row * shape().action_bytes,
               rollout.reward[row], static_cast<std::uint8_t>(bits));
        const bool final = is_final(rollout, finals, t, i);
        if (cut) append(stream, rollout.final_frame + finals * shape().frame_bytes, nullptr, 0.0f, kFinal);
        finals += final;
        settle(stream);
      }
  }

  // Stratified draws in proportion to the priorities, u_j = (j + U_j) / B with U_j from `stream` (ceil(B / 2) blocks),
  // and their transitions. Throws std::runtime_error where nothing can be drawn.
  void sample(const Query& query, Stream stream, const BatchView& out) const {
    const std::shared_lock lock(mutex_);
    draw_items(query.batch, stream, out.priority, out.index);  // copy_out writes the priorities over the draws
    copy_out(query, out);
  }

  // The items alone that sample() would draw: index [batch]; u [batch] is working memory.
  void draw(std::size_t batch, Stream stream, double* u, std::int64_t* index) const {
    const std::shared_lock lock(mutex_);
    draw_items(batch, stream, u, index);
  }

  // The transitions of given eligible items, [B]. Throws std::invalid_argument for any other.
  void gather(const std::int64_t* index, const Query& query, const BatchView& out) const {
    const std::shared_lock lock(mutex_);
    for (std::size_t j = 0; j < query.batch; ++j)
      if (!is_known(index[j]) || !is_live(index[j]) || !eligible_[place_of(index[j])])
        throw std::invalid_argument("item " + std::to_string(index[j]) + " is not eligible");
    std::copy_n(index, query.batch, out.index);
    copy_out(query, out);
  }

  // The items' priorities become priority^alpha; the last one stays where an item comes twice; one that was overwritten
  // is ignored, one that is not eligible yet keeps its priority for later. Throws std::invalid_argument for a priority
  // that is NaN, negative or too large, and a number that names no step.
  void update_priority(const std::int64_t* index, const double* priority, std::size_t n) {
    std::vector<std::size_t> leaf;
    std::vector<double> value(n);
    leaf.reserve(n);
    for (std::size_t j = 0; j < n; ++j) {
      value[j] = power(priority[j], alpha_);
      if (!(priority[j] >= 0.0) || !(value[j] <= kMaxPriority) || !std::isfinite(priority[j]))
        throw std::invalid_argument("priority " + std::to_string(j) + " is " + std::to_string(priority[j]) +
                                    "; it must be >= 0, and its power at most 1e300");
    }
    const std::unique_lock lock(mutex_);
    for (std::size_t j = 0; j < n; ++j)
      if (!is_known(index[j]) || (is_live(index[j]) && (ring_.bits(place_of(index[j])) & kFinal)))
        throw std::invalid_argument("index " + std::to_string(index[j]) + " does not name a step in the replay");
    for (std::size_t j = 0; j < n; ++j) {
      if (!is_live(index[j])) continue;
      const std::size_t place = place_of(index[j]);
      priority_[place] = value[j];
      max_priority_ = std::max(max_priority_, value[j]);
      if (eligible_[place]) leaf.push_back(place);
    }
    for (std::size_t j = 0; j < leaf.size(); ++j) value[j] = priority_[leaf[j]];
    tree_.set(leaf.data(), value.data(), leaf.size());
  }

  // Steps stored, eligible or not.
  [[nodiscard]] std::int64_t size() const {
    const std::shared_lock lock(mutex_);
    return size_;
  }
  [[nodiscard]] bool can_sample() const {
    const std::shared_lock lock(mutex_);
    return tree_.total() > 0.0;
  }
  // The items that can be drawn (those of priority 0 included), ascending. O(slots).
  [[nodiscard]] std::vector<std::int64_t> eligible() const {
    const std::shared_lock lock(mutex_);
    std::vector<std::int64_t> out;
    for (std::size_t place = 0; place < ring_.slots(); ++place)
      if (eligible_[place]) out.push_back(index_at(place));
    std::sort(out.begin(), out.end());
    return out;
  }
  // Mean of |reward| over the steps stored, eligible or not; 0 where there are none. Summed in double in order of place: a
  // function of what is stored, so that a replay that was saved and loaded gives the same bits. O(slots).
  [[nodiscard]] double mean_abs_reward() const {
    const std::shared_lock lock(mutex_);
    double sum = 0.0;
    for (std::size_t stream = 0; stream < shape().streams; ++stream) {
      const std::size_t begin = ring_.place(stream, 0);
      const auto filled = static_cast<std::size_t>(ring_.count(stream) - ring_.oldest(stream));
      for (std::size_t place = begin; place < begin + filled; ++place)
        sum += std::abs(static_cast<double>(ring_.reward(place)));  // 0 beside a final frame
    }
    return size_ > 0 ? sum / static_cast<double>(size_) : 0.0;
  }
  [[nodiscard]] std::size_t bytes() const noexcept {
    return ring_.bytes() + tree_.bytes() + priority_.size() * sizeof(double) + eligible_.size();
  }
  [[nodiscard]] const RingShape& shape() const noexcept { return ring_.shape(); }
  [[nodiscard]] const Horizon& horizon() const noexcept { return horizon_; }

  // --- checkpoints: the slots, the number of slots, the priorities; everything else follows from them ---

  [[nodiscard]] std::int64_t count(std::size_t stream) const {
    const std::shared_lock lock(mutex_);
    return ring_.count(stream);
  }
  [[nodiscard]] double max_priority() const {
    const std::shared_lock lock(mutex_);
    return max_priority_;
  }
  // The priorities by place, [slots]: stream by stream.
  void read_priorities(double* out) const {
    const std::shared_lock lock(mutex_);
    std::copy(priority_.begin(), priority_.end(), out);
  }
  // Slots begin <= seq < end of a stream. Throws std::out_of_range where they are not there (any more).
  void read_slots(std::size_t stream, std::int64_t begin, std::int64_t end, std::byte* frame, std::byte* action,
                  float* reward, std::uint8_t* bits) const {
    const std::shared_lock lock(mutex_);
    if (begin < ring_.oldest(stream) || end > ring_.count(stream) || begin > end)
      throw std::out_of_range("slots " + std::to_string(begin) + " to " + std::to_string(end) + " of stream " +
                              std::to_string(stream) + " are not in the replay");
    for (std::int64_t seq = begin; seq < end; ++seq) {
      const std::size_t place = ring_.place(stream, seq), row = static_cast<std::size_t>(seq - begin);
      std::memcpy(frame + row * shape().frame_bytes, ring_.frame(place), shape().frame_bytes);
      std::memcpy(action + row * shape().action_bytes, ring_.action(place), shape().action_bytes);
      reward[row] = ring_.reward(place);
      bits[row] = ring_.bits(place);
    }
  }
  // Put slots back, in ascending order of seq. Only into a replay that is then given to restore().
  void write_slots(std::size_t stream, std::int64_t begin, std::int64_t end, const std::byte* frame,
                   const std::byte* action, const float* reward, const std::uint8_t* bits) {
    const std::unique_lock lock(mutex_);
    for (std::int64_t seq = begin; seq < end; ++seq) {
      const std::size_t row = static_cast<std::size_t>(seq - begin);
      ring_.write(stream, seq, frame + row * shape().frame_bytes, action + row * shape().action_bytes, reward[row],
                  bits[row]);
    }
  }
  // Slots were put back: `count` [streams] of them ever, `priority` [slots]. Works out all the rest. O(slots).
  void restore(const std::int64_t* count, const double* priority, double max_priority) {
    const std::unique_lock lock(mutex_);
    std::copy_n(priority, priority_.size(), priority_.begin());
    std::fill(eligible_.begin(), eligible_.end(), std::uint8_t{0});
    max_priority_ = max_priority;
    size_ = 0;
    for (std::size_t stream = 0; stream < shape().streams; ++stream) {
      ring_.set_count(stream, count[stream]);
      restore_eligible(stream);
    }
    std::vector<double> leaf(priority_);
    for (std::size_t place = 0; place < leaf.size(); ++place)
      if (!eligible_[place]) leaf[place] = 0.0;
    tree_.assign(leaf.data());
  }

 private:
  // --- numbers ---
  [[nodiscard]] std::size_t stream_of(std::int64_t index) const noexcept {
    return static_cast<std::size_t>(index) % shape().streams;
  }
  [[nodiscard]] std::int64_t seq_of(std::int64_t index) const noexcept {
    return index / static_cast<std::int64_t>(shape().streams);
  }
  [[nodiscard]] std::size_t place_of(std::int64_t index) const noexcept {
    return ring_.place(stream_of(index), seq_of(index));
  }
  [[nodiscard]] std::int64_t index_at(std::size_t place) const noexcept {
    return ring_.seq_at(place) * static_cast<std::int64_t>(shape().streams) +
           static_cast<std::int64_t>(place / shape().per_stream);
  }
  [[nodiscard]] bool is_known(std::int64_t index) const noexcept {
    return index >= 0 && seq_of(index) < ring_.count(stream_of(index));
  }
  [[nodiscard]] bool is_live(std::int64_t index) const noexcept {
    return seq_of(index) >= ring_.oldest(stream_of(index));
  }

  // --- adding ---
  [[nodiscard]] static bool is_final(const RolloutView& r, std::size_t e, std::size_t t, std::size_t i) noexcept {
    return e < r.finals && r.final_at[2 * e] == static_cast<std::int64_t>(t) &&
           r.final_at[2 * e + 1] == static_cast<std::int64_t>(i);
  }

  void check(const RolloutView& r) const {
    const auto refuse = [](const std::string& what, std::size_t t, std::size_t stream) {
      throw std::invalid_argument(what + " (step " + std::to_string(t) + " of the rollout, stream " +
                                  std::to_string(stream) + ")");
    };
    if (r.first_env > shape().streams || r.envs > shape().streams - r.first_env)
      throw std::invalid_argument("streams " + std::to_string(r.first_env) + " to " +
                                  std::to_string(r.first_env + r.envs) + " are beyond the replay's " +
                                  std::to_string(shape().streams));
    std::size_t finals = 0;
    for (std::size_t t = 0; t < r.steps; ++t)
      for (std::size_t i = 0; i < r.envs; ++i) {
        const std::size_t row = t * r.envs + i, stream = r.first_env + i;
        const bool final = is_final(r, finals, t, i), ends = r.terminated[row] || r.truncated[row];
        const bool ended = t ? r.terminated[row - r.envs] || r.truncated[row - r.envs] : has_ended(stream);
        if (!std::isfinite(r.reward[row])) refuse("the reward is " + std::to_string(r.reward[row]), t, stream);
        if (ended && !r.first[row]) refuse("the episode ended, and yet this step does not begin one", t, stream);
        if (ends && !r.terminated[row] && !final) refuse("truncated, but final_frame lacks the last frame", t, stream);
        if (final && !ends) refuse("a final frame of an episode that goes on", t, stream);
        finals += final;
      }
    if (finals != r.finals)
      throw std::invalid_argument("final_at must hold (t, i) within the rollout, in ascending order");
  }

  [[nodiscard]] bool has_ended(std::size_t stream) const noexcept {
    return ring_.count(stream) > 0 &&
           (ring_.bits(ring_.place(stream, ring_.count(stream) - 1)) & (kTerminated | kFinal));
  }

  void append(std::size_t stream, const std::byte* frame, const std::byte* action, float reward, std::uint8_t bits) {
    const std::int64_t seq = ring_.count(stream), oldest = ring_.oldest(stream);
    const std::size_t place = ring_.place(stream, seq);
    if (seq - oldest == static_cast<std::int64_t>(shape().per_stream)) {  // `oldest` is overwritten
      size_ -= !(ring_.bits(place) & kFinal);
      revoke(place);
      for (std::int64_t d = 1; d < static_cast<std::int64_t>(shape().stack); ++d) {  // and with it these stacks
        const std::size_t later = ring_.place(stream, oldest + d);
        if (ring_.bits(later) & kFirst) break;
        revoke(later);
      }
    }
    if (bits & kFirst) pending_[stream] = seq;  // what still waited for this episode to go on will never see it
    ring_.push(stream, frame, action, reward, bits);
    priority_[place] = bits & kFinal ? 0.0 : max_priority_;
    size_ += !(bits & kFinal);
  }

  void revoke(std::size_t place) noexcept {
    if (!eligible_[place]) return;
    eligible_[place] = 0;
    tree_.set(place, 0.0);
  }

  // Steps whose window is complete become eligible: those H slots back, or all where the episode just ended.
  void settle(std::size_t stream) noexcept {
    const std::int64_t newest = ring_.count(stream) - 1, last = has_ended(stream) ? newest : newest - reach_;
    for (; pending_[stream] <= last; ++pending_[stream]) {
      const std::size_t place = ring_.place(stream, pending_[stream]);
      if (ring_.bits(place) & kFinal || ring_.depth(stream, pending_[stream]) == 0) continue;
      eligible_[place] = 1;
      tree_.set(place, priority_[place]);
    }
  }

  // settle() and revoke() of all that happened to a stream, from its slots alone.
  void restore_eligible(std::size_t stream) noexcept {
    const std::int64_t count = ring_.count(stream);
    std::int64_t pending = ring_.oldest(stream);
    for (std::int64_t seq = ring_.oldest(stream); seq < count; ++seq) {
      const std::size_t bits = ring_.bits(ring_.place(stream, seq));
      size_ += !(bits & kFinal);
      if (bits & kFirst) pending = seq;
      const std::int64_t last = bits & (kTerminated | kFinal) ? seq : seq - reach_;
      for (; pending <= last; ++pending) {
        const std::size_t place = ring_.place(stream, pending);
        eligible_[place] = !(ring_.bits(place) & kFinal) && ring_.depth(stream, pending) > 0;
      }
    }
    pending_[stream] = pending;
  }

  // --- reading ---
  [[nodiscard]] std::string why_empty() const {
    if (std::find(eligible_.begin(), eligible_.end(), 1) != eligible_.end())
      return "nothing to sample: all eligible priorities are 0";
    return "nothing to sample yet: a step can be drawn once " + std::to_string(reach_) +
           " more follow it, or its episode ended";
  }

  void draw_items(std::size_t batch, Stream stream, double* u, std::int64_t* index) const {
    if (!(tree_.total() > 0.0)) throw std::runtime_error(why_empty());
    stream.uniform(u, batch);
    for (std::size_t j = 0; j < batch; ++j) u[j] = (static_cast<double>(j) + u[j]) / static_cast<double>(batch);
    tree_.find(u, index, batch);
    for (std::size_t j = 0; j < batch; ++j) index[j] = index_at(static_cast<std::size_t>(index[j]));
  }

  void copy_out(const Query& query, const BatchView& out) const noexcept {
    for (std::size_t b = 0; b < query.batch; ++b) {
      if (b + 1 < query.batch) {
        const std::int64_t next = out.index[b + 1];
        ring_.prefetch(stream_of(next), seq_of(next));
        ring_.prefetch(stream_of(next), seq_of(next) + query.n);
      }
      copy_sequence(query, b, out);
      copy_n_step(query, b, out);
      out.priority[b] = priority_[place_of(out.index[b])];
    }
  }

  // obs, action, reward, terminated, mask of item b: 0 after its episode's end.
  void copy_sequence(const Query& query, std::size_t b, const BatchView& out) const noexcept {
    const std::size_t stream = stream_of(out.index[b]), observation = shape().stack * shape().frame_bytes;
    const std::size_t k = static_cast<std::size_t>(query.k), h = std::max<std::size_t>(k, 1);
    const std::int64_t seq = seq_of(out.index[b]);
    std::byte* obs = out.obs + b * (k + 1) * observation;
    ring_.copy_stack(stream, seq, obs);
    bool goes_on = true;  // nothing ended in seq, ..., seq + j - 1
    for (std::size_t j = 0; j < h; ++j) {
      const std::size_t row = b * h + j;
      std::byte* action = out.action + row * shape().action_bytes;
      std::uint8_t bits = kEnd;
      if (goes_on) {
        const std::size_t place = ring_.place(stream, seq + static_cast<std::int64_t>(j));
        bits = ring_.bits(place);
        std::memcpy(action, ring_.action(place), shape().action_bytes);
        out.reward[row] = ring_.reward(place);
        out.terminated[row] = (bits & kTerminated) != 0;
      } else {
        std::memset(action, 0, shape().action_bytes);
        out.reward[row] = 0.0f;
        out.terminated[row] = 0;
      }
      goes_on = !(bits & kEnd);
      if (j == k) break;  // k = 0: no observation follows
      out.mask[b * k + j] = goes_on;
      std::byte* next = obs + (j + 1) * observation;
      if (goes_on) ring_.copy_stack(stream, seq + static_cast<std::int64_t>(j) + 1, next);
      else std::memset(next, 0, observation);
    }
  }

  // n_return, discount and next_obs of item b, over m = min(n, steps to the episode's end) steps; summed in double.
  void copy_n_step(const Query& query, std::size_t b, const BatchView& out) const noexcept {
    const std::size_t stream = stream_of(out.index[b]), observation = shape().stack * shape().frame_bytes;
    const std::int64_t seq = seq_of(out.index[b]);
    double sum = 0.0, discount = 1.0;
    std::int64_t m = 0;
    std::uint8_t bits = 0;
    while (m < query.n && !(bits & kEnd)) {
      const std::size_t place = ring_.place(stream, seq + m);
      sum += discount * static_cast<double>(ring_.reward(place));
      discount *= query.gamma[b];
      bits = ring_.bits(place);
      ++m;
    }
    const bool terminated = bits & kTerminated;
    out.n_return[b] = static_cast<float>(sum);
    out.discount[b] = terminated ? 0.0f : static_cast<float>(discount);
    std::byte* next = out.next_obs + b * observation;
    if (terminated) std::memset(next, 0, observation);
    else ring_.copy_stack(stream, seq + m, next);
  }

  const Horizon horizon_;
  const std::int64_t reach_;  // H
  const double alpha_;
  mutable std::shared_mutex mutex_;
  Ring ring_;
  SumTree tree_;                        // by place: the priority of what is eligible, else 0
  std::vector<double> priority_;        // by place: priority^alpha, eligible or not
  std::vector<std::uint8_t> eligible_;  // by place
  std::vector<std::int64_t> pending_;   // by stream: the first seq whose eligibility is not decided
  std::int64_t size_ = 0;
  double max_priority_ = 1.0;
};

}  // namespace rlp
