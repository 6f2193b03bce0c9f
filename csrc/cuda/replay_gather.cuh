#pragma once
// Observations out of the frames: each frame of a stack is copied from where it lies, or is 0.
//
// A row of lanes copies one frame in the widest words it is made of (16 bytes for 84 x 84), neighbouring lanes neighbouring
// words. Traffic: B (k + 2) stack frame_bytes are written, and as many read, though the overlapping stacks of a subsequence
// come from the L2 cache after the first: bandwidth is the bound, between one and two times the bytes written.

#include <cstddef>
#include <cstdint>

#include "cuda/replay_sample.cuh"

namespace rlp::cuda {

template <typename Word>
struct CopyStacks {
  Memory memory;
  const Source* source;  // [B, columns]
  std::size_t columns;   // k + 2: the last is the next observation
  std::byte* obs;        // [B, k + 1, stack, frame]
  std::byte* next_obs;   // [B, stack, frame]

  RLP_HD void operator()(std::size_t row, std::size_t lane) const noexcept {
    const std::size_t stack = memory.shape.stack, item = row / stack, f = row % stack;
    const std::size_t b = item / columns, o = item % columns;
    const auto* from = reinterpret_cast<const Word*>(memory.frame_of(source[item], f));
    std::byte* to = o + 1 < columns ? obs + ((b * (columns - 1) + o) * stack + f) * memory.shape.frame_bytes
                                    : next_obs + (b * stack + f) * memory.shape.frame_bytes;
    reinterpret_cast<Word*>(to)[lane] = from ? from[lane] : Word{};
  }
};

template <typename Queue>
void stack(const Queue& queue, const Memory& memory, const DeviceBatch& batch, std::byte* obs, std::byte* next_obs) {
  const std::size_t columns = static_cast<std::size_t>(batch.k) + 2;
  const auto address = [](const std::byte* at) { return reinterpret_cast<std::uintptr_t>(at); };
  with_word(memory.shape.frame_bytes | address(obs) | address(next_obs), [&](auto word) {
    queue.rows(batch.batch * columns * memory.shape.stack, memory.shape.frame_bytes / sizeof(word),
               CopyStacks<decltype(word)>{memory, batch.source, columns, obs, next_obs});
  });
}

}  // namespace rlp::cuda
