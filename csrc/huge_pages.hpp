#pragma once
// Memory whose pages are large where the system has such: random access to megabytes of small pages waits for the page
// tables as long as for the memory.

#include <cstddef>
#include <cstdlib>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace rlp {

// An allocator for containers. Below one large page it is the ordinary one.
template <class T>
struct HugePages {
  using value_type = T;
  static constexpr std::size_t kPage = std::size_t{1} << 21;

  HugePages() = default;
  template <class U>
  HugePages(const HugePages<U>&) noexcept {}

  [[nodiscard]] T* allocate(std::size_t n) {
    const std::size_t bytes = n * sizeof(T);
    if (bytes < kPage) return static_cast<T*>(::operator new(bytes, std::align_val_t{alignof(T)}));
    void* const memory = ::operator new(bytes, std::align_val_t{kPage});
#ifdef __linux__
    ::madvise(memory, bytes, MADV_HUGEPAGE);  // a wish: refused, the pages are small
#endif
    return static_cast<T*>(memory);
  }

  void deallocate(T* memory, std::size_t n) noexcept {
    ::operator delete(memory, std::align_val_t{n * sizeof(T) < kPage ? alignof(T) : kPage});
  }

  friend bool operator==(const HugePages&, const HugePages&) noexcept { return true; }
};

}  // namespace rlp
