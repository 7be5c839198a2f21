// SPDX-License-Identifier: GPL-3.0-or-later
//
// A Storage over another one that tells of every operation before it takes place: the place for a test to let something
// else come in between, or to hold a thread up.
//
// The watcher is called on the thread of whoever is at the storage, with no lock held; it may use the storage itself,
// and is then told of that as well.
//
// Thread-safety: as every Storage; set the watcher while nobody is in a call.

#pragma once

#include <functional>
#include <memory>
#include <utility>

#include "src/storage.h"

namespace drydock::test {

enum class Operation { read, write, zero, reserve, discard, truncate, flush };

class WatchedStorage final : public Storage {
 public:
  // `length` is in bytes; `offset` of a truncate is the new size.
  using Watcher = std::function<void(Operation operation, HostOffset offset, uint64_t length)>;

  explicit WatchedStorage(std::shared_ptr<Storage> storage) : storage_(std::move(storage)) {}

  void set_watcher(Watcher watcher) { watcher_ = std::move(watcher); }

  const std::string& name() const override { return storage_->name(); }
  bool writable() const override { return storage_->writable(); }
  uint64_t size() const override { return storage_->size(); }
  uint64_t allocated_size() const override { return storage_->allocated_size(); }
  size_t read(HostOffset offset, std::span<std::byte> buffer) const override {
    tell(Operation::read, offset, buffer.size());
    return storage_->read(offset, buffer);
  }
  void write(HostOffset offset, std::span<const std::byte> data) override {
    tell(Operation::write, offset, data.size());
    storage_->write(offset, data);
  }
  void zero(HostOffset offset, uint64_t length, bool keep_space) override {
    tell(Operation::zero, offset, length);
    storage_->zero(offset, length, keep_space);
  }
  void reserve(HostOffset offset, uint64_t length) override {
    tell(Operation::reserve, offset, length);
    storage_->reserve(offset, length);
  }
  void discard(HostOffset offset, uint64_t length) override {
    tell(Operation::discard, offset, length);
    storage_->discard(offset, length);
  }
  void truncate(uint64_t size) override {
    tell(Operation::truncate, HostOffset(size), 0);
    storage_->truncate(size);
  }
  void flush_now() override {
    tell(Operation::flush, {}, 0);
    storage_->flush();
  }
  StorageExtent extent_at(HostOffset offset, uint64_t limit) const override {
    return storage_->extent_at(offset, limit);
  }

 private:
  void tell(Operation operation, HostOffset offset, uint64_t length) const {
    if (watcher_) watcher_(operation, offset, length);
  }

  std::shared_ptr<Storage> storage_;
  Watcher watcher_;
};

}  // namespace drydock::test
