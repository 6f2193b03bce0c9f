#pragma once
// Drawing items, and all that is small about them: Replay::sample and Replay::gather without the observations.
//
// What is drawn is the CPU's to the bit, given equal priorities: the same blocks of the same stream, the same sums, the same
// walk. Traffic is a few hundred bytes an item, mostly of cache lines of 32 bytes that are used in part: (2 n + k) slots and
// log2(slots) nodes each. The bound is the wait of one load for the next, log2(slots) times in a draw; so the walks of all
// items go side by side, and so do the rows of an item, each a thread that finds for itself where its episode ends.

#include <cstddef>
#include <cstdint>

#include "cuda/replay_memory.cuh"
#include "cuda/replay_tree.cuh"
#include "random.hpp"

namespace rlp::cuda {

// Where a batch is written, on the device; h = max(k, 1). `source` says where the k + 1 observations and the next one lie, for
// those who read them (replay_gather.cuh, augment.cuh).
struct DeviceBatch {
  std::size_t batch;
  std::int64_t k;
  std::byte* action;         // [B, h, action]
  float* reward;             // [B, h]
  std::uint8_t* terminated;  // [B, h]
  std::uint8_t* mask;        // [B, k]
  float* n_return;           // [B]
  float* discount;           // [B]
  std::int64_t* index;       // [B]
  double* priority;          // [B]
  Source* source;            // [B, k + 2]
};

// Item j is where the cumulative sum of priorities reaches u_j = (j + U_j) / B of their total, U_j from the replay's stream,
// which then has given ceil(B / 2) blocks more. Where nothing can be drawn all indices are -1.
struct Draw {
  static constexpr unsigned kPhases = 3;
  Memory memory;
  DeviceBatch out;

  RLP_HD void operator()(unsigned phase, std::size_t j) const noexcept {
    Scalars& scalars = *memory.scalars;
    if (phase == 0 && j == 0) open_call(scalars);
    if (phase == 1) out.index[j] = drawn(j);
    if (phase == 1 && j == 0 && !(memory.tree[1] > 0.0)) refuse(scalars, Fault::kEmpty, 0);
    if (phase == 2 && j == 0 && memory.tree[1] > 0.0) scalars.counter += (out.batch + 1) / 2;
  }

  RLP_HD std::int64_t drawn(std::size_t j) const noexcept {
    if (!(memory.tree[1] > 0.0)) return -1;
    const Block block = philox(memory.scalars->key, memory.scalars->counter + j / 2);
    const double unit = to_unit(block.word[j % 2 * 2], block.word[j % 2 * 2 + 1]);
    const double u = (static_cast<double>(j) + unit) / static_cast<double>(out.batch);
    return memory.index_at(find_leaf(memory.tree, memory.base, u * memory.tree[1]));
  }
};

// Given items instead of drawn ones: those that are not eligible are refused, and their index becomes -1.
struct Look {
  static constexpr unsigned kPhases = 2;
  Memory memory;
  DeviceBatch out;
  const std::int64_t* index;  // [B]

  RLP_HD void operator()(unsigned phase, std::size_t j) const noexcept {
    if (phase == 0 && j == 0) open_call(*memory.scalars);
    if (phase == 1) {
      const std::size_t stream = memory.stream_of(index[j]);
      const std::int64_t seq = memory.seq_of(index[j]);
      const bool live = index[j] >= 0 && memory.is_live(stream, seq);
      const bool eligible = live && memory.eligible[memory.place(stream, seq)];
      out.index[j] = eligible ? index[j] : -1;
      if (!eligible) refuse(*memory.scalars, Fault::kIneligible, j);
    }
  }
};

// Column o of item b: o <= k is observation o with the step taken from it; o = k + 1 is the n-step return and where it ends.
// All is 0 of an item that is -1, and after the end of an episode. Loops run to their end, so that no load waits for a bit.
struct Fill {
  Memory memory;
  DeviceBatch out;

  RLP_HD void operator()(std::size_t thread) const noexcept {
    const std::size_t columns = static_cast<std::size_t>(out.k) + 2, b = thread / columns;
    const auto o = static_cast<std::int64_t>(thread % columns);
    if (thread == 0) check_query();
    if (o <= out.k) step(b, o);
    else n_step(b);
  }

