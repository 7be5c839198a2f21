// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/copy/parallel.h"

#include <algorithm>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace drydock {

namespace {

constexpr unsigned enough = 16;  // threads, for their waits to be filled
constexpr unsigned most = 64;    // so that their buffers, 1 MiB and more for each, stay within 128 MiB

}  // namespace

unsigned default_threads() {
  const unsigned processors = std::max(1U, std::thread::hardware_concurrency());
  return std::min(std::max(processors, std::min(2 * processors, enough)), most);
}

void run_in_parallel(unsigned threads, const std::function<void(const std::atomic<bool>& stop)>& work) {
  std::atomic<bool> stop = false;
  std::mutex mutex;
  std::exception_ptr failure;
  auto guarded = [&] {
    try {
      work(stop);
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!failure) failure = std::current_exception();
      stop = true;
    }
  };
  {
    std::vector<std::jthread> others;
    for (unsigned i = 1; i < threads; ++i) others.emplace_back(guarded);
    guarded();
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace drydock
