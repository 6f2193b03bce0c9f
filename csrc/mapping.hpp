#pragma once
// Large zeroed memory: from the system, or backed by a file.

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <string>
#include <system_error>

namespace rlp {

// Zeroed bytes at a fixed address, released with the object. Pages take memory when they are first written.
class Mapping {
 public:
  // With a folder, the bytes live in a file there that has no name: it cannot overwrite anything, and its space is
  // free again when the process ends, however it ends. The space is reserved here, so that a full disk is an error
  // now and not a SIGBUS later. Throws std::system_error.
  explicit Mapping(std::size_t bytes, const std::string& folder = "") : bytes_(bytes) {
    void* at = folder.empty() ? map(MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1) : map_file(folder);
    data_ = static_cast<std::byte*>(at);
    if (folder.empty()) static_cast<void>(madvise(at, bytes_, MADV_HUGEPAGE));  // a hint: fewer TLB misses in a gather
  }
  ~Mapping() { munmap(data_, bytes_); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  [[nodiscard]] std::byte* data() noexcept { return data_; }
  [[nodiscard]] const std::byte* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }

 private:
  [[nodiscard]] void* map(int flags, int file) const {
    void* at = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, flags, file, 0);
    if (at == MAP_FAILED) fail(errno, "cannot map " + std::to_string(bytes_) + " bytes for the replay");
    return at;
  }

  [[nodiscard]] void* map_file(const std::string& folder) const {
    std::string name = folder + "/replay-XXXXXX";
    const int file = mkstemp(name.data());
    if (file < 0) fail(errno, "cannot make the replay's file in " + folder);
    unlink(name.c_str());
    const int full = posix_fallocate(file, 0, static_cast<off_t>(bytes_));
    if (full != 0) {
      close(file);
      fail(full, "cannot reserve " + std::to_string(bytes_) + " bytes for the replay in " + folder);
    }
    try {
      void* at = map(MAP_SHARED, file);
      close(file);
      return at;
    } catch (...) {
      close(file);
      throw;
    }
  }

  [[noreturn]] static void fail(int error, const std::string& what) {
    throw std::system_error(error, std::generic_category(), what);
  }

  std::size_t bytes_;
  std::byte* data_ = nullptr;
};

}  // namespace rlp
