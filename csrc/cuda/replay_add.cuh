#pragma once
// Appending a rollout that lies on the device: check, number, write, settle, sum.
//
// Replay::add walks through time; here every step of the rollout is a thread. What makes that possible: which slots a step
// takes follows from the number of truncations before it, and whether a slot is eligible is a function of the slots around it
// (Memory::is_eligible), not of the order in which they came. So after the slots are written, eligibility is worked out anew
// for those whose answer may have changed: the H before the new ones, the new ones, and the stack - 1 after them in the ring.
//
// Traffic: the frames are read once and written once, 2 T N frame_bytes, and that is the bound for images; below some hundred
// frames a call it is the launches: four, five where frames are floats, and more only where thousands of leaves change.

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "cuda/replay_memory.cuh"
#include "cuda/replay_tree.cuh"

namespace rlp::cuda {

// T steps of N environments, [T, N, ...] row-major on the device; environment i is stream first_env + i. Rows of final_at with
// t < 0 are not used, and lie behind the others: a producer on the device need not know their number on the host.
struct DeviceRollout {
  std::size_t steps, envs, first_env;
  const std::byte* frame;
  const std::uint8_t* first;
  const std::byte* action;
  const float* reward;
  const std::uint8_t* terminated;
  const std::uint8_t* truncated;
  std::size_t finals;            // E
  const std::byte* final_frame;  // [E, frame]
  const std::int64_t* final_at;  // [E, 2]: (t, i), ascending
  std::int64_t* seq;             // scratch [T N + E]: the slot of each step, then of each final frame; < 0: none
  std::int64_t* leaf;            // scratch [N, touched]

  RLP_HD std::size_t rows() const noexcept { return steps * envs; }
  RLP_HD bool is_cut(std::size_t row) const noexcept { return truncated[row] && !terminated[row]; }
  RLP_HD bool is_used(std::size_t e) const noexcept { return final_at[2 * e] >= 0; }
  RLP_HD std::size_t final_row(std::size_t e) const noexcept {
    return static_cast<std::size_t>(final_at[2 * e]) * envs + static_cast<std::size_t>(final_at[2 * e + 1]);
  }
  // Which final frame belongs to a step; `finals` where none does. O(log E).
  RLP_HD std::size_t final_of(std::size_t row) const noexcept {
    std::size_t low = 0, high = finals;
    while (low < high) {
      const std::size_t middle = (low + high) / 2;
      if (is_used(middle) && final_row(middle) < row) low = middle + 1;
      else high = middle;
    }
    return low < finals && is_used(low) && final_row(low) == row ? low : finals;
  }
};

// Most slots of a stream whose eligibility may change with `steps` steps, every one of them truncated.
inline std::size_t touched_slots(const Memory& memory, std::size_t steps) noexcept {
  const std::size_t most = static_cast<std::size_t>(memory.reach) + 2 * steps + memory.shape.stack - 1;
  return most < memory.shape.per_stream ? most : memory.shape.per_stream;
}

template <typename Float>
RLP_HD bool is_finite(Float x) noexcept {
  return x - x == Float{0};
}

// What Replay::check refuses, thread by thread: first that final_at is in order, since the rest looks steps up in it.
struct CheckRollout {
  static constexpr unsigned kPhases = 3;
  Memory memory;
  DeviceRollout rollout;

  RLP_HD void operator()(unsigned phase, std::size_t i) const noexcept {
    if (phase == 0 && i == 0) open_call(*memory.scalars);
    if (phase == 1 && i < rollout.finals) check_final(i);
    if (phase == 2 && i < rollout.rows()) check_step(i);
  }

  // Not used, or within the rollout and after the one before it.
  RLP_HD void check_final(std::size_t e) const noexcept {
    rollout.seq[rollout.rows() + e] = -1;  // until NumberSlots finds that its step was truncated
    if (!rollout.is_used(e)) return;
    const std::int64_t t = rollout.final_at[2 * e], i = rollout.final_at[2 * e + 1];
    const bool inside =
        t < static_cast<std::int64_t>(rollout.steps) && 0 <= i && i < static_cast<std::int64_t>(rollout.envs);
    const bool follows = e == 0 || (rollout.is_used(e - 1) && rollout.final_row(e - 1) < rollout.final_row(e));
    if (!inside || !follows) refuse(*memory.scalars, Fault::kFinalAt, e);
  }

