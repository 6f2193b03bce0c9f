#pragma once
// What the C library does with memory that was freed.

#include <cstdlib>

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace rlp {

// From now on this process keeps what it frees, for its next allocations, of blocks below 32 MiB (the most that glibc takes, and what
// it would come to by itself; larger ones go back to the system as before). By itself it gives the end of its heap back as soon as
// that is twice the largest block, so that gradient steps that free tens of megabytes have them mapped, cleared and paged in anew each
// time, or not, as blocks happen to lie. False where the C library is another: nothing is changed.
inline bool keep_freed_memory() noexcept {
#ifdef __GLIBC__
  constexpr int kMost = 0x7fffffff;  // at the heap's end: 2 GiB, the most that can be said
  return ::mallopt(M_MMAP_THRESHOLD, 32 << 20) == 1 && ::mallopt(M_TRIM_THRESHOLD, kMost) == 1;
#else
  return false;
#endif
}

}  // namespace rlp
