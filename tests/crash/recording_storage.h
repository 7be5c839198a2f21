// SPDX-License-Identifier: GPL-3.0-or-later
//
// A Storage in memory that remembers which of its changes a power cut could still undo.
//
//   stable()   the bytes as they were when the last flush returned: no power cut takes these away
//   pending()  every write, zero, discard and truncate since, in order, with its bytes
//
// Thread-safety: as every Storage. stable() and pending() are for the observer, and for when nobody else is in a call.

#pragma once

#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "src/memory_storage.h"

namespace drydock::crash {

enum class ChangeKind { write, zero, discard, truncate };

std::string_view change_name(ChangeKind kind);

struct Change {
  ChangeKind kind = ChangeKind::write;
  uint64_t offset = 0;           // of a truncate: the new size
  uint64_t length = 0;           // bytes; 0 for a truncate
  std::vector<std::byte> bytes;  // of a write
  bool reads_zeros = true;       // of a discard: what the storage made of it
};

// What the storage does with the bytes of a discarded range; both are allowed.
enum class DiscardReads { zeros, as_before };

class RecordingStorage final : public Storage {
 public:
  // Called before each change and each flush takes place, on the caller's thread, with the storage's mutex held.
  using Observer = std::function<void()>;

  RecordingStorage(const std::vector<std::byte>& bytes, std::string name, DiscardReads discard_reads);

  void set_observer(Observer observer) { observer_ = std::move(observer); }
  // Flushes are answered, and done no more.
  void lie_about_flushes() { lies_ = true; }
  // What a flush that fails leaves: `bytes` have reached the disk, everything else since the last flush is lost, and
  // reads find no more than that. The size stays, which the system knows without the disk.
  void lose_unflushed(std::vector<std::byte> bytes);
  const std::vector<std::byte>& stable() const { return stable_; }
  const std::vector<Change>& pending() const { return pending_; }

  const std::string& name() const override { return live_.name(); }
  bool writable() const override { return true; }
  uint64_t size() const override { return live_.size(); }
  uint64_t allocated_size() const override { return live_.size(); }
  size_t read(HostOffset offset, std::span<std::byte> buffer) const override { return live_.read(offset, buffer); }
  void write(HostOffset offset, std::span<const std::byte> data) override;
  void zero(HostOffset offset, uint64_t length, bool keep_space) override;
  void discard(HostOffset offset, uint64_t length) override;
  void truncate(uint64_t size) override;
  void flush_now() override;
  StorageExtent extent_at(HostOffset offset, uint64_t limit) const override { return live_.extent_at(offset, limit); }

 private:
  void observe() const;

  std::mutex mutex_;
  MemoryStorage live_;
  std::vector<std::byte> stable_;
  std::vector<Change> pending_;
  DiscardReads discard_reads_;
  bool lies_ = false;
  Observer observer_;
};

}  // namespace drydock::crash
