#include <algorithm>
#include <atomic>
#include <barrier>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.hpp"
#include "thread_pool.hpp"

#include <sys/wait.h>
#include <unistd.h>

using rlp::ThreadPool;

namespace {

void every_index_is_visited_once() {
  for (const std::size_t threads : {1, 2, 3, 7})
    for (const std::size_t n : {0, 1, 2, 3, 6, 7, 8, 100}) {
      ThreadPool pool(threads);
      std::vector<int> visits(n, 0);  // not atomic: ranges must be disjoint, or TSan speaks
      for (int round = 0; round < 20; ++round)
        pool.parallel_for(n, [&](std::size_t begin, std::size_t end) {
          CHECK(begin < end && end <= n);
          for (std::size_t i = begin; i < end; ++i) ++visits[i];
        });
      CHECK(std::all_of(visits.begin(), visits.end(), [](int count) { return count == 20; }));
    }
}

void work_is_spread_evenly() {
  ThreadPool pool(4);
  std::vector<std::size_t> share(10, 0);
  pool.parallel_for(10, [&](std::size_t begin, std::size_t end) { share[begin] = end - begin; });
  CHECK(share == (std::vector<std::size_t>{2, 0, 3, 0, 0, 2, 0, 3, 0, 0}));
}

// All wait for each other within the loop, so each must have a thread of its own; and as nobody's end is ordered before
// another's, TSan sees every access that the pool forgot to guard.
void ranges_run_at_the_same_time() {
  ThreadPool pool(3);
  std::barrier all(3);
  std::atomic<int> passed = 0;
  for (int round = 0; round < 20; ++round)
    pool.parallel_for(3, [&](std::size_t, std::size_t) {
      all.arrive_and_wait();
      ++passed;
    });
  CHECK(passed == 60);
}

void results_are_seen_by_the_caller_and_the_next_loop() {
  ThreadPool pool(3);
  std::vector<long> value(1000, 1);
  for (int round = 0; round < 50; ++round) {
    pool.parallel_for(value.size(), [&](std::size_t begin, std::size_t end) {
      for (std::size_t i = begin; i < end; ++i) value[i] += static_cast<long>(i);
    });
    value[round] += 1;
  }
  CHECK(std::accumulate(value.begin(), value.end(), 0L) == 1000 + 50 * (999L * 1000 / 2) + 50);
}

void the_lowest_range_s_exception_is_thrown_on() {
  ThreadPool pool(4);
  for (int round = 0; round < 10; ++round) {
    std::atomic<int> finished = 0;
    std::string message;
    try {
      pool.parallel_for(8, [&](std::size_t begin, std::size_t) {
        ++finished;
        if (begin >= 4) throw std::runtime_error(std::to_string(begin));
      });
    } catch (const std::runtime_error& error) {
      message = error.what();
    }
    CHECK(message == "4");
    CHECK(finished == 4);
  }
  int calls = 0;
  ThreadPool(1).parallel_for(3, [&](std::size_t, std::size_t) { ++calls; });
  CHECK(calls == 1);
  std::vector<int> visits(8, 0);
  pool.parallel_for(8, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) ++visits[i];
  });
  CHECK(visits == std::vector<int>(8, 1));  // and the pool goes on, without the old exception
}

void a_loop_within_a_loop_is_refused_not_waited_for() {
  ThreadPool pool(2);
  int refused = 0;
  try {
    pool.parallel_for(2, [&](std::size_t, std::size_t) { pool.parallel_for(2, [](std::size_t, std::size_t) {}); });
  } catch (const std::logic_error&) {
    ++refused;
  }
  CHECK(refused == 1);
  pool.parallel_for(2, [&](std::size_t begin, std::size_t) { refused += begin == 0 ? 1 : 0; });
  CHECK(refused == 2);
}

// Not under TSan, which does not allow threads after a fork of a program that has some.
void a_forked_child_is_told() {
#if !defined(__SANITIZE_THREAD__)
  ThreadPool pool(2);
  const pid_t child = fork();
  if (child == 0) {
    int code = 1;
    try {
      pool.parallel_for(2, [](std::size_t, std::size_t) {});
    } catch (const std::logic_error&) {
      code = 0;
    }
    _exit(code);
  }
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
#endif
}

void none_is_no_number_of_threads() {
  bool refused = false;
  try {
    ThreadPool pool(0);
  } catch (const std::invalid_argument&) {
    refused = true;
  }
  CHECK(refused);
}

void pools_come_and_go() {
  for (int round = 0; round < 50; ++round) {
    ThreadPool pool(3);
    if (round % 2 == 0) pool.parallel_for(3, [](std::size_t, std::size_t) {});
  }
}

}  // namespace

int main() {
  every_index_is_visited_once();
  work_is_spread_evenly();
  ranges_run_at_the_same_time();
  results_are_seen_by_the_caller_and_the_next_loop();
  the_lowest_range_s_exception_is_thrown_on();
  a_loop_within_a_loop_is_refused_not_waited_for();
  a_forked_child_is_told();
  none_is_no_number_of_threads();
  pools_come_and_go();
  return check::failures();
}
