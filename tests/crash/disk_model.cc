// SPDX-License-Identifier: GPL-3.0-or-later

#include "tests/crash/disk_model.h"

#include <algorithm>
#include <array>

#include "src/byteorder.h"
#include "src/error.h"
#include "tests/crash/crash_image.h"
#include "tests/crash/violation.h"

namespace drydock::crash {

namespace {

constexpr uint64_t read_chunk = 1 << 20;  // bytes

const Fingerprint zeros = fingerprint(std::vector<std::byte>(sector_size));

// Calls visit(sector, bytes) for every sector of a disk.
template <class Visit>
void for_each_sector(const Disk& disk, Visit&& visit) {
  std::vector<std::byte> chunk(std::min(read_chunk, disk.size()));
  for (uint64_t offset = 0; offset < disk.size(); offset += chunk.size()) {
    const auto bytes = std::span(chunk).first(std::min<uint64_t>(chunk.size(), disk.size() - offset));
    disk.read(GuestOffset(offset), bytes);
    for (uint64_t at = 0; at < bytes.size(); at += sector_size) {
      visit((offset + at) / sector_size, bytes.subspan(at, sector_size));
    }
  }
}

}  // namespace

Fingerprint fingerprint(std::span<const std::byte> sector) {
  uint64_t mixed = 0;
  for (size_t at = 0; at < sector.size(); at += sizeof(uint64_t)) {
    mixed = (mixed ^ load_le<uint64_t>(sector, at)) * 0x9e3779b97f4a7c15;
    mixed ^= mixed >> 29;
  }
  return mixed;
}

std::vector<Fingerprint> fingerprints(std::span<const std::byte> bytes) {
  std::vector<Fingerprint> result;
  result.reserve(divide_up(bytes.size(), sector_size));
  for (; bytes.size() >= sector_size; bytes = bytes.subspan(sector_size)) {
    result.push_back(fingerprint(bytes.first(sector_size)));
  }
  if (!bytes.empty()) {
    std::array<std::byte, sector_size> last{};
    std::ranges::copy(bytes, last.begin());
    result.push_back(fingerprint(last));
  }
  return result;
}

DiskModel::DiskModel(std::vector<std::byte> contents, std::vector<std::byte> backing)
    : now_(std::move(contents)), backing_(fingerprints(backing)), flushed_(fingerprints(now_)) {}

void DiskModel::remember(uint64_t first_sector, uint64_t last_sector) {
  for (uint64_t sector = first_sector; sector <= last_sector; ++sector) {
    const Fingerprint now = fingerprint(std::span(now_).subspan(sector * sector_size, sector_size));
    std::vector<Fingerprint>& values = since_flush_[sector];
    if (now != flushed_[sector]) values.push_back(now);
  }
}

void DiskModel::write(uint64_t offset, std::span<const std::byte> data) {
  if (data.empty()) return;
  remember(offset / sector_size, (offset + data.size() - 1) / sector_size);
  std::ranges::copy(data, now_.begin() + static_cast<std::ptrdiff_t>(offset));
}

void DiskModel::zero(uint64_t offset, uint64_t length) { write(offset, std::vector<std::byte>(length)); }

void DiskModel::begin_discard(uint64_t offset, uint64_t length) {
  discard_offset_ = offset;
  discard_length_ = length;
}

void DiskModel::end_discard(const Disk& disk) {
  const uint64_t start = round_down(discard_offset_, sector_size);
  const uint64_t end = round_up(discard_offset_ + discard_length_, sector_size);
  std::vector<std::byte> found(end - start);
  disk.read(GuestOffset(start), found);
  for (uint64_t at = 0; at < found.size(); at += sector_size) {
    const auto bytes = std::span(found).subspan(at, sector_size);
    const uint64_t sector = (start + at) / sector_size;
    const Fingerprint now = fingerprint(std::span(now_).subspan(start + at, sector_size));
    const Fingerprint value = fingerprint(bytes);
    if (value != now && !tentatively_possible(sector, value)) {
      throw Violation("after a discard, " + describe(sector, bytes));
    }
  }
  discard_length_ = 0;
  write(start, found);
}

void DiskModel::resize(uint64_t size) {
  sizes_.push_back(now_.size());
  for (uint64_t sector = size / sector_size; sector < now_.size() / sector_size; ++sector) {
    remember(sector, sector);
    since_flush_[sector].push_back(zeros);
    if (sector < backing_.size()) since_flush_[sector].push_back(backing_[sector]);
  }
  now_.resize(size);
  if (flushed_.size() < size / sector_size) flushed_.resize(size / sector_size, zeros);
}

void DiskModel::replace(std::span<const std::byte> contents) {
  if (contents.size() != size()) resize(contents.size());
  write(0, contents);
}

void DiskModel::flushed() {
  for (const auto& [sector, values] : since_flush_) {
    if (sector < now_.size() / sector_size) {
      flushed_[sector] = fingerprint(std::span(now_).subspan(sector * sector_size, sector_size));
    }
  }
  since_flush_.clear();
  sizes_.clear();
  flushed_.resize(now_.size() / sector_size);
}

void DiskModel::flushed(uint64_t offset, uint64_t length) {
  for (uint64_t sector = divide_up(offset, sector_size); (sector + 1) * sector_size <= offset + length; ++sector) {
    flushed_[sector] = fingerprint(std::span(now_).subspan(sector * sector_size, sector_size));
    since_flush_.erase(sector);
  }
}

bool DiskModel::tentatively_possible(uint64_t sector, Fingerprint found) const {
  const uint64_t start = sector * sector_size;
  if (start + sector_size <= discard_offset_ || start >= discard_offset_ + discard_length_) return false;
  return found == zeros || (sector < backing_.size() && found == backing_[sector]);
}

bool DiskModel::possible(uint64_t sector, Fingerprint found) const {
  if (found == flushed_[sector]) return true;
  const uint64_t start = sector * sector_size;
  if (start < now_.size() && found == fingerprint(std::span(now_).subspan(start, sector_size))) return true;
  const auto values = since_flush_.find(sector);
  if (values != since_flush_.end() && std::ranges::count(values->second, found) != 0) return true;
  return discard_length_ != 0 && tentatively_possible(sector, found);
}

// A sector written by a workload starts with the number of the step that wrote it and its own number.
std::string DiskModel::describe(uint64_t sector, std::span<const std::byte> found) const {
  const auto told = [sector](std::span<const std::byte> bytes) {
    if (fingerprint(bytes) == zeros) return std::string("zeros");
    const auto stamp = load_le<uint64_t>(bytes);
    if ((stamp & 0xffffffff) != sector) return fmt::format("bytes from elsewhere ({:016x})", stamp);
    return fmt::format("what step {} wrote", stamp >> 32);
  };
  const uint64_t start = sector * sector_size;
  const auto changes = since_flush_.find(sector);
  return fmt::format("offset {} holds {}; the last of {} changes since the last flush left {}", start, told(found),
                     changes == since_flush_.end() ? 0 : changes->second.size() + 1,
                     start < now_.size() ? told(std::span(now_).subspan(start, sector_size)) : "nothing");
}

// Its range reads as it did, but of what it did in the file before it failed a power cut may keep more.
void DiskModel::settle_failed_discard() {
  const uint64_t end = discard_length_ == 0 ? 0 : discard_offset_ + discard_length_;
  for (uint64_t sector = discard_offset_ / sector_size; sector * sector_size < end; ++sector) {
    since_flush_[sector].push_back(zeros);
    if (sector < backing_.size()) since_flush_[sector].push_back(backing_[sector]);
  }
  discard_length_ = 0;
}

void DiskModel::adopt(const Disk& disk) {
  expect_possible(disk);
  std::vector<std::byte> found(disk.size());
  disk.read(GuestOffset(0), found);
  settle_failed_discard();
  replace(found);
}

void DiskModel::expect_now(const Disk& disk) const {
  if (disk.size() != now_.size()) {
    throw Violation(fmt::format("the disk has {} bytes instead of {}", disk.size(), now_.size()));
  }
  for_each_sector(disk, [&](uint64_t sector, std::span<const std::byte> bytes) {
    if (!std::ranges::equal(bytes, std::span(now_).subspan(sector * sector_size, sector_size))) {
      throw Violation(describe(sector, bytes));
    }
  });
}

void DiskModel::expect_possible(const Disk& disk) const {
  if (disk.size() != now_.size() && std::ranges::count(sizes_, disk.size()) == 0) {
    throw Violation(fmt::format("the disk has {} bytes; the last change left {}", disk.size(), now_.size()));
  }
  for_each_sector(disk, [&](uint64_t sector, std::span<const std::byte> bytes) {
    if (!possible(sector, fingerprint(bytes))) throw Violation(describe(sector, bytes));
  });
}

void DiskModel::expect_possible(std::span<const std::byte> bytes) const {
  std::vector<std::byte> padded(now_.size());
  std::ranges::copy(bytes.first(std::min(bytes.size(), padded.size())), padded.begin());
  for (uint64_t start = 0; start < padded.size(); start += sector_size) {
    const auto sector = std::span(padded).subspan(start, sector_size);
    if (!possible(start / sector_size, fingerprint(sector))) throw Violation(describe(start / sector_size, sector));
  }
}

}  // namespace drydock::crash