  RLP_HD void check_step(std::size_t row) const noexcept {
    const DeviceRollout& r = rollout;
    const std::size_t t = row / r.envs, stream = r.first_env + row % r.envs;
    const bool ends = r.terminated[row] || r.truncated[row], final = r.final_of(row) < r.finals;
    const bool ended = t ? r.terminated[row - r.envs] || r.truncated[row - r.envs] : has_ended(stream);
    if (!is_finite(r.reward[row])) refuse(*memory.scalars, Fault::kReward, t, stream);
    if (ended && !r.first[row]) refuse(*memory.scalars, Fault::kEnded, t, stream);
    if (r.is_cut(row) && !final) refuse(*memory.scalars, Fault::kLacksFinal, t, stream);
    if (final && !ends) refuse(*memory.scalars, Fault::kSpareFinal, t, stream);
    if (memory.actions == 0) return;
    const std::int64_t action = reinterpret_cast<const std::int64_t*>(r.action)[row];
    if (action < 0 || action >= memory.actions) refuse(*memory.scalars, Fault::kAction, t, stream);
  }

  RLP_HD bool has_ended(std::size_t stream) const noexcept {
    if (memory.count[stream] == 0) return false;
    return memory.bits[memory.place(stream, memory.count[stream] - 1)] & (kTerminated | kFinal);
  }
};

// Element `lane` of row r of an array of floats, `width` in a row; rows past those of the steps are final frames'.
template <typename Float>
struct CheckFinite {
  Memory memory;
  DeviceRollout rollout;
  const std::byte* steps;   // [T N, width]
  const std::byte* finals;  // [E, width]
  std::size_t width;
  Fault kind;

  RLP_HD void operator()(std::size_t r, std::size_t lane) const noexcept {
    const bool final = r >= rollout.rows();
    const std::size_t e = r - rollout.rows();
    if (final && !rollout.is_used(e)) return;
    const std::byte* from = final ? finals + e * width * sizeof(Float) : steps + r * width * sizeof(Float);
    const std::size_t row = final ? rollout.final_row(e) : r;
    if (!is_finite(reinterpret_cast<const Float*>(from)[lane]))
      refuse(*memory.scalars, kind, row / rollout.envs, rollout.first_env + row % rollout.envs);
  }
};

// One thread an environment walks through its column, whose neighbours its neighbours read, and numbers the slots.
struct NumberSlots {
  Memory memory;
  DeviceRollout rollout;

  RLP_HD void operator()(std::size_t i) const noexcept {
    const std::size_t stream = rollout.first_env + i;
    std::int64_t next = memory.count[stream];
    memory.before[stream] = next;
    const bool refused = memory.is_closed();
    for (std::size_t t = 0; t < rollout.steps; ++t) {
      const std::size_t row = t * rollout.envs + i;
      rollout.seq[row] = refused ? -1 : next++;
      if (!refused && rollout.is_cut(row)) rollout.seq[rollout.rows() + rollout.final_of(row)] = next++;
    }
    memory.count[stream] = next;
  }
};

// A row of lanes writes a slot: the frame, word by word, and lane 0 what stands beside it. A slot that the end of the same
// rollout overwrites again is left out, so that no place is written twice.
template <typename Word>
struct WriteSlots {
  Memory memory;
  DeviceRollout rollout;

  RLP_HD void operator()(std::size_t r, std::size_t lane) const noexcept {
    if (rollout.seq[r] < 0) return;
    const bool final = r >= rollout.rows();
    const std::size_t row = final ? rollout.final_row(r - rollout.rows()) : r;
    const std::size_t stream = rollout.first_env + row % rollout.envs;
    if (!memory.is_live(stream, rollout.seq[r])) return;
    const std::size_t bytes = memory.shape.frame_bytes, at = memory.place(stream, rollout.seq[r]);
    const std::byte* from = final ? rollout.final_frame + (r - rollout.rows()) * bytes : rollout.frame + row * bytes;
    reinterpret_cast<Word*>(memory.frame + at * bytes)[lane] = reinterpret_cast<const Word*>(from)[lane];
    if (lane == 0) write_beside(row, final, at, rollout.seq[r]);
  }