  RLP_HD void check_query() const noexcept {
    const Scalars& s = *memory.scalars;
    if (s.n < 1 || s.n > memory.max_n || !(s.gamma >= 0.0 && s.gamma <= 1.0)) refuse(*memory.scalars, Fault::kQuery, 0);
  }

  RLP_HD void step(std::size_t b, std::int64_t o) const noexcept {
    const bool real = out.index[b] >= 0;
    const std::int64_t index = real ? out.index[b] : 0, h = out.k > 0 ? out.k : 1;
    const std::size_t stream = memory.stream_of(index), at = memory.place(stream, memory.seq_of(index));
    bool goes_on = real;  // nothing ended in seq, ..., seq + o - 1
    for (std::int64_t j = 0; j < o; ++j) goes_on &= !(memory.bits[memory.later(stream, at, j)] & kEnd);
    if (o > 0) out.mask[b * static_cast<std::size_t>(out.k) + static_cast<std::size_t>(o) - 1] = goes_on;
    if (o == 0) out.priority[b] = real ? memory.priority[at] : 0.0;
    out.source[b * (static_cast<std::size_t>(out.k) + 2) + static_cast<std::size_t>(o)] =
        goes_on ? memory.source(stream, memory.seq_of(index) + o) : Source{0, 0, 0};
    if (o >= h) return;
    const std::size_t row = b * static_cast<std::size_t>(h) + static_cast<std::size_t>(o), from = memory.later(stream, at, o);
    out.reward[row] = goes_on ? memory.reward[from] : 0.0f;
    out.terminated[row] = goes_on && memory.bits[from] & kTerminated;
    const std::size_t bytes = memory.shape.action_bytes;
    for (std::size_t byte = 0; byte < bytes; ++byte)
      out.action[row * bytes + byte] = goes_on ? memory.action[from * bytes + byte] : std::byte{0};
  }

  // Over m = min(n, steps to the episode's end) steps, summed in double, in order.
  RLP_HD void n_step(std::size_t b) const noexcept {
    const bool real = out.index[b] >= 0;
    const std::int64_t index = real ? out.index[b] : 0;
    const std::size_t stream = memory.stream_of(index), at = memory.place(stream, memory.seq_of(index));
    const std::int64_t n = memory.scalars->n < memory.max_n ? memory.scalars->n : memory.max_n;
    const double gamma = memory.scalars->gamma;
    double sum = 0.0, discount = 1.0;
    std::int64_t m = 0;
    bool goes_on = real, terminated = false;
    for (std::int64_t j = 0; j < n; ++j) {
      const std::size_t from = memory.later(stream, at, j);
      const float reward = memory.reward[from];
      const std::uint8_t bits = memory.bits[from];
      sum = goes_on ? sum + discount * static_cast<double>(reward) : sum;
      discount = goes_on ? discount * gamma : discount;
      m += goes_on;
      terminated |= goes_on && bits & kTerminated;
      goes_on &= !(bits & kEnd);
    }
    const bool follows = real && !terminated;
    out.n_return[b] = static_cast<float>(sum);
    out.discount[b] = follows ? static_cast<float>(discount) : 0.0f;
    out.source[b * (static_cast<std::size_t>(out.k) + 2) + static_cast<std::size_t>(out.k) + 1] =
        follows ? memory.source(stream, memory.seq_of(index) + m) : Source{0, 0, 0};
  }
};

template <typename Queue>
void sample(const Queue& queue, const Memory& memory, const DeviceBatch& out) {
  queue.phases(out.batch, Draw::kPhases, Draw{memory, out});
  queue.threads(out.batch * (static_cast<std::size_t>(out.k) + 2), Fill{memory, out});
}

template <typename Queue>
void gather(const Queue& queue, const Memory& memory, const std::int64_t* index, const DeviceBatch& out) {
  queue.phases(out.batch, Look::kPhases, Look{memory, out, index});
  queue.threads(out.batch * (static_cast<std::size_t>(out.k) + 2), Fill{memory, out});
}

}  // namespace rlp::cuda
