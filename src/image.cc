// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/image.h"

#include <array>

#include "src/error.h"
#include "src/file_storage.h"
#include "src/raw_image.h"

namespace drydock {

std::shared_ptr<Image> Image::open(const std::string& path, const OpenOptions& options) {
  auto storage = FileStorage::open(path, options.writable);
  if (options.format) return open_layer(std::move(storage), *options.format, RawOrigin::given, options, {});
  std::array<std::byte, 512> start{};
  read_or_zero(*storage, HostOffset(0), start);
  return open_layer(std::move(storage), probe_format(start), RawOrigin::probed, options, {});
}

const std::vector<SnapshotInfo>& Image::snapshots() const {
  static const std::vector<SnapshotInfo> none;
  return none;
}

std::shared_ptr<Disk> Image::snapshot_disk(size_t) const {
  throw Error(ErrorKind::not_found, fmt::format("{}: a {} image has no snapshots", path(), format_name(format())));
}

std::shared_ptr<Image> open_layer(std::shared_ptr<Storage> storage, Format format, RawOrigin origin, const OpenOptions&,
                                  const std::vector<std::string>&) {
  if (format == Format::raw) return std::make_shared<RawImage>(std::move(storage), origin);
  throw Error(ErrorKind::unsupported, "qcow2 follows");
}

}  // namespace drydock
