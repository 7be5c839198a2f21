// SPDX-License-Identifier: GPL-3.0-or-later

#include "inspect/naming_queue.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace drydock {

namespace {

constexpr size_t most_files = 64;            // each holds two descriptors
constexpr uint64_t most_bytes = 256U << 20;  // a SIGKILL costs this much, and the first flush waits for no more

}  // namespace

UnnamedFile::UnnamedFile(UniqueFd folder, std::string part, std::string name, std::string shown)
    : folder_(std::move(folder)), part_(std::move(part)), name_(std::move(name)), shown_(std::move(shown)) {}

UnnamedFile::UnnamedFile(UnnamedFile&& other) noexcept
    : folder_(std::move(other.folder_)),
      part_(std::exchange(other.part_, {})),
      name_(std::move(other.name_)),
      shown_(std::move(other.shown_)) {}

UnnamedFile& UnnamedFile::operator=(UnnamedFile&& other) noexcept {
  if (this == &other) return *this;
  remove();
  folder_ = std::move(other.folder_);
  part_ = std::exchange(other.part_, {});
  name_ = std::move(other.name_);
  shown_ = std::move(other.shown_);
  return *this;
}

UnnamedFile::~UnnamedFile() { remove(); }

void UnnamedFile::remove() {
  if (!part_.empty()) ::unlinkat(folder_.get(), part_.c_str(), 0);
  part_.clear();
}

void UnnamedFile::take_name() {
  const bool named = ::renameat(folder_.get(), part_.c_str(), folder_.get(), name_.c_str()) == 0;
  const int error = errno;
  // Between two names of one file a rename does nothing, and the part is still there.
  remove();
  if (!named) throw system_error(error, shown_ + ": cannot be replaced");
}

void NamingQueue::add(UniqueFd file, UnnamedFile name, const std::string& path, uint64_t size) {
  files_.push_back({std::move(file), std::move(name), path});
  paths_.insert(path);
  bytes_ += size;
}

bool NamingQueue::is_full() const { return files_.size() >= most_files || bytes_ >= most_bytes; }

void NamingQueue::settle() {
  // All are on their way to the disk before the first is waited for.
  for (const Waiting& each : files_) ::sync_file_range(each.file.get(), 0, 0, SYNC_FILE_RANGE_WRITE);
  for (Waiting& each : files_) {
    try {
      if (::fsync(each.file.get()) != 0) throw system_error(errno, printable(each.path));
      each.name.take_name();
    } catch (const Error& error) {
      if (!failure_) failure_ = error;
    }
  }
  files_.clear();
  paths_.clear();
  bytes_ = 0;
}

void NamingQueue::report() {
  if (failure_) throw Error(*std::exchange(failure_, std::nullopt));
}

}  // namespace drydock
