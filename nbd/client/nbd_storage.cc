// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/client/nbd_storage.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>

namespace drydock::nbd {

namespace {

// So much is zeroed or discarded at a time: no more than a server that has to write the zeros does in a second or so.
constexpr uint64_t max_zero_length = 128 << 20;
constexpr size_t zero_block_size = 256 << 10;

// Whether the server has the command, but not for this export, or not now.
bool is_not_offered(const Error& error) {
  return error.errno_value() == ENOTSUP || error.errno_value() == EINVAL || error.errno_value() == EOPNOTSUPP;
}

constexpr std::chrono::milliseconds longest_sleep{100};

void check_interruption(const ClientOptions& options) {
  if (options.patience.interrupted()) throw Error(ErrorKind::interrupted, "interrupted");
}

class Retries {
 public:
  explicit Retries(const ClientOptions& options) : options_(options) {}

  // False when it is time to give up. A server that hung up may be there all the same: the first attempt after the loss
  // of a connection follows at once. Throws interrupted.
  bool pause(bool had_connection) {
    const auto now = Connection::Clock::now();
    if (!start_) start_ = now;
    if (had_connection && !std::exchange(lost_before_, true)) return true;
    if (pauses_ >= options_.pauses || now - *start_ > options_.reconnect_limit) return false;
    const auto end = now + options_.first_pause * (1U << pauses_);
    for (auto left = end - now; left.count() > 0; left = end - Connection::Clock::now()) {
      check_interruption(options_);
      std::this_thread::sleep_for(std::min<Connection::Clock::duration>(left, longest_sleep));
    }
    ++pauses_;
    return true;
  }

