// SPDX-License-Identifier: GPL-3.0-or-later
//
// A storage in memory whose power can fail at any moment: it tells, behind every write, what a disk could hold if it
// failed now. What was flushed is there; of what was not, any part, torn at 512 bytes.

#pragma once

#include <functional>
#include <random>
#include <vector>

#include "src/memory_storage.h"

namespace drydock::test {

class CrashStorage final : public Storage {
 public:
  using Visit = std::function<void(const std::vector<std::byte>& disk)>;

  explicit CrashStorage(std::vector<std::byte> bytes)
      : current_(bytes, "crash.qcow2"), flushed_(std::move(bytes)), random_(flushed_.size()) {}

  // Called with what may be left, several times for each write; null: not at all.
  void on_crash(Visit visit) { visit_ = std::move(visit); }
  // The `count`-th write or flush from now on fails with EIO, and all after it until fail_after(0).
  void fail_after(size_t count) { fail_after_ = count; }
  // Whether fail_after() counts flushes and fails them (the default): behind one no flush succeeds any more.
  void let_flushes_fail(bool fail) { flushes_fail_ = fail; }
  // Writes and flushes so far.
  size_t operations() const { return operations_; }

  const std::string& name() const override { return current_.name(); }
  bool writable() const override { return true; }
  uint64_t size() const override { return current_.size(); }
  uint64_t allocated_size() const override { return current_.size(); }
  size_t read(HostOffset offset, std::span<std::byte> buffer) const override { return current_.read(offset, buffer); }
  void write(HostOffset offset, std::span<const std::byte> data) override;
  void zero(HostOffset offset, uint64_t length, bool keep_space) override;
  void discard(HostOffset, uint64_t) override {}
  void truncate(uint64_t size) override;
  void flush_now() override;
  StorageExtent extent_at(HostOffset, uint64_t limit) const override { return {limit, false}; }

  std::vector<std::byte> bytes() const;

 private:
  struct Piece {
    uint64_t offset = 0;
    std::vector<std::byte> data;  // within one sector
  };
  enum class Operation { change, flush };
  void count(Operation operation);
  void visit_crashes();
  void visit_subset(const std::vector<bool>& kept) const;

  MemoryStorage current_;
  std::vector<std::byte> flushed_;
  std::vector<Piece> pending_;
  std::mt19937_64 random_;
  Visit visit_;
  size_t operations_ = 0;
  size_t fail_after_ = 0;
  bool flushes_fail_ = true;
};

}  // namespace drydock::test
