// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/copy/stream_disk.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <vector>

#include "src/copy/parallel.h"
#include "src/copy/rate_limit.h"
#include "src/copy/salvage.h"
#include "src/copy/work_feed.h"
#include "src/error.h"

namespace drydock {

namespace {

constexpr uint64_t chunk = 1 << 20;

// The descriptor, written from its start to its end by one thread at a time.
class Stream {
 public:
  Stream(int fd, std::string name) : fd_(fd), name_(std::move(name)) {
    struct stat status {};
    const bool regular = ::fstat(fd_, &status) == 0 && S_ISREG(status.st_mode);
    const off_t at = regular ? ::lseek(fd_, 0, SEEK_CUR) : -1;
    // Behind the file's end nothing has to be written for zeros to be there.
    makes_holes_ = at >= status.st_size && (::fcntl(fd_, F_GETFL) & O_APPEND) == 0;
  }

  void write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t put = ::write(fd_, bytes.data(), bytes.size());
      if (put >= 0) {
        bytes = bytes.subspan(static_cast<size_t>(put));
      } else if (errno != EINTR) {
        throw system_error(errno, fmt::format("error while writing: {}", name_));
      }
    }
    ends_in_hole_ = false;
  }

  void write_zeros(uint64_t length) {
    if (length == 0) return;
    if (makes_holes_) {
      if (::lseek(fd_, static_cast<off_t>(length), SEEK_CUR) < 0) throw system_error(errno, name_);
      ends_in_hole_ = true;
      return;
    }
    const std::vector<std::byte> zeros(std::min(length, chunk));
    for (; length > 0; length -= std::min<uint64_t>(length, zeros.size())) {
      write(std::span(zeros).first(std::min<uint64_t>(length, zeros.size())));
    }
  }

  void finish() const {
    if (ends_in_hole_ && ::ftruncate(fd_, ::lseek(fd_, 0, SEEK_CUR)) != 0) throw system_error(errno, name_);
  }

 private:
  int fd_;
  std::string name_;
  bool makes_holes_ = false;
  bool ends_in_hole_ = false;
};

// Lets threads through one after the other, by their numbers.
class Turnstile {
 public:
  // False when the work was given up meanwhile.
  bool wait_for(uint64_t number, const std::atomic<bool>& stop) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return next_ == number || given_up_ || stop; });
    return next_ == number && !given_up_ && !stop;
  }
  void pass() {
    const std::lock_guard lock(mutex_);
    ++next_;
    changed_.notify_all();
  }
  void give_up() {
    const std::lock_guard lock(mutex_);
    given_up_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t next_ = 0;
  bool given_up_ = false;
};

}  // namespace

void stream_disk(const Disk& source, int fd, const std::string& name, const CopyOptions& options) {
  const auto classify = [](const Extent& extent) { return extent.zero ? WorkKind::zero : WorkKind::data; };
  WorkFeed feed(source, classify, {.data_chunk = chunk});
  SalvagingReader reader(source, options.unreadable);
  RateLimit limit(options.bytes_per_second);
  Stream stream(fd, name);
  Turnstile turnstile;

  const auto work = [&](const std::atomic<bool>& stop) {
    std::vector<std::byte> buffer;
    const auto go_on = [&] {
      options.advance(0);
      return !stop;
    };
    while (const std::optional<Work> piece = feed.next()) {
      const bool is_data = piece->kind == WorkKind::data;
      buffer.resize(is_data ? piece->range.length : 0);
      reader.read(piece->range.start, buffer);
      if (!turnstile.wait_for(piece->number, stop)) return;
      if (!limit.take(piece->range.length, go_on)) return;
      stream.write(buffer);
      if (!is_data) stream.write_zeros(piece->range.length);
      turnstile.pass();
      options.advance(piece->range.length);
    }
  };
  run_in_parallel(options.threads == 0 ? default_threads() : options.threads, [&](const std::atomic<bool>& stop) {
    try {
      work(stop);
    } catch (...) {
      turnstile.give_up();
      throw;
    }
  });
  stream.finish();
}

}  // namespace drydock
