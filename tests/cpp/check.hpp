#pragma once
// What a C++ test needs: CHECK(condition) says file, line and text of what was false, and main() returns check::failures().

#include <cstdio>

namespace check {

inline int& count() {
  static int failed = 0;
  return failed;
}

inline void that(bool ok, const char* text, const char* file, int line) {
  if (ok) return;
  std::fprintf(stderr, "%s:%d: not true: %s\n", file, line, text);
  ++count();
}

// 0 where all was true: what main() returns.
[[nodiscard]] inline int failures() { return count() == 0 ? 0 : 1; }

}  // namespace check

#define CHECK(condition) ::check::that(static_cast<bool>(condition), #condition, __FILE__, __LINE__)
