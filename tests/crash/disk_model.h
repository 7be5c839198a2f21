// SPDX-License-Identifier: GPL-3.0-or-later
//
// What a guest may find on its disk: now, and after a power cut.
//
// For each 512-byte sector the model knows the value at the last flush and every value since. After a power cut each of
// these is right, and nothing else is. The same holds for the disk's size.
//
// The caller tells the model of a change before it makes the change, so that the model is right at every instant in
// between. Not thread-safe.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "src/disk.h"

namespace drydock::crash {

// The sector's bytes, as good as.
using Fingerprint = uint64_t;
Fingerprint fingerprint(std::span<const std::byte> sector);
// Of consecutive sectors; the last one may be short and is filled up with zeros.
std::vector<Fingerprint> fingerprints(std::span<const std::byte> bytes);

class DiskModel {
 public:
  // `backing` is what shows through where the disk holds nothing.
  DiskModel(std::vector<std::byte> contents, std::vector<std::byte> backing);

  uint64_t size() const { return now_.size(); }
  std::span<const std::byte> now() const { return now_; }

  void write(uint64_t offset, std::span<const std::byte> data);
  void zero(uint64_t offset, uint64_t length);
  // A change that is about to leave the range as it was, zero, or showing the backing file, until end_discard() tells
  // which it was.
  void begin_discard(uint64_t offset, uint64_t length);
  void end_discard(const Disk& disk);
  void resize(uint64_t size);
  // The whole disk is about to be `contents`.
  void replace(std::span<const std::byte> contents);
  void flushed();
  // The same of the sectors that are wholly in a range: a write with FUA.
  void flushed(uint64_t offset, uint64_t length);

  // Takes what `disk` holds for what there is now. Throws Violation unless it might be found after a power cut.
  void adopt(const Disk& disk);
  // Throws Violation unless `disk` holds exactly what there is now.
  void expect_now(const Disk& disk) const;
  // Throws Violation unless `disk` holds what may be found after a power cut.
  void expect_possible(const Disk& disk) const;
  // The same of a file that holds the guest's bytes; it may end early where zeros follow.
  void expect_possible(std::span<const std::byte> bytes) const;
  bool possible(uint64_t sector, Fingerprint found) const;

 private:
  void remember(uint64_t first_sector, uint64_t last_sector);
  void settle_failed_discard();
  bool tentatively_possible(uint64_t sector, Fingerprint found) const;
  std::string describe(uint64_t sector, std::span<const std::byte> found) const;

  std::vector<std::byte> now_;
  std::vector<Fingerprint> backing_;
  std::vector<Fingerprint> flushed_;                                    // as long as the disk was or is at its largest
  std::unordered_map<uint64_t, std::vector<Fingerprint>> since_flush_;  // of changed sectors: values between
  std::vector<uint64_t> sizes_;                                         // bytes: that it had since the last flush
  uint64_t discard_offset_ = 0;
  uint64_t discard_length_ = 0;
};

}  // namespace drydock::crash
