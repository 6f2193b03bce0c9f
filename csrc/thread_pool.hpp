#pragma once
// A fixed set of threads that share one loop at a time. Index ranges are dealt out beforehand and nobody steals, so which
// thread does what depends on (n, threads) alone.

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <stop_token>
#include <thread>
#include <vector>

#if __has_include(<unistd.h>)
#include <unistd.h>
#endif

namespace rlp {

// Lock: `mutex_` guards every member below it. The caller of parallel_for is thread 0, so a pool of one starts no thread
// and takes no lock.
class ThreadPool {
 public:
  explicit ThreadPool(std::size_t threads) : count_(threads) {
    if (threads == 0) throw std::invalid_argument("a thread pool needs at least one thread");
    failure_.resize(threads);
    threads_.reserve(threads - 1);
    for (std::size_t t = 1; t < threads; ++t)
      threads_.emplace_back([this, t](const std::stop_token& stop) { serve(stop, t); });
  }

  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  [[nodiscard]] std::size_t size() const noexcept { return count_; }

  // body(begin, end) over disjoint ranges that cover [0, n), at most one a thread; returns when all are done. If some
  // throw, all others still finish, and the exception of the lowest range is thrown on.
  //
  // One loop at a time: a call from within a body, from a second thread, or in a forked child (where the threads do not
  // exist) would wait for ever, and throws std::logic_error instead.
  template <typename Body>
  void parallel_for(std::size_t n, Body&& body) {
    if (count_ == 1 || n <= 1) {
      if (n > 0) body(std::size_t{0}, n);
      return;
    }
    begin(n, [](void* f, std::size_t from, std::size_t to) { (*static_cast<std::remove_reference_t<Body>*>(f))(from, to); },
          static_cast<void*>(&body));
    run(0);
    finish();
  }

 private:
  using Call = void (*)(void*, std::size_t, std::size_t);

  static std::int64_t process() noexcept {
#if __has_include(<unistd.h>)
    return static_cast<std::int64_t>(::getpid());
#else
    return 0;
#endif
  }

  void begin(std::size_t n, Call call, void* body) {
    if (process() != born_in_) throw std::logic_error("a thread pool does not survive fork(): make a new one in the child");
    {
      const std::lock_guard lock(mutex_);
      if (busy_) throw std::logic_error("parallel_for: this pool is already running a loop");
      busy_ = true;
      n_ = n;
      call_ = call;
      body_ = body;
      pending_ = count_ - 1;
      ++round_;
    }
    work_.notify_all();
  }

  void finish() {
    std::exception_ptr first;
    {
      std::unique_lock lock(mutex_);
      done_.wait(lock, [this] { return pending_ == 0; });
      for (auto& failure : failure_) {
        if (failure && !first) first = failure;
        failure = nullptr;
      }
      busy_ = false;
    }
    if (first) std::rethrow_exception(first);
  }

  // Thread t's share. Reads n_, call_ and body_ without the lock: begin() wrote them before the round that we are in.
  void run(std::size_t t) noexcept {
    const std::size_t from = n_ * t / count_, to = n_ * (t + 1) / count_;
    try {
      if (from < to) call_(body_, from, to);
    } catch (...) {
      failure_[t] = std::current_exception();  // element t is ours until finish()
    }
  }

  void serve(const std::stop_token& stop, std::size_t t) {
    for (std::uint64_t seen = 0;;) {
      {
        std::unique_lock lock(mutex_);
        if (!work_.wait(lock, stop, [&] { return round_ != seen; })) return;
        seen = round_;
      }
      run(t);
      const std::lock_guard lock(mutex_);
      if (--pending_ == 0) done_.notify_one();
    }
  }

  const std::size_t count_;
  const std::int64_t born_in_ = process();

  std::mutex mutex_;
  std::condition_variable_any work_, done_;
  bool busy_ = false;
  std::uint64_t round_ = 0;  // loops begun
  std::size_t n_ = 0, pending_ = 0;
  Call call_ = nullptr;
  void* body_ = nullptr;
  std::vector<std::exception_ptr> failure_;  // by thread

  std::vector<std::jthread> threads_;  // last: joined before anything that they use is gone
};

}  // namespace rlp
