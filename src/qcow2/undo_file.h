// SPDX-License-Identifier: GPL-3.0-or-later
//
// UndoFile: saves what a repair is about to overwrite, so that it can be restored to the byte.
//
// UndoingStorage puts it under any code that writes to an image through a Storage: writes wait in memory until the
// next flush(), read() or until there are many; then the old bytes go to the undo file, that is flushed, and only then
// the image is touched.
//
// Thread-safety: none; one repair at a time.

#pragma once

#include <memory>
#include <unordered_set>

#include "src/qcow2/undo_format.h"
#include "src/storage.h"

namespace drydock::qcow2 {

class UndoFile {
 public:
  // Makes the file at `path`, which must not exist, and makes its name last. Throws what the operating system says.
  static std::shared_ptr<Storage> create(const std::string& path);

  // Begins the undo file of `image` in the empty storage `file`.
  UndoFile(std::shared_ptr<Storage> file, const Storage& image);

  // Appends what is needed to undo writing `data` at `offset`; not flushed.
  void save(HostOffset offset, std::span<const std::byte> data);
  void flush() { file_->flush(); }
  // The repair is complete; the image is as it will stay.
  void finish();

 private:
  void append(const undo::Frame& frame);
  void save_sectors(HostOffset offset, std::span<const std::byte> old_bytes, std::span<const std::byte> new_bytes);

  std::shared_ptr<Storage> file_;
  const Storage& image_;
  uint64_t image_size_;                 // bytes, before the repair
  uint64_t end_ = 0;                    // of the undo file
  std::unordered_set<uint64_t> saved_;  // sectors
};

class UndoingStorage final : public Storage {
 public:
  UndoingStorage(Storage& image, UndoFile& undo) : image_(image), undo_(undo) {}

  const std::string& name() const override { return image_.name(); }
  bool writable() const override { return image_.writable(); }
  uint64_t size() const override;
  uint64_t allocated_size() const override { return image_.allocated_size(); }
  size_t read(HostOffset offset, std::span<std::byte> buffer) const override;
  void write(HostOffset offset, std::span<const std::byte> data) override;
  void zero(HostOffset offset, uint64_t length, bool keep_space) override;
  // What could not be undone is not done.
  void discard(HostOffset, uint64_t) override {}
  void truncate(uint64_t size) override;
  void flush_now() override;
  StorageExtent extent_at(HostOffset offset, uint64_t limit) const override;

 private:
  struct Write {
    HostOffset offset;
    std::vector<std::byte> data;
  };

  void drain() const;

  Storage& image_;
  UndoFile& undo_;
  mutable std::vector<Write> waiting_;
  mutable std::unordered_set<uint64_t> waiting_sectors_;
  mutable uint64_t waiting_bytes_ = 0;
};

}  // namespace drydock::qcow2
