#pragma once
// Environments in memory that the caller owns, reset and stepped in tiles of 32 by a team of 32 threads: a block of a GPU
// (cuda/env_batch.cuh), or LoopTeam below. The text of a step stands here once, so that the CPU tests what the GPU runs.
//
// A team runs a *phase* in all of its threads and waits for all of them; a thread may read what others wrote in an earlier
// phase, never in the same. Games, streams and results are EnvBatch's, bit for bit where a game computes in integers, or in
// floats without a mathematical library.
//
// Frames. If thread k drew into row k of `frame`, which is `bytes` long, 32 neighbouring threads would write 32 distant bytes
// at a time: each store costs 32 sectors of memory, of which it uses a thirtysecond part. So a tile draws its frames in memory
// that the block shares, and then its threads copy the whole tile, which is contiguous in `frame` as well, by 16 bytes each
// and neighbour beside neighbour. Zeros are most of a frame: where a game can paint onto zeros, these are laid in the same
// way. The last frame of a game that ended goes by the same road, row by row, in tiles where any ended. Environments
// themselves stay where they are: a step reads and writes the fields that it needs, through the cache, since Seaquest's 900
// bytes, copied there and back, would be twice its frame.
//
// Traffic of one step of one environment: written are bytes + 7, and bytes once more where a game ends; read are its action
// and stream (24 bytes, of which 8 are written back) and what the game touches of its state, sizeof(E) each way at most.
//
// Actions are checked where they are: one that is no action leaves its environment as it was, gives the reward NaN, and is
// noted in `fault`, which the owner reads when it next waits for the device. Nothing is clamped, and nothing waits.

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "env_batch.hpp"

namespace rlp {

inline constexpr std::size_t tile_size = 32;           // environments, and threads: one warp
inline constexpr std::size_t tile_bytes_max = 49'152;  // of shared memory that a block has without asking for more

// N environments in the owner's memory.
template <Env E>
struct Lanes {
  E* env;               // [n]
  Stream* stream;       // [n]
  std::int64_t* fault;  // [2]: the first environment that was given no action, and how many actions were none
  std::size_t n;

  [[nodiscard]] RLP_HD std::size_t tiles() const noexcept { return (n + tile_size - 1) / tile_size; }
};

// What `fault` holds as long as all actions are good.
RLP_HD constexpr std::int64_t no_fault(std::size_t n) noexcept { return static_cast<std::int64_t>(n); }

// Draws onto zeros, by writing only what is not 0.
template <typename E>
concept Paints = requires(const E env, Cell<E>* frame) { env.paint(frame); };

// Bytes that a tile draws its frames in; 0 where they are too large for that, and drawn in place.
template <Env E>
std::size_t tile_bytes(const E& prototype) noexcept {
  const std::size_t bytes = tile_size * prototype.frame_size() * sizeof(Cell<E>);
  return bytes <= tile_bytes_max ? bytes : 0;
}

// A team whose threads take turns. `backwards`: in the other order, which no result may depend on.
struct LoopTeam {
  bool backwards = false;

