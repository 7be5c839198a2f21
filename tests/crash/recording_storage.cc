// SPDX-License-Identifier: GPL-3.0-or-later

#include "tests/crash/recording_storage.h"

#include <algorithm>
#include <array>

namespace drydock::crash {

std::string_view change_name(ChangeKind kind) {
  static constexpr std::array<std::string_view, 4> names{"write", "zero", "discard", "truncate"};
  return names[static_cast<size_t>(kind)];
}

RecordingStorage::RecordingStorage(const std::vector<std::byte>& bytes, std::string name, DiscardReads discard_reads)
    : live_(bytes, std::move(name)), stable_(bytes), discard_reads_(discard_reads) {}

void RecordingStorage::observe() const {
  if (observer_) observer_();
}

void RecordingStorage::write(HostOffset offset, std::span<const std::byte> data) {
  const std::lock_guard lock(mutex_);
  observe();
  pending_.push_back({ChangeKind::write, offset.value(), data.size(), {data.begin(), data.end()}});
  live_.write(offset, data);
}

void RecordingStorage::zero(HostOffset offset, uint64_t length, bool keep_space) {
  const std::lock_guard lock(mutex_);
  observe();
  pending_.push_back({ChangeKind::zero, offset.value(), length, {}});
  live_.zero(offset, length, keep_space);
}

void RecordingStorage::discard(HostOffset offset, uint64_t length) {
  const std::lock_guard lock(mutex_);
  const uint64_t size = live_.size();
  if (offset.value() >= size) return;
  length = std::min(length, size - offset.value());
  observe();
  const bool reads_zeros = discard_reads_ == DiscardReads::zeros;
  pending_.push_back({ChangeKind::discard, offset.value(), length, {}, reads_zeros});
  if (reads_zeros) live_.zero(offset, length, false);
}

void RecordingStorage::truncate(uint64_t size) {
  const std::lock_guard lock(mutex_);
  observe();
  pending_.push_back({ChangeKind::truncate, size, 0, {}});
  live_.truncate(size);
}

void RecordingStorage::lose_unflushed(std::vector<std::byte> bytes) {
  const std::lock_guard lock(mutex_);
  bytes.resize(live_.size());
  live_.write(HostOffset(0), bytes);
  stable_ = std::move(bytes);
  pending_.clear();
}

void RecordingStorage::flush_now() {
  const std::lock_guard lock(mutex_);
  observe();
  if (lies_) return;
  pending_.clear();
  stable_.resize(live_.size());
  live_.read(HostOffset(0), stable_);
}

}  // namespace drydock::crash