 private:
  const ClientOptions& options_;
  std::optional<Connection::Clock::time_point> start_;  // when the first connection was lost
  bool lost_before_ = false;
  unsigned pauses_ = 0;
};

}  // namespace

std::shared_ptr<NbdStorage> NbdStorage::open(const Address& address, bool writable, const ClientOptions& options) {
  return std::make_shared<NbdStorage>(address, writable, options);
}

NbdStorage::NbdStorage(const Address& address, bool writable, const ClientOptions& options)
    : name_(to_uri(address)), writable_(writable), options_(options), pool_(address, options), extents_(size()) {
  if (writable && pool_.info().read_only) {
    throw Error(ErrorKind::read_only, "request on NBD export is read-only: the server lets nobody write");
  }
}

void NbdStorage::check_failed() const {
  const std::lock_guard lock(mutex_);
  if (failed_) throw Error(*failed_);
}

// Marked as failed before the connection goes, so that nobody makes a new one and reads what the server has left.
void NbdStorage::note_loss(const std::shared_ptr<Connection>& connection, const ConnectionLost& lost) const {
  const std::lock_guard lock(mutex_);
  if (!failed_ && changes_flushed_ < changes_begun_) {
    failed_ =
        Error(ErrorKind::io, lost.errno_value(),
              fmt::format("{}: {}; what was written since the last flush may be lost", printable(name_), lost.what()));
  }
  if (connection) pool_.drop(connection);
  // It may well be for that alone that the server was not waited for.
  check_interruption(options_);
  if (failed_) throw Error(*failed_);
}

void NbdStorage::reading(const Use& use) const {
  Retries retries(options_);
  for (;;) {
    check_failed();
    std::shared_ptr<Connection> connection;
    try {
      connection = pool_.take();
      return use(*connection);
    } catch (const ConnectionLost& lost) {
      note_loss(connection, lost);
      if (!retries.pause(connection != nullptr)) throw lost.within(printable(name_));
    } catch (const Error& error) {
      throw error.within(printable(name_));
    }
  }
}

// With nothing unflushed a connection may have been lost unnoticed, and be replaced.
std::shared_ptr<Connection> NbdStorage::connection_for_change() {
  const bool all_flushed = [this] {
    const std::lock_guard lock(mutex_);
    return changes_flushed_ == changes_begun_;
  }();
  if (!all_flushed) return pool_.take();
  Retries retries(options_);
  for (;;) {
    try {
      return pool_.take_living();
    } catch (const ConnectionLost&) {
      if (!retries.pause(false)) throw;
    }
  }
}

void NbdStorage::check_change(uint64_t offset, uint64_t length) const {
  if (!writable_) throw Error(ErrorKind::read_only, fmt::format("{}: opened read-only", printable(name_)));
  if (!range_fits(offset, length, size())) {
    throw Error(ErrorKind::no_space,
                fmt::format("{}: Cannot grow NBD nodes: the export has {} bytes, {} are needed", printable(name_),
                            size(), checked_add(offset, length).value_or(UINT64_MAX)));
  }
  check_failed();
}

void NbdStorage::use_for_change(Connection& connection, const Use& use) {
  const auto end = [this] {
    extents_.change();
    const std::lock_guard lock(mutex_);
    --changes_under_way_;
  };
  {
    const std::lock_guard lock(mutex_);
    ++changes_begun_;
    ++changes_under_way_;
  }
  try {
    use(connection);
  } catch (const Error&) {
    end();
    throw;
  }
  end();
}

void NbdStorage::changing(uint64_t offset, uint64_t length, const Use& use) {
  check_change(offset, length);
  std::shared_ptr<Connection> connection;
  try {
    connection = connection_for_change();
    use_for_change(*connection, use);
  } catch (const ConnectionLost& lost) {
    note_loss(connection, lost);
    throw lost.within(printable(name_));
  } catch (const Error& error) {
    throw error.within(printable(name_));
  }
}

// ---- Reading

void NbdStorage::read_blocks(uint64_t offset, std::span<std::byte> buffer) const {
  reading([&](Connection& connection) { connection.read(offset, buffer); });
}

size_t NbdStorage::read(HostOffset offset, std::span<std::byte> buffer) const {
  const uint64_t block = pool_.info().min_block;
  const uint64_t start = std::min(offset.value(), size());
  const uint64_t count = std::min<uint64_t>(buffer.size(), size() - start);
  if (count == 0) return 0;
  const uint64_t first = round_down(start, block);
  const uint64_t end = std::min(round_up(start + count, block), size());
  if (first == start && end == start + count) {
    read_blocks(start, buffer.first(count));
    return count;
  }
  std::vector<std::byte> blocks(end - first);
  read_blocks(first, blocks);
  std::copy_n(blocks.begin() + static_cast<std::ptrdiff_t>(start - first), count, buffer.begin());
  return count;
}

StorageExtent NbdStorage::extent_at(HostOffset offset, uint64_t limit) const {
  limit = std::min(limit, size() - offset.value());
  if (!pool_.info().tells_extents) return {.length = limit, .hole = false};
  const uint64_t block = pool_.info().min_block;
  const uint64_t first = round_down(offset.value(), block);
  const uint64_t skipped = offset.value() - first;
  StorageExtent extent = extents_.at(first, limit + skipped, [&](uint64_t start, uint64_t length) {
    std::vector<StorageExtent> told;
    try {
      reading([&](Connection& connection) {
        const uint64_t whole = std::min(round_up(length, block), size() - start);
        told = connection.block_status(start, static_cast<uint32_t>(whole));
      });
    } catch (const Error& error) {
      // What the server cannot tell is read to find out.
      check_failed();
      if (!is_not_offered(error)) throw;
      told.push_back({.length = length, .hole = false});
    }
    return told;
  });
  // Of whole blocks, whatever the server says.
  if (extent.length <= skipped) return {.length = std::min(limit, block - skipped), .hole = false};
  extent.length -= skipped;
  return extent;
}

// ---- Changing

// Whole blocks, none of which somebody is about to write back with a part of it changed.
void NbdStorage::changing_blocks(uint64_t offset, uint64_t length, const Use& use) {
  const uint64_t block = pool_.info().min_block;
  std::optional<RangeLocks::Hold> hold;
  if (block > 1) hold.emplace(changing_, offset / block, (offset + length - 1) / block);
  changing(offset, length, use);
}

void NbdStorage::write_part_of_block(uint64_t offset, std::span<const std::byte> data) {
  const uint64_t block = pool_.info().min_block;
  const uint64_t first = round_down(offset, block);
  const RangeLocks::Hold hold(changing_, first / block, first / block);
  std::vector<std::byte> whole(std::min(block, size() - first));
  read_blocks(first, whole);
  std::ranges::copy(data, whole.begin() + static_cast<std::ptrdiff_t>(offset - first));
  changing(first, whole.size(), [&](Connection& connection) { connection.write(first, whole); });
}

void NbdStorage::write(HostOffset offset, std::span<const std::byte> data) {
  const uint64_t block = pool_.info().min_block;
  uint64_t at = offset.value();
  check_change(at, data.size());
  if (const uint64_t inside = at % block; inside != 0) {
    const auto head = data.first(std::min<uint64_t>(data.size(), block - inside));
    write_part_of_block(at, head);
    at += head.size();
    data = data.subspan(head.size());
  }
  const auto middle = data.first(at + data.size() == size() ? data.size() : round_down(data.size(), block));
  if (!middle.empty()) {
    changing_blocks(at, middle.size(), [&](Connection& connection) { connection.write(at, middle); });
  }
  if (const auto tail = data.subspan(middle.size()); !tail.empty()) write_part_of_block(at + middle.size(), tail);
}

void NbdStorage::write_zeros(uint64_t offset, uint64_t length) {
  static constexpr std::array<std::byte, zero_block_size> zeros{};
  while (length > 0) {
    const size_t step = std::min<uint64_t>(length, zeros.size());
    write(HostOffset(offset), std::span(zeros).first(step));
    offset += step;
    length -= step;
  }
}

void NbdStorage::zero_blocks(uint64_t offset, uint64_t length, bool keep_space) {
  while (length > 0) {
    const uint64_t step = std::min(length, max_zero_length);
    bool done = pool_.info().can_zero;
    try {
      if (done) {
        changing_blocks(offset, step, [&](Connection& connection) {
          connection.zero(offset, static_cast<uint32_t>(step), keep_space);
        });
      }
    } catch (const Error& error) {
      check_failed();
      if (!is_not_offered(error)) throw;
      done = false;
    }
    if (!done) write_zeros(offset, step);
    offset += step;
    length -= step;
  }
}

void NbdStorage::zero(HostOffset offset, uint64_t length, bool keep_space) {
  const uint64_t block = pool_.info().min_block;
  const uint64_t start = offset.value();
  check_change(start, length);
  const uint64_t end = start + length;
  const uint64_t first = std::min(round_up(start, block), end);
  const uint64_t last = end == size() ? end : std::max(first, round_down(end, block));
  write_zeros(start, first - start);
  zero_blocks(first, last - first, keep_space);
  write_zeros(last, end - last);
}

void NbdStorage::discard(HostOffset offset, uint64_t length) {
  check_change(offset.value(), length);
  const uint64_t block = pool_.info().min_block;
  const uint64_t end = offset.value() + length == size() ? size() : round_down(offset.value() + length, block);
  for (uint64_t at = round_up(offset.value(), block); pool_.info().can_trim && at < end;) {
    const uint64_t step = std::min(end - at, max_zero_length);
    try {
      changing_blocks(at, step, [&](Connection& connection) { connection.trim(at, static_cast<uint32_t>(step)); });
    } catch (const Error& error) {
      check_failed();
      if (!is_not_offered(error)) throw;
      return;  // a hint that is not taken is no failure
    }
    at += step;
  }
}

void NbdStorage::truncate(uint64_t size) { check_change(0, size); }

void NbdStorage::flush_now() {
  check_failed();
  uint64_t covered = 0;
  {
    const std::lock_guard lock(mutex_);
    if (changes_flushed_ == changes_begun_) return;
    // What is under way now need not be in the flush.
    covered = changes_under_way_ == 0 ? changes_begun_ : changes_flushed_;
  }
  if (pool_.info().can_flush) {
    std::shared_ptr<Connection> connection;
    try {
      connection = pool_.take();
      connection->flush();
    } catch (const ConnectionLost& lost) {
      note_loss(connection, lost);
      throw lost.within(printable(name_));
    } catch (const Error& error) {
      throw error.within(printable(name_));
    }
  }
  const std::lock_guard lock(mutex_);
  changes_flushed_ = std::max(changes_flushed_, covered);
}

}  // namespace drydock::nbd
