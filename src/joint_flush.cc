// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/joint_flush.h"

namespace drydock {

void JointFlush::run(const std::string& name, const std::function<void()>& flush) {
  std::unique_lock lock(mutex_);
  const uint64_t wanted = begun_ + 1;
  for (;;) {
    if (failure_) {
      throw Error(failure_->kind(), failure_->errno_value(),
                  fmt::format("{}: a flush failed, and what was written before it may be lost: no flush succeeds until "
                              "the image is opened anew ({})",
                              printable(name), failure_->what()));
    }
    if (done_ >= wanted) return;
    if (!running_) break;
    ended_.wait(lock);
  }
  running_ = true;
  ++begun_;
  lock.unlock();
  flush_for_all(flush);
}

void JointFlush::flush_for_all(const std::function<void()>& flush) {
  const auto end = [this](std::optional<Error> failure) {
    const std::lock_guard lock(mutex_);
    running_ = false;
    if (failure) {
      failure_ = std::move(failure);
    } else {
      done_ = begun_;
    }
    ended_.notify_all();
  };
  try {
    flush();
  } catch (const Error& error) {
    end(error);
    throw;
  } catch (const std::exception& error) {  // what became of the bytes is not known
    end(Error(ErrorKind::io, error.what()));
    throw;
  }
  end(std::nullopt);
}

}  // namespace drydock
