// SPDX-License-Identifier: GPL-3.0-or-later
//
// A Storage over another one that fails when it is told to: the n-th operation from now on, once or until repaired.
// When it fails a flush, what was written since the last one is lost, as it is where a kernel could not write it: all
// of it, or what the storage below makes of that.
//
// Thread-safety: as every Storage.

#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "src/storage.h"

namespace drydock::crash {

struct Fault {
  uint64_t at = 0;       // operations that still work: 0 fails the next one
  int errno_value = 0;   // that it fails with; a read, with EIO
  bool lasting = false;  // every change and flush fails from then on, as on a full or broken disk
  bool partial = false;  // the first half of a write gets through, up to a sector
};

class FaultyStorage final : public Storage {
 public:
  // `lose` has the storage below lose what was not flushed, when a flush fails; left empty, all of it is lost.
  explicit FaultyStorage(std::shared_ptr<Storage> storage, std::function<void()> lose = {})
      : storage_(std::move(storage)), lose_(std::move(lose)) {}

  void arm(const Fault& fault);
  void repair();
  // The errno with which an operation failed since arm().
  std::optional<int> failed() const;
  // How many operations have failed since the beginning.
  uint64_t failures() const;
  // Whether somebody must be told: not of discards, which are hints, nor of reads, which are tried again.
  bool must_be_told() const;
  // Operations since the beginning: reads, writes, zeroes, reservations, discards, truncates, flushes.
  uint64_t operations() const;
  // Whether a flush has failed: what reads find is not what was written then.
  bool flush_failed() const;

  const std::string& name() const override { return storage_->name(); }
  bool writable() const override { return storage_->writable(); }
  uint64_t size() const override { return storage_->size(); }
  uint64_t allocated_size() const override { return storage_->allocated_size(); }
  size_t read(HostOffset offset, std::span<std::byte> buffer) const override;
  void write(HostOffset offset, std::span<const std::byte> data) override;
  void zero(HostOffset offset, uint64_t length, bool keep_space) override;
  void reserve(HostOffset offset, uint64_t length) override;
  void discard(HostOffset offset, uint64_t length) override;
  void truncate(uint64_t size) override;
  void flush_now() override;
  StorageExtent extent_at(HostOffset offset, uint64_t limit) const override {
    return storage_->extent_at(offset, limit);
  }

 private:
  enum class Kind { read, write, zero, reserve, discard, truncate, flush };
  // Counts; throws when its turn has come. `offset` and `data` are a write's.
  void pass(Kind kind, HostOffset offset = {}, std::span<const std::byte> data = {}) const;
  // What a change is about to overwrite, until the next flush.
  void remember(HostOffset offset, uint64_t length);
  void lose_unflushed();

  struct Before {
    uint64_t size = 0;  // bytes, of the storage
    HostOffset offset;
    std::vector<std::byte> bytes;
  };

  std::shared_ptr<Storage> storage_;
  std::function<void()> lose_;
  mutable std::mutex mutex_;
  mutable std::optional<Fault> fault_;
  mutable std::optional<int> failed_;
  mutable bool must_be_told_ = false;
  mutable uint64_t operations_ = 0;
  mutable uint64_t failures_ = 0;
  std::vector<Before> unflushed_;
  bool flush_failed_ = false;
};

}  // namespace drydock::crash
