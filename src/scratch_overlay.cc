// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/scratch_overlay.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "src/chain.h"
#include "src/error.h"
#include "src/file_storage.h"
#include "src/qcow2/create.h"
#include "src/qcow2/qcow2_image.h"

namespace drydock {

namespace {

// A file without a name; where the filesystem cannot do that, one that loses its name at once.
UniqueFd open_nameless_file(const std::string& folder) {
  UniqueFd fd(::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (fd || (errno != EOPNOTSUPP && errno != EISDIR)) return fd;
  std::string path = folder + "/drydock-scratch-XXXXXX";
  fd.reset(::mkostemp(path.data(), O_CLOEXEC));
  if (fd) ::unlink(path.c_str());
  return fd;
}

// Whose map counts layers from the image below on.
class ScratchDisk final : public Disk {
 public:
  explicit ScratchDisk(std::shared_ptr<Disk> disk) : disk_(std::move(disk)) {}

  uint64_t size() const override { return disk_->size(); }
  bool writable() const override { return disk_->writable(); }
  void read(GuestOffset offset, std::span<std::byte> buffer) const override { disk_->read(offset, buffer); }
  void write(GuestOffset offset, std::span<const std::byte> data) override { disk_->write(offset, data); }
  bool write_at_once(GuestOffset offset, std::span<const std::byte> data) override {
    return disk_->write_at_once(offset, data);
  }
  void write_from(GuestOffset offset, const FilePlace& source, uint64_t length) override {
    disk_->write_from(offset, source, length);
  }
  void write_compressed(GuestOffset offset, std::span<const std::byte> data) override {
    disk_->write_compressed(offset, data);
  }
  void zero(GuestRange range, bool keep_space) override { disk_->zero(range, keep_space); }
  bool zero_at_once(GuestRange range, bool keep_space) override { return disk_->zero_at_once(range, keep_space); }
  void discard(GuestRange range) override { disk_->discard(range); }
  void flush() override { disk_->flush(); }
  std::vector<Extent> map(GuestRange range, size_t max_extents) const override {
    return counted(disk_->map(range, max_extents));
  }
  std::optional<FilePlace> file_place(GuestRange range) const override { return disk_->file_place(range); }
  std::vector<Extent> map_above(unsigned depth, GuestRange range, size_t max_extents) const override {
    return counted(disk_->map_above(depth + 1, range, max_extents));
  }

 private:
  // What the image below has does not lie where a write would go, and so in no file that anybody may count on.
  static std::vector<Extent> counted(std::vector<Extent> extents) {
    for (Extent& extent : extents) {
      if (extent.depth == 0) continue;
      --extent.depth;
      extent.file = nullptr;
    }
    return extents;
  }

  std::shared_ptr<Disk> disk_;
};

class ScratchImage final : public Image {
 public:
  ScratchImage(std::shared_ptr<Image> overlay, std::shared_ptr<const Image> base)
      : overlay_(std::move(overlay)), base_(std::move(base)), disk_(std::make_shared<ScratchDisk>(overlay_->disk())) {}

  Format format() const override { return base_->format(); }
  const Storage& storage() const override { return base_->storage(); }
  uint64_t virtual_size() const override { return overlay_->virtual_size(); }
  uint64_t allocation_unit() const override { return overlay_->allocation_unit(); }
  uint64_t mapping_unit() const override { return overlay_->mapping_unit(); }
  std::shared_ptr<Disk> disk() const override { return disk_; }
  const std::vector<SnapshotInfo>& snapshots() const override { return base_->snapshots(); }
  std::shared_ptr<Disk> snapshot_disk(size_t index) const override { return base_->snapshot_disk(index); }
  void resize(uint64_t, Preallocation) override {
    throw Error(ErrorKind::unsupported, "a disk whose changes are gone at the end keeps its size");
  }
  std::vector<BitmapInfo> bitmaps() const override { return base_->bitmaps(); }
  std::shared_ptr<const DirtyRanges> dirty_ranges(const std::string& name) const override {
    return base_->dirty_ranges(name);
  }
  std::shared_ptr<const Image> backing() const override { return base_->backing(); }
  void close() override { overlay_->close(); }
  std::vector<std::string> warnings() const override { return base_->warnings(); }

 private:
  std::shared_ptr<Image> overlay_;
  std::shared_ptr<const Image> base_;
  std::shared_ptr<Disk> disk_;
};

}  // namespace

std::string scratch_folder() {
  const char* chosen = std::getenv("TMPDIR");
  return chosen != nullptr && *chosen != '\0' ? chosen : "/var/tmp";
}

UniqueFd open_scratch_file() {
  const std::string folder = scratch_folder();
  UniqueFd fd = open_nameless_file(folder);
  if (fd) return fd;
  const int error = errno;
  throw system_error(error, fmt::format("{}: creating a scratch file", printable(folder)));
}

std::shared_ptr<Image> open_scratch_overlay(std::shared_ptr<const Image> base, const OpenOptions& options) {
  UniqueFd fd = options.scratch_file ? options.scratch_file() : open_scratch_file();
  auto storage = std::make_shared<FileStorage>(std::move(fd), base->path() + " (scratch)", true);
  storage->leave_flushing_to_system();  // nobody will look for it after a power cut
  qcow2::create(*storage, {.size = base->disk()->size()});
  Chain chain(options);
  auto overlay = std::make_shared<qcow2::Qcow2Image>(std::move(storage), chain, base);
  return std::make_shared<ScratchImage>(std::move(overlay), std::move(base));
}

}  // namespace drydock
