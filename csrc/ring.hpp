#pragma once
// One ring of slots per stream, in one allocation. A slot is one frame with the step taken from it.
//
// The slots of a stream are numbered 0, 1, 2, ... as they come (seq, 64 bits, never reused); slot seq lies at place
// seq % per_stream until slot seq + per_stream overwrites it. An observation is not stored: it is the last `stack`
// frames of its episode, copied together when it is asked for.

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "mapping.hpp"

namespace rlp {

struct RingShape {
  std::size_t frame_bytes;
  std::size_t action_bytes;
  std::size_t stack;       // frames in an observation, >= 1
  std::size_t streams;     // >= 1
  std::size_t per_stream;  // slots of each stream
};

// What a slot is, as bits.
enum SlotBit : std::uint8_t {
  kFirst = 1,       // its frame begins an episode: older frames of the stack are 0
  kTerminated = 2,  // its step ended the episode, and nothing follows
  kTruncated = 4,   // its step was cut by a time limit: the next slot is kFinal
  kFinal = 8,       // no step: only the true last frame of a truncated episode
  kEnd = kTerminated | kTruncated,
};

// Not thread safe: the replay that owns a ring holds its own lock.
class Ring {
 public:
  // `folder`: where the file of the frames lies; empty for memory. Throws std::system_error.
  Ring(const RingShape& shape, const std::string& folder)
      : shape_(shape),
        frames_(shape.frame_bytes * slots(), folder),
        actions_(shape.action_bytes * slots()),
        rewards_(slots()),
        bits_(slots()),
        count_(shape.streams, 0) {}

  [[nodiscard]] const RingShape& shape() const noexcept { return shape_; }
  [[nodiscard]] std::size_t slots() const noexcept { return shape_.streams * shape_.per_stream; }
  [[nodiscard]] std::int64_t count(std::size_t stream) const noexcept { return count_[stream]; }  // slots ever pushed
  [[nodiscard]] std::int64_t oldest(std::size_t stream) const noexcept {  // the first that is not overwritten
    return std::max<std::int64_t>(0, count_[stream] - static_cast<std::int64_t>(shape_.per_stream));
  }
  [[nodiscard]] std::size_t place(std::size_t stream, std::int64_t seq) const noexcept {
    return stream * shape_.per_stream + static_cast<std::size_t>(seq) % shape_.per_stream;
  }
  // The seq of what lies at a place that is in use.
  [[nodiscard]] std::int64_t seq_at(std::size_t place) const noexcept {
    const std::size_t stream = place / shape_.per_stream, at = place - stream * shape_.per_stream;
    const std::size_t newest = static_cast<std::size_t>(count_[stream]) - 1, newest_at = newest % shape_.per_stream;
    return static_cast<std::int64_t>(newest - (newest_at - at) - (newest_at < at ? shape_.per_stream : 0));
  }

  [[nodiscard]] std::uint8_t bits(std::size_t place) const noexcept { return bits_[place]; }
  [[nodiscard]] float reward(std::size_t place) const noexcept { return rewards_[place]; }
  [[nodiscard]] const std::byte* action(std::size_t place) const noexcept {
    return actions_.data() + place * shape_.action_bytes;
  }
  [[nodiscard]] const std::byte* frame(std::size_t place) const noexcept {
    return frames_.data() + place * shape_.frame_bytes;
  }
  // With the frames' mapping counted whole, touched or not.
  [[nodiscard]] std::size_t bytes() const noexcept {
    return frames_.bytes() + actions_.size() + rewards_.size() * sizeof(float) + bits_.size();
  }

  // Write the next slot of a stream over its oldest one. A null action is stored as 0.
  void push(std::size_t stream, const std::byte* frame, const std::byte* action, float reward,
            std::uint8_t bits) noexcept {
    write(stream, count_[stream], frame, action, reward, bits);
    ++count_[stream];
  }

  // A hint that the observation at seq will be asked for soon: its frames' pages, and what stands beside them. Copies begin
  // cold in 100,000 slots, and 10 % of their time went into waiting for the first bytes of each.
  void prefetch(std::size_t stream, std::int64_t seq) const noexcept {
    const std::size_t at = place(stream, seq);
    __builtin_prefetch(&bits_[at]);
    __builtin_prefetch(&rewards_[at]);
    const std::byte* end = frame(at) + shape_.frame_bytes;
    const std::size_t before = std::min(shape_.stack, at % shape_.per_stream + 1);  // not across the end of the ring
    for (const std::byte* page = end - before * shape_.frame_bytes; page < end; page += 2048) __builtin_prefetch(page);
  }

  // For loading: write any slot, then say how many there are.
  void write(std::size_t stream, std::int64_t seq, const std::byte* frame, const std::byte* action, float reward,
             std::uint8_t bits) noexcept {
    const std::size_t at = place(stream, seq);
    std::memcpy(frames_.data() + at * shape_.frame_bytes, frame, shape_.frame_bytes);
    std::byte* to = actions_.data() + at * shape_.action_bytes;
    if (action) std::memcpy(to, action, shape_.action_bytes);
    else std::memset(to, 0, shape_.action_bytes);
    rewards_[at] = reward;
    bits_[at] = bits;
  }
  void set_count(std::size_t stream, std::int64_t count) noexcept { count_[stream] = count; }

  // How many frames the observation at seq holds: back to its episode's first, at most `stack`. 0 where one of them
  // was overwritten, or came before the stream began. O(stack).
  [[nodiscard]] std::size_t depth(std::size_t stream, std::int64_t seq) const noexcept {
    const std::int64_t oldest = this->oldest(stream);
    for (std::size_t d = 0; d < shape_.stack; ++d) {
      const std::int64_t at = seq - static_cast<std::int64_t>(d);
      if (at < oldest) return 0;
      if (bits_[place(stream, at)] & kFirst) return d + 1;
    }
    return shape_.stack;
  }

  // The observation at seq, [stack, frame_bytes], oldest frame first; needs depth() > 0. The frames of a stack lie side
  // by side, so this is one memcpy, or two across the end of the ring.
  void copy_stack(std::size_t stream, std::int64_t seq, std::byte* out) const noexcept {
    const std::size_t depth = this->depth(stream, seq);
    assert(depth > 0);
    const std::size_t missing = (shape_.stack - depth) * shape_.frame_bytes;
    std::memset(out, 0, missing);
    const std::size_t from = place(stream, seq - static_cast<std::int64_t>(depth) + 1);
    const std::size_t head = std::min(depth, (stream + 1) * shape_.per_stream - from);
    std::memcpy(out + missing, frame(from), head * shape_.frame_bytes);
    std::memcpy(out + missing + head * shape_.frame_bytes, frame(stream * shape_.per_stream),
                (depth - head) * shape_.frame_bytes);
  }

 private:
  RingShape shape_;
  Mapping frames_;
  std::vector<std::byte> actions_;
  std::vector<float> rewards_;
  std::vector<std::uint8_t> bits_;
  std::vector<std::int64_t> count_;
};

}  // namespace rlp
