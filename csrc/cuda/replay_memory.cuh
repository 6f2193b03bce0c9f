#pragma once
// What the device replay is made of: addresses that the Python face owns, and what can be read off them.
//
// The slots, their numbers and what they mean are those of ring.hpp and replay.hpp; the frames lie where theirs would lie.
// Everything that changes is on the device at a fixed address, sizes and counters included, so that a captured graph goes on
// reading what is true when it runs. `fault` is how a kernel refuses: the first thing found wrong is noted there, and until
// the host has read it (check() of the Python face) what is added or updated has no effect.

#include <cstddef>
#include <cstdint>

#include "cuda/launch.cuh"
#include "ring.hpp"

namespace rlp::cuda {

// Device scalars, in one allocation of 64 bytes.
struct Scalars {
  std::int64_t size;      // steps stored, eligible or not
  std::int64_t n;         // steps of the return that the next draw makes
  std::uint64_t key;      // of the stream of random numbers that draws
  std::uint64_t counter;  // its blocks drawn so far
  std::int64_t fault;     // kNoFault, or what was refused first
  std::int64_t closed;    // whether there was a fault when the call under way began
  double gamma;           // discount of the next draw
  double max_priority;    // largest priority^alpha ever recorded
};
static_assert(sizeof(Scalars) == 64);

// --- faults ---

enum class Fault : std::int64_t {  // the Python face has the sentences
  kReward = 1,      // a reward that is not finite
  kEnded = 2,       // an episode that goes on after its end
  kLacksFinal = 3,  // a truncation without its last frame
  kSpareFinal = 4,  // a final frame of an episode that goes on
  kFinalAt = 5,     // final_at: out of range or not ascending
  kAction = 6,      // an action out of range, or not finite
  kFrame = 7,       // a frame that is not finite
  kPriority = 8,    // NaN, negative, or too large a power
  kUnknown = 9,     // an index that names no step
  kEmpty = 10,      // nothing to draw
  kIneligible = 11,
  kQuery = 12,  // n or gamma out of range
};
inline constexpr std::int64_t kNoFault = INT64_MAX;

// Every call that can refuse begins with this, in a phase of its own.
RLP_HD inline void open_call(Scalars& scalars) noexcept { scalars.closed = scalars.fault != kNoFault; }

// Of all that is wrong with a call, the smallest (row, stream, kind) is noted, whatever the order of the threads; of several
// calls, the first. `row` of a batch or step of a rollout below 2^31, `stream` below 2^27.
RLP_HD inline void refuse(Scalars& scalars, Fault kind, std::size_t row, std::size_t stream = 0) noexcept {
  if (!scalars.closed)
    lower_to(scalars.fault, static_cast<std::int64_t>(row << 31 | stream << 4) | static_cast<std::int64_t>(kind));
}

// --- words ---

struct alignas(16) Quad {
  std::uint64_t low, high;
};

// call(word), with the widest word, 16 bytes at most, that divides all these sizes and addresses or'ed together.
template <typename Call>
void with_word(std::uintptr_t bytes, Call call) {
  if (bytes % 16 == 0) call(Quad{});
  else if (bytes % 8 == 0) call(std::uint64_t{});
  else if (bytes % 4 == 0) call(std::uint32_t{});
  else if (bytes % 2 == 0) call(std::uint16_t{});
  else call(std::uint8_t{});
}

// --- slots ---

// Where the newest frame of an observation lies, and how many frames it holds; depth 0: nothing, the observation is 0.
struct Source {
  std::int64_t newest;  // place
  std::int32_t depth;   // frames of its own, the others of the stack are 0
  std::int32_t offset;  // places between the beginning of its stream and `newest`
};
static_assert(sizeof(Source) == 16);

struct Memory {
  RingShape shape;
  std::int64_t max_n, reach;  // reach: H = max(max_n, max_k)
  double alpha;
  std::int64_t actions;      // number of discrete actions, which are int64; 0: actions are float32
  std::int64_t frame_float;  // bytes of an element of a frame that is of floats, 0 of integers

  std::byte* frame;         // [slots, frame_bytes]
  std::byte* action;        // [slots, action_bytes]
  float* reward;            // [slots]
  std::uint8_t* bits;       // [slots]
  double* priority;         // [slots]: priority^alpha, eligible or not
  std::uint8_t* eligible;   // [slots]
  std::int32_t* claim;      // [slots], 0 between calls: who writes where an item comes twice
  std::int64_t* count;      // [streams]: slots ever pushed
  std::int64_t* before;     // [streams]: `count` before the rollout that is being added
  double* tree;             // [2 base]: tree[1] is the root; node k has the children 2k and 2k + 1
  std::int64_t base;        // node of place 0, a power of two
  Scalars* scalars;