  RLP_HD void write_beside(std::size_t row, bool final, std::size_t at, std::int64_t seq) const noexcept {
    const std::size_t stream = rollout.first_env + row % rollout.envs;
    const bool in_use = seq % memory.per_stream() < memory.before[stream];  // when the rollout came
    const bool was_step = in_use && !(memory.bits[at] & kFinal);
    const int bits = (rollout.first[row] ? kFirst : 0) | (rollout.terminated[row] ? kTerminated : 0) |
                     (rollout.is_cut(row) ? kTruncated : 0);
    memory.bits[at] = final ? std::uint8_t{kFinal} : static_cast<std::uint8_t>(bits);
    memory.reward[at] = final ? 0.0f : rollout.reward[row];
    memory.priority[at] = final ? 0.0 : memory.scalars->max_priority;
    const std::size_t bytes = memory.shape.action_bytes;
    for (std::size_t b = 0; b < bytes; ++b)
      memory.action[at * bytes + b] = final ? std::byte{0} : rollout.action[row * bytes + b];
    add_to(memory.scalars->size, static_cast<int>(!final) - static_cast<int>(was_step));
  }
};

// Slot m of those of environment i whose eligibility may have changed: first eligible or not, then its leaf's ancestors.
struct Settle {
  Memory memory;
  std::size_t first_env, touched;
  std::int64_t* leaf;  // [N, touched]

  RLP_HD void operator()(unsigned phase, std::size_t k) const noexcept {
    if (phase == 0) settle(k);
    else SumAncestors{memory.tree, leaf}(phase - 1, k);
  }

  RLP_HD void settle(std::size_t k) const noexcept {
    const std::size_t stream = first_env + k / touched;
    const std::int64_t count = memory.count[stream], end = count + static_cast<std::int64_t>(memory.shape.stack) - 1;
    std::int64_t begin = memory.before[stream] > memory.reach ? memory.before[stream] - memory.reach : 0;
    if (end - begin > memory.per_stream()) begin = end - memory.per_stream();
    const std::int64_t at = begin + static_cast<std::int64_t>(k % touched);
    leaf[k] = 0;
    if (at >= end || memory.is_closed()) return;
    const std::size_t place = memory.place(stream, at);
    const std::int64_t seq = at < count ? at : at - memory.per_stream();  // past the newest lie the oldest
    const bool eligible = memory.is_live(stream, seq) && memory.is_eligible(stream, seq);
    memory.eligible[place] = eligible;
    leaf[k] = memory.base + static_cast<std::int64_t>(place);
    memory.tree[leaf[k]] = eligible ? memory.priority[place] : 0.0;
  }
};

template <typename Float, typename Queue>
void check_finite(const Queue& queue, const Memory& memory, const DeviceRollout& rollout, Fault kind) {
  const bool frame = kind == Fault::kFrame;
  const std::size_t width = (frame ? memory.shape.frame_bytes : memory.shape.action_bytes) / sizeof(Float);
  queue.rows(rollout.rows() + (frame ? rollout.finals : 0), width,
             CheckFinite<Float>{memory, rollout, frame ? rollout.frame : rollout.action, rollout.final_frame, width, kind});
}

// Append a rollout. Items enter at the largest priority ever recorded.
template <typename Queue>
void add(const Queue& queue, const Memory& memory, const DeviceRollout& rollout) {
  if (rollout.rows() == 0) return;
  queue.phases(std::max(rollout.rows(), rollout.finals), CheckRollout::kPhases, CheckRollout{memory, rollout});
  if (memory.frame_float == 4) check_finite<float>(queue, memory, rollout, Fault::kFrame);
  if (memory.frame_float == 8) check_finite<double>(queue, memory, rollout, Fault::kFrame);
  if (memory.actions == 0) check_finite<float>(queue, memory, rollout, Fault::kAction);
  queue.threads(rollout.envs, NumberSlots{memory, rollout});
  const auto address = [](const std::byte* at) { return reinterpret_cast<std::uintptr_t>(at); };
  with_word(memory.shape.frame_bytes | address(rollout.frame) | address(rollout.final_frame), [&](auto word) {
    queue.rows(rollout.rows() + rollout.finals, memory.shape.frame_bytes / sizeof(word),
               WriteSlots<decltype(word)>{memory, rollout});
  });
  const std::size_t touched = touched_slots(memory, rollout.steps);
  queue.phases(rollout.envs * touched, 1 + levels_above(memory.base),
               Settle{memory, rollout.first_env, touched, rollout.leaf});
}

// After loading: slots, counts and priorities are there, `before`, `eligible` and the tree are 0. Works out the rest.
template <typename Queue>
void settle_all(const Queue& queue, const Memory& memory, std::int64_t* leaf) {
  queue.phases(memory.slots(), 1 + levels_above(memory.base), Settle{memory, 0, memory.shape.per_stream, leaf});
}

}  // namespace rlp::cuda
