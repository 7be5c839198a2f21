// SPDX-License-Identifier: GPL-3.0-or-later
//
// How far a check or a repair of an image has come, told by what it reads: the engine's check knows nothing of
// progress.
//
// Thread-safety: that of the storage below. It does not own that storage, nor the progress.

#pragma once

#include "src/error.h"
#include "src/storage.h"
#include "tools/progress.h"

namespace drydock::cli {

enum class Interruption {
  ends_reading,  // reads throw interrupted
  waits,         // for whom a table that cannot be read is a damaged one, to be repaired
};

// `storage`, whose reads count.
class CountedReads final : public Storage {
 public:
  CountedReads(Storage& storage, Progress& progress, Interruption interruption)
      : storage_(storage), progress_(progress), interruption_(interruption) {}

  const std::string& name() const override { return storage_.name(); }
  bool writable() const override { return storage_.writable(); }
  uint64_t size() const override { return storage_.size(); }
  uint64_t allocated_size() const override { return storage_.allocated_size(); }
  bool can_grow() const override { return storage_.can_grow(); }
  size_t read(HostOffset offset, std::span<std::byte> buffer) const override {
    count(buffer.size());
    return storage_.read(offset, buffer);
  }
  void write(HostOffset offset, std::span<const std::byte> data) override { storage_.write(offset, data); }
  void zero(HostOffset offset, uint64_t length, bool keep_space) override { storage_.zero(offset, length, keep_space); }
  void discard(HostOffset offset, uint64_t length) override { storage_.discard(offset, length); }
  void truncate(uint64_t size) override { storage_.truncate(size); }
  void flush_now() override { storage_.flush(); }
  StorageExtent extent_at(HostOffset offset, uint64_t limit) const override {
    return storage_.extent_at(offset, limit);
  }
  std::string identity() const override { return storage_.identity(); }

 private:
  void count(uint64_t bytes) const try { progress_.advance(bytes); } catch (const Error&) {
    if (interruption_ == Interruption::ends_reading) throw;
  }

  Storage& storage_;
  Progress& progress_;
  Interruption interruption_;
};

// About how many bytes a check of a qcow2 image reads; 0 where its tables do not tell.
uint64_t bytes_to_check(const Storage& image);

}  // namespace drydock::cli
