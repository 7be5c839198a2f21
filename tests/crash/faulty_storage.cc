// SPDX-License-Identifier: GPL-3.0-or-later

#include "tests/crash/faulty_storage.h"

#include <algorithm>
#include <cerrno>

#include "src/error.h"
#include "tests/crash/crash_image.h"

namespace drydock::crash {

void FaultyStorage::arm(const Fault& fault) {
  const std::lock_guard lock(mutex_);
  fault_ = fault;
  failed_.reset();
  must_be_told_ = false;
}

void FaultyStorage::repair() {
  const std::lock_guard lock(mutex_);
  fault_.reset();
}

std::optional<int> FaultyStorage::failed() const {
  const std::lock_guard lock(mutex_);
  return failed_;
}

uint64_t FaultyStorage::failures() const {
  const std::lock_guard lock(mutex_);
  return failures_;
}

bool FaultyStorage::must_be_told() const {
  const std::lock_guard lock(mutex_);
  return must_be_told_;
}

uint64_t FaultyStorage::operations() const {
  const std::lock_guard lock(mutex_);
  return operations_;
}

bool FaultyStorage::flush_failed() const {
  const std::lock_guard lock(mutex_);
  return flush_failed_;
}

void FaultyStorage::pass(Kind kind, HostOffset offset, std::span<const std::byte> data) const {
  const std::lock_guard lock(mutex_);
  ++operations_;
  if (!fault_) return;
  if (fault_->at > 0) {
    --fault_->at;
    return;
  }
  const Fault fault = *fault_;
  if (!fault.lasting) fault_.reset();
  if (fault.lasting && kind == Kind::read) return;  // what breaks reads, too, is no disk to go on with
  if (fault.partial && kind == Kind::write) {
    const uint64_t half = round_down(offset.value() + data.size() / 2, sector_size);
    if (half > offset.value()) storage_->write(offset, data.first(half - offset.value()));
  }
  const int errno_value = kind == Kind::read ? EIO : fault.errno_value;
  failed_ = errno_value;
  ++failures_;
  if (kind != Kind::discard && kind != Kind::read) must_be_told_ = true;
  throw system_error(errno_value, name());
}

size_t FaultyStorage::read(HostOffset offset, std::span<std::byte> buffer) const {
  pass(Kind::read);
  return storage_->read(offset, buffer);
}

void FaultyStorage::remember(HostOffset offset, uint64_t length) {
  if (lose_) return;
  const std::lock_guard lock(mutex_);
  Before before{storage_->size(), offset, {}};
  before.bytes.resize(offset.value() < before.size ? std::min(length, before.size - offset.value()) : 0);
  storage_->read(offset, before.bytes);
  unflushed_.push_back(std::move(before));
}

void FaultyStorage::lose_unflushed() {
  const std::lock_guard lock(mutex_);
  flush_failed_ = true;
  if (lose_) lose_();
  for (; !unflushed_.empty(); unflushed_.pop_back()) {
    const Before& before = unflushed_.back();
    storage_->truncate(before.size);
    storage_->write(before.offset, before.bytes);
  }
}

void FaultyStorage::write(HostOffset offset, std::span<const std::byte> data) {
  remember(offset, data.size());
  pass(Kind::write, offset, data);
  storage_->write(offset, data);
}

void FaultyStorage::zero(HostOffset offset, uint64_t length, bool keep_space) {
  pass(Kind::zero);
  remember(offset, length);
  storage_->zero(offset, length, keep_space);
}

void FaultyStorage::reserve(HostOffset offset, uint64_t length) {
  pass(Kind::reserve);
  storage_->reserve(offset, length);
}

void FaultyStorage::discard(HostOffset offset, uint64_t length) {
  pass(Kind::discard);
  remember(offset, length);
  storage_->discard(offset, length);
}

void FaultyStorage::truncate(uint64_t size) {
  pass(Kind::truncate);
  remember(HostOffset(size), UINT64_MAX);
  storage_->truncate(size);
}

void FaultyStorage::flush_now() {
  try {
    pass(Kind::flush);
  } catch (const Error&) {
    lose_unflushed();
    throw;
  }
  storage_->flush();
  const std::lock_guard lock(mutex_);
  unflushed_.clear();
}

}  // namespace drydock::crash
