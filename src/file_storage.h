// SPDX-License-Identifier: GPL-3.0-or-later
//
// A Storage over a regular file or a block device.

#pragma once

#include <sys/stat.h>

#include <mutex>
#include <optional>
#include <string>

#include "src/storage.h"
#include "src/unique_fd.h"

namespace drydock {

// What a file is, whatever its names: the same text for the same one.
std::string identity_of(const struct stat& status);

class FileStorage final : public Storage {
 public:
  // Opens `path` (O_RDONLY unless `writable`; without touching its access time where the system lets us). Throws for a
  // directory, a pipe, a socket or a character device, naming what it is.
  static std::shared_ptr<FileStorage> open(const std::string& path, bool writable);

  // Takes over an open descriptor; `name` is for messages.
  FileStorage(UniqueFd fd, std::string name, bool writable);
  FileStorage(const FileStorage&) = delete;
  FileStorage& operator=(const FileStorage&) = delete;
  ~FileStorage() override;

  const std::string& name() const override { return name_; }
  bool writable() const override { return writable_; }
  uint64_t size() const override;
  uint64_t allocated_size() const override;
  bool can_grow() const override { return !block_device_; }
  uint32_t device_sector_size() const override { return sector_size_; }
  size_t read(HostOffset offset, std::span<std::byte> buffer) const override;
  void write(HostOffset offset, std::span<const std::byte> data) override;
  void zero(HostOffset offset, uint64_t length, bool keep_space) override;
  bool zero_at_once(HostOffset offset, uint64_t length, bool keep_space) override;
  void reserve(HostOffset offset, uint64_t length) override;
  void discard(HostOffset offset, uint64_t length) override;
  void truncate(uint64_t size) override;
  void extend(uint64_t size) override;
  void flush_now() override;
  StorageExtent extent_at(HostOffset offset, uint64_t limit) const override;
  int descriptor() const override { return fd_.get(); }
  std::string identity() const override;

  bool is_block_device() const { return block_device_; }
  // From now on flush() leaves it to the system when things become durable. Before others share the storage.
  void leave_flushing_to_system() { flushes_ = false; }

 private:
  void check_writable() const;
  void write_zeros(HostOffset offset, uint64_t length);
  void look_at_block_device();
  uint64_t length_inside(HostOffset offset, uint64_t length) const;
  void grow_to(uint64_t size);
  std::optional<uint64_t> known_data_behind(uint64_t offset) const;
  void remember_data(uint64_t start, uint64_t end) const;
  void forget_data() { remember_data(0, 0); }

  UniqueFd fd_;
  std::string name_;
  bool writable_;
  bool block_device_ = false;
  bool flushes_ = true;
  uint64_t fixed_size_ = 0;   // bytes, of a block device
  uint32_t sector_size_ = 0;  // the same

  // Where extent_at() last found data without a hole: tmpfs looks at each of its pages to find its end. What others
  // punch into it meanwhile reads as zeros all the same.
  mutable std::mutex known_data_mutex_;
  mutable uint64_t known_data_start_ = 0;
  mutable uint64_t known_data_end_ = 0;
};

}  // namespace drydock
