// SPDX-License-Identifier: GPL-3.0-or-later
//
// A raw image as a Disk: guest offset n is host offset n.

#pragma once

#include <atomic>

#include "src/disk.h"
#include "src/probe.h"

namespace drydock {

class RawDisk final : public Disk {
 public:
  // Its size is the storage's, rounded up to 512 bytes; what lies behind the storage's end reads as zeros.
  // Of a `probed` image, writes that would make the first sector look like another format are refused, so that a guest
  // cannot have its disk taken for a qcow2 image the next time (safety.md, 8).
  RawDisk(std::shared_ptr<Storage> storage, RawOrigin origin);

  uint64_t size() const override { return size_; }
  bool writable() const override { return storage_->writable(); }
  void read(GuestOffset offset, std::span<std::byte> buffer) const override;
  void write(GuestOffset offset, std::span<const std::byte> data) override;
  void write_from(GuestOffset offset, const FilePlace& source, uint64_t length) override;
  void zero(GuestRange range, bool keep_space) override;
  bool write_at_once(GuestOffset offset, std::span<const std::byte> data) override;
  bool zero_at_once(GuestRange range, bool keep_space) override;
  void discard(GuestRange range) override;
  void flush() override { storage_->flush(); }
  // For the image: changes are refused from now on.
  void close() { closed_ = true; }
  // The same: bytes, a multiple of 512; the storage has them.
  void set_size(uint64_t bytes) { size_ = bytes; }
  std::optional<uint32_t> device_sector_size() const override {
    const uint32_t bytes = storage_->device_sector_size();
    return bytes == 0 ? std::nullopt : std::optional(bytes);
  }
  std::vector<Extent> map(GuestRange range, size_t max_extents) const override;
  std::optional<FilePlace> file_place(GuestRange range) const override {
    return FilePlace{storage_.get(), HostOffset(range.start.value())};
  }

 private:
  void check_changes() const;

  std::shared_ptr<Storage> storage_;
  RawOrigin origin_;
  std::atomic<uint64_t> size_;
  std::atomic<bool> closed_ = false;
};

}  // namespace drydock
