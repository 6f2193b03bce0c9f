#pragma once
// New priorities for the items of a batch: Replay::update_priority on the device.
//
// Where an item comes twice, its last priority stays, as on the CPU: the rows of a batch claim their slot, the largest row
// wins, and no other one writes. The sums follow level by level (replay_tree.cuh), so the tree is the CPU's to the bit given
// equal powers (power.hpp). Latency is the bound, not bytes: 4 + log2(slots) phases, each waiting for its loads once.

#include <cstddef>
#include <cstdint>

#include "cuda/replay_memory.cuh"
#include "cuda/replay_tree.cuh"
#include "power.hpp"

namespace rlp::cuda {

inline constexpr double kMaxPriority = 1e300;  // Replay::kMaxPriority

// Real is what priorities come in: float or double.
template <typename Real>
struct UpdatePriority {
  static constexpr unsigned kPhases = 4;  // and then one a level of the tree
  Memory memory;
  const std::int64_t* index;  // [n]
  const Real* priority;       // [n]
  std::int64_t* leaf;         // scratch [n]

  RLP_HD void operator()(unsigned phase, std::size_t j) const noexcept {
    if (phase == 0 && j == 0) open_call(*memory.scalars);
    if (phase == 1) check(j);
    if (phase == 2) claim(j);
    if (phase == 3) write(j);
    if (phase >= kPhases) SumAncestors{memory.tree, leaf}(phase - kPhases, j);
  }

  RLP_HD double value(std::size_t j) const noexcept { return power(static_cast<double>(priority[j]), memory.alpha); }

  // A call with anything wrong in it has no effect at all.
  RLP_HD void check(std::size_t j) const noexcept {
    const double given = static_cast<double>(priority[j]);
    if (!(given >= 0.0 && given < INFINITY && value(j) <= kMaxPriority)) refuse(*memory.scalars, Fault::kPriority, j);
    const std::size_t stream = memory.stream_of(index[j]);
    const std::int64_t seq = memory.seq_of(index[j]);
    const bool known = index[j] >= 0 && seq < memory.count[stream];
    if (!known || (memory.is_live(stream, seq) && memory.bits[memory.place(stream, seq)] & kFinal))
      refuse(*memory.scalars, Fault::kUnknown, j);
  }

  // leaf[j]: the node of an item that is still there; 0 of one that was overwritten.
  RLP_HD void claim(std::size_t j) const noexcept {
    leaf[j] = 0;
    if (memory.is_closed()) return;
    const std::size_t stream = memory.stream_of(index[j]);
    const std::int64_t seq = memory.seq_of(index[j]);
    if (!memory.is_live(stream, seq)) return;
    const std::size_t place = memory.place(stream, seq);
    leaf[j] = memory.base + static_cast<std::int64_t>(place);
    raise_to(memory.claim[place], static_cast<std::int32_t>(j) + 1);
    raise_to(memory.scalars->max_priority, value(j));
  }

  RLP_HD void write(std::size_t j) const noexcept {
    if (leaf[j] == 0) return;
    const std::size_t place = static_cast<std::size_t>(leaf[j] - memory.base);
    if (memory.claim[place] != static_cast<std::int32_t>(j) + 1) {
      leaf[j] = 0;
      return;
    }
    memory.priority[place] = value(j);
    if (memory.eligible[place]) memory.tree[leaf[j]] = value(j);
    else leaf[j] = 0;  // it keeps its priority for later
    memory.claim[place] = 0;
  }
};

template <typename Real, typename Queue>
void update_priority(const Queue& queue, const Memory& memory, const std::int64_t* index, const Real* priority,
                     std::size_t n, std::int64_t* leaf) {
  queue.phases(n, UpdatePriority<Real>::kPhases + levels_above(memory.base),
               UpdatePriority<Real>{memory, index, priority, leaf});
}

}  // namespace rlp::cuda
