// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/image_part.h"

#include "src/error.h"
#include "src/slice_disk.h"
#include "src/units.h"

namespace drydock {

namespace {

class ImagePart final : public Image {
 public:
  ImagePart(std::shared_ptr<Image> image, GuestRange range)
      : image_(std::move(image)), disk_(std::make_shared<SliceDisk>(image_->disk(), range)) {}

  Format format() const override { return image_->format(); }
  const Storage& storage() const override { return image_->storage(); }
  uint64_t virtual_size() const override { return disk_->size(); }
  std::shared_ptr<Disk> disk() const override { return disk_; }
  void resize(uint64_t, Preallocation) override {
    throw Error(ErrorKind::unsupported, fmt::format("{}: a part of an image cannot be resized", printable(path())));
  }
  void close() override { image_->close(); }

 private:
  std::shared_ptr<Image> image_;
  std::shared_ptr<SliceDisk> disk_;
};

}  // namespace

std::shared_ptr<Image> image_part(std::shared_ptr<Image> image, GuestRange range) {
  const uint64_t size = image->virtual_size();
  if (range.start.value() > size || range.length > size - range.start.value()) {
    throw Error(ErrorKind::invalid, fmt::format("{}: the part of {} bytes at {} reaches past the end at {}",
                                                printable(image->path()), range.length, range.start.value(), size));
  }
  if (!range.start.is_aligned(sector_size) || range.length % sector_size != 0) {
    throw Error(ErrorKind::invalid, fmt::format("{}: a part of an image is of whole sectors of {} bytes",
                                                printable(image->path()), sector_size));
  }
  return std::make_shared<ImagePart>(std::move(image), range);
}

}  // namespace drydock
