// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/write_policy_disk.h"

#include "src/copy/zeros.h"

namespace drydock {

void WritePolicyDisk::changed() {
  if (policy_.flush_each_change) disk_->flush();
}

void WritePolicyDisk::write(GuestOffset offset, std::span<const std::byte> data) {
  if (policy_.detect_zeroes != ZeroDetection::off && is_zero(data)) {
    disk_->zero({offset, data.size()}, policy_.detect_zeroes == ZeroDetection::on);
  } else {
    disk_->write(offset, data);
  }
  changed();
}

bool WritePolicyDisk::write_at_once(GuestOffset offset, std::span<const std::byte> data) {
  const bool becomes_zeros = policy_.detect_zeroes != ZeroDetection::off && is_zero(data);
  return !policy_.flush_each_change && !becomes_zeros && disk_->write_at_once(offset, data);
}

void WritePolicyDisk::zero(GuestRange range, bool keep_space) {
  disk_->zero(range, keep_space || !policy_.discards);
  changed();
}

bool WritePolicyDisk::zero_at_once(GuestRange range, bool keep_space) {
  if (!disk_->zero_at_once(range, keep_space || !policy_.discards)) return false;
  changed();
  return true;
}

void WritePolicyDisk::discard(GuestRange range) {
  if (!policy_.discards) {
    check_writable();
    return check_range(range);
  }
  disk_->discard(range);
  changed();
}

void WritePolicyDisk::flush() {
  if (!policy_.never_flush) disk_->flush();
}

}  // namespace drydock