  RLP_HD bool is_closed() const noexcept { return scalars->fault != kNoFault; }
  RLP_HD std::size_t slots() const noexcept { return shape.streams * shape.per_stream; }
  RLP_HD std::int64_t per_stream() const noexcept { return static_cast<std::int64_t>(shape.per_stream); }

  RLP_HD std::size_t place(std::size_t stream, std::int64_t seq) const noexcept {
    return stream * shape.per_stream + static_cast<std::size_t>(seq) % shape.per_stream;
  }
  // The slot `by` after the one at `place`, 0 <= by < per_stream.
  RLP_HD std::size_t later(std::size_t stream, std::size_t place, std::int64_t by) const noexcept {
    const std::size_t at = place + static_cast<std::size_t>(by);
    return at < (stream + 1) * shape.per_stream ? at : at - shape.per_stream;
  }
  RLP_HD std::int64_t oldest(std::size_t stream) const noexcept {
    return count[stream] > per_stream() ? count[stream] - per_stream() : 0;
  }
  RLP_HD bool is_live(std::size_t stream, std::int64_t seq) const noexcept {
    return oldest(stream) <= seq && seq < count[stream];
  }

  // An item's insertion number is seq * streams + stream.
  RLP_HD std::size_t stream_of(std::int64_t index) const noexcept { return static_cast<std::size_t>(index) % shape.streams; }
  RLP_HD std::int64_t seq_of(std::int64_t index) const noexcept {
    return index / static_cast<std::int64_t>(shape.streams);
  }
  // The number of the live slot at a place.
  RLP_HD std::int64_t index_at(std::size_t place) const noexcept {
    const std::size_t stream = place / shape.per_stream, offset = place % shape.per_stream;
    const std::size_t newest = static_cast<std::size_t>(count[stream]) - 1;
    const std::size_t back = (newest % shape.per_stream + shape.per_stream - offset) % shape.per_stream;
    return static_cast<std::int64_t>((newest - back) * shape.streams + stream);
  }

  // How many frames the observation at seq holds, at most `stack`; 0 where one of them was overwritten. As Ring::depth.
  RLP_HD std::int32_t depth(std::size_t stream, std::int64_t seq) const noexcept {
    const std::int64_t oldest_seq = oldest(stream);
    for (std::int64_t d = 0; d < static_cast<std::int64_t>(shape.stack); ++d) {
      if (seq - d < oldest_seq) return 0;
      if (bits[place(stream, seq - d)] & kFirst) return static_cast<std::int32_t>(d) + 1;
    }
    return static_cast<std::int32_t>(shape.stack);
  }
  RLP_HD Source source(std::size_t stream, std::int64_t seq) const noexcept {
    const std::size_t offset = static_cast<std::size_t>(seq) % shape.per_stream;
    return {static_cast<std::int64_t>(stream * shape.per_stream + offset), depth(stream, seq),
            static_cast<std::int32_t>(offset)};
  }
  // Frame `f` of an observation, oldest first; null where it is 0.
  RLP_HD const std::byte* frame_of(const Source& source, std::size_t f) const noexcept {
    const auto back = static_cast<std::int32_t>(shape.stack - 1 - f);
    if (back >= source.depth) return nullptr;
    const std::int64_t at = source.newest - back + (back > source.offset ? per_stream() : 0);
    return frame + static_cast<std::size_t>(at) * shape.frame_bytes;
  }

  // Whether the live slot seq can be drawn, from the slots alone: it is a step, its stack is whole, and all that may be asked
  // about it is there: H slots after it without a cut, or its episode's end. O(H + stack).
  RLP_HD bool is_eligible(std::size_t stream, std::int64_t seq) const noexcept {
    const std::size_t at = place(stream, seq);
    if (bits[at] & kFinal || depth(stream, seq) == 0) return false;
    for (std::int64_t j = 0; j <= reach; ++j) {
      if (seq + j >= count[stream]) return false;
      const std::uint8_t slot = bits[later(stream, at, j)];
      if (j > 0 && slot & kFirst) return false;
      if (slot & (kTerminated | kFinal)) return true;
    }
    return true;
  }
};

}  // namespace rlp::cuda