  template <typename Phase>
  void each(const Phase& phase) const {
    for (std::size_t k = 0; k < tile_size; ++k) phase(backwards ? tile_size - 1 - k : k);
  }
  // A phase that says in each thread whether: did any?
  template <typename Phase>
  [[nodiscard]] bool any(const Phase& phase) const {
    bool found = false;
    each([&](std::size_t thread) { found = phase(thread) || found; });
    return found;
  }
};

namespace tiles {

inline constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

// W bytes, at addresses that are multiples of W.
template <std::size_t W>
RLP_HD inline void move(std::byte* to, const std::byte* from) noexcept {
#ifdef __CUDA_ARCH__
  using Word = std::conditional_t<W == 16, uint4, std::conditional_t<W == 4, unsigned, unsigned char>>;
  *reinterpret_cast<Word*>(to) = *reinterpret_cast<const Word*>(from);
#else
  assert((reinterpret_cast<std::uintptr_t>(to) | reinterpret_cast<std::uintptr_t>(from)) % W == 0);
  std::memcpy(to, from, W);
#endif
}

template <std::size_t W>
RLP_HD inline void share_by(std::byte* to, const std::byte* from, std::size_t bytes, std::size_t thread) noexcept {
  for (std::size_t at = thread * W; at + W <= bytes; at += tile_size * W) move<W>(to + at, from + at);
  for (std::size_t at = bytes / W * W + thread; at < bytes; at += tile_size) move<1>(to + at, from + at);
}

// One thread's share of a copy, by the widest words that both addresses allow.
RLP_HD inline void share(std::byte* to, const std::byte* from, std::size_t bytes, std::size_t thread) noexcept {
  const std::uintptr_t low = (reinterpret_cast<std::uintptr_t>(to) | reinterpret_cast<std::uintptr_t>(from)) % 16;
  if (low == 0) {
    share_by<16>(to, from, bytes, thread);
  } else if (low % 4 == 0) {
    share_by<4>(to, from, bytes, thread);
  } else {
    share_by<1>(to, from, bytes, thread);
  }
}

// One thread's share of zeros, 16 bytes at a time: `to` is a multiple of 16, and there is room up to the next one.
RLP_HD inline void share_of_zeros(std::byte* to, std::size_t bytes, std::size_t thread) noexcept {
  for (std::size_t at = 16 * thread; at < bytes; at += 16 * tile_size) {
#ifdef __CUDA_ARCH__
    *reinterpret_cast<uint4*>(to + at) = uint4{0u, 0u, 0u, 0u};
#else
    std::memset(to + at, 0, 16);
#endif
  }
}

// The frames of environments first, ..., first + count - 1 to their rows of `out`; where `wanted` is given, of those alone
// for which it is true.
template <Env E, typename Team>
RLP_HD void show(const Team& team, const Lanes<E>& lanes, std::size_t first, std::size_t count, const bool* wanted, Cell<E>* out,
                 std::byte* tile) {
  const std::size_t cells = lanes.env[first].frame_size(), bytes = cells * sizeof(Cell<E>);
  const auto shown = [&](std::size_t k) { return k < count && (wanted == nullptr || wanted[first + k]); };
  if (tile == nullptr) {
    team.each([&](std::size_t k) {
      if (shown(k)) lanes.env[first + k].draw(out + (first + k) * cells);
    });
    return;
  }
  if constexpr (Paints<E>) team.each([&](std::size_t thread) { share_of_zeros(tile, count * bytes, thread); });
  team.each([&](std::size_t k) {
    if (!shown(k)) return;
    Cell<E>* const row = reinterpret_cast<Cell<E>*>(tile) + k * cells;
    if constexpr (Paints<E>) {
      lanes.env[first + k].paint(row);
    } else {
      lanes.env[first + k].draw(row);
    }
  });
  std::byte* const to = reinterpret_cast<std::byte*>(out + first * cells);
  team.each([&](std::size_t thread) {
    if (wanted == nullptr) {
      share(to, tile, count * bytes, thread);
    } else {
      for (std::size_t k = 0; k < count; ++k)
        if (shown(k)) share(to + k * bytes, tile + k * bytes, bytes, thread);
    }
  });
}

// One of 0, ..., actions() - 1; or numbers in [-1, 1], none of them NaN.
template <Env E>
RLP_HD bool is_action(const E& env, const typename EnvBatch<E>::Action* action) noexcept {
  if constexpr (Continuous<E>) {
    for (std::size_t j = 0; j < EnvBatch<E>::action_size; ++j)
      if (!(action[j] >= -1.0f && action[j] <= 1.0f)) return false;
    return true;
  } else {
    return *action >= 0 && *action < env.actions();
  }
}

// By integers, so that the order of threads leaves no trace.
RLP_HD inline void note(std::int64_t* fault, std::size_t i) noexcept {
#ifdef __CUDA_ARCH__
  atomicMin(reinterpret_cast<long long*>(fault), static_cast<long long>(i));
  atomicAdd(reinterpret_cast<unsigned long long*>(fault + 1), 1ull);
#else
  fault[0] = std::min(fault[0], static_cast<std::int64_t>(i));
  ++fault[1];
#endif
}

template <Env E>
RLP_HD Outcome play(const Lanes<E>& lanes, std::size_t i, const typename EnvBatch<E>::Action* action) noexcept {
  E& env = lanes.env[i];
  if (!is_action(env, action)) {
    note(lanes.fault, i);
    return {not_a_number, false, false};
  }
  Stream stream = lanes.stream[i];
  Outcome outcome;
  if constexpr (Continuous<E>) {
    outcome = env.step(action, stream);
  } else {
    outcome = env.step(*action, stream);
  }
  lanes.stream[i].counter = stream.counter;
  return outcome;
}

}  // namespace tiles

// Begin a game in every environment of tile `number`, and show it: frame is [n, frame_size]. `tile` are tile_bytes() bytes
// that the team shares, at a multiple of 16; null where these are 0.
template <Env E, typename Team>
RLP_HD void reset_tile(const Team& team, const Lanes<E>& lanes, std::size_t number, Cell<E>* frame, std::byte* tile) {
  const std::size_t first = number * tile_size, left = lanes.n - first, count = left < tile_size ? left : tile_size;
  team.each([&](std::size_t k) {
    if (k < count) lanes.env[first + k].reset(lanes.stream[first + k]);
  });
  tiles::show(team, lanes, first, count, nullptr, frame, tile);
}

// One agent step of every environment of tile `number`: action is [n, action_size], `out` as for EnvBatch.
template <Env E, typename Team>
RLP_HD void step_tile(const Team& team, const Lanes<E>& lanes, std::size_t number, const typename EnvBatch<E>::Action* action,
                      const StepOut<Cell<E>>& out, std::byte* tile) {
  const std::size_t first = number * tile_size, left = lanes.n - first, count = left < tile_size ? left : tile_size;
  const bool any_over = team.any([&](std::size_t k) {
    if (k >= count) return false;
    const std::size_t i = first + k;
    const Outcome outcome = tiles::play(lanes, i, action + i * EnvBatch<E>::action_size);
    const bool over = outcome.terminated || outcome.truncated;
    out.reward[i] = outcome.reward;
    out.terminated[i] = outcome.terminated;
    out.truncated[i] = outcome.truncated;
    out.reset[i] = over;
    return over;
  });
  if (any_over) {
    tiles::show(team, lanes, first, count, out.reset, out.final_frame, tile);
    team.each([&](std::size_t k) {
      if (k < count && out.reset[first + k]) lanes.env[first + k].reset(lanes.stream[first + k]);
    });
  }
  tiles::show(team, lanes, first, count, nullptr, out.frame, tile);
}

}  // namespace rlp
