// SPDX-License-Identifier: GPL-3.0-or-later

#include "tests/support/crash_storage.h"

#include <algorithm>
#include <cerrno>

#include "src/error.h"

namespace drydock::test {

namespace {

constexpr uint64_t sector_size = 512;
constexpr size_t all_subsets_up_to = 4;  // pieces
constexpr size_t random_subsets = 12;

}  // namespace

void CrashStorage::count(Operation operation) {
  ++operations_;
  if (fail_after_ == 0 || (operation == Operation::flush && !flushes_fail_)) return;
  if (fail_after_ == 1) throw system_error(EIO, name());
  --fail_after_;
}

void CrashStorage::write(HostOffset offset, std::span<const std::byte> data) {
  count(Operation::change);
  current_.write(offset, data);
  while (!data.empty()) {
    const uint64_t step = std::min<uint64_t>(data.size(), sector_size - offset.value() % sector_size);
    pending_.push_back({offset.value(), {data.begin(), data.begin() + static_cast<std::ptrdiff_t>(step)}});
    offset += step;
    data = data.subspan(step);
  }
  visit_crashes();
}

void CrashStorage::zero(HostOffset offset, uint64_t length, bool) { write(offset, std::vector<std::byte>(length)); }

void CrashStorage::truncate(uint64_t size) {
  count(Operation::change);
  current_.truncate(size);
  flushed_.resize(size);
  std::erase_if(pending_, [size](const Piece& piece) { return piece.offset >= size; });
}

void CrashStorage::flush_now() {
  count(Operation::flush);
  flushed_ = bytes();
  pending_.clear();
}

std::vector<std::byte> CrashStorage::bytes() const {
  std::vector<std::byte> bytes(current_.size());
  current_.read(HostOffset(0), bytes);
  return bytes;
}

void CrashStorage::visit_crashes() {
  if (!visit_) return;
  const size_t count = pending_.size();
  if (count <= all_subsets_up_to) {
    for (size_t subset = 0; subset < size_t{1} << count; ++subset) {
      std::vector<bool> kept(count);
      for (size_t i = 0; i < count; ++i) kept[i] = (subset >> i & 1) != 0;
      visit_subset(kept);
    }
    return;
  }
  visit_subset(std::vector<bool>(count, true));
  visit_subset(std::vector<bool>(count, false));
  for (size_t i = 0; i < random_subsets; ++i) {
    std::vector<bool> kept(count);
    for (size_t piece = 0; piece < count; ++piece) kept[piece] = (random_() & 1) != 0;
    visit_subset(kept);
  }
}

void CrashStorage::visit_subset(const std::vector<bool>& kept) const {
  std::vector<std::byte> disk = flushed_;
  for (size_t i = 0; i < pending_.size(); ++i) {
    if (!kept[i]) continue;
    const Piece& piece = pending_[i];
    disk.resize(std::max<uint64_t>(disk.size(), piece.offset + piece.data.size()));
    std::ranges::copy(piece.data, disk.begin() + static_cast<std::ptrdiff_t>(piece.offset));
  }
  visit_(disk);
}

}  // namespace drydock::test
