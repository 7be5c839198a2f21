// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/raw_image.h"

#include "src/error.h"
#include "src/file_driver.h"
#include "src/remote.h"
#include "src/units.h"

namespace drydock {

RawImage::RawImage(std::shared_ptr<Storage> storage, RawOrigin origin, std::string_view driver)
    : storage_(storage),
      disk_(std::make_shared<RawDisk>(std::move(storage), origin)),
      driver_(driver.empty() ? format_name(Format::raw) : driver) {
  check_file_driver(*storage_, driver_);
}

void RawImage::close() {
  disk_->close();
  give_up_files();
}

void RawImage::resize(uint64_t size, Preallocation preallocation) {
  if (!storage_->writable()) {
    throw Error(ErrorKind::read_only, fmt::format("{}: opened for reading only", printable(path())));
  }
  if (is_remote_name(path())) {
    throw Error(ErrorKind::unsupported, fmt::format("{}: Cannot resize NBD nodes", printable(path())));
  }
  const uint64_t old_size = storage_->size();
  if (preallocation == Preallocation::metadata) {
    throw Error(ErrorKind::unsupported,
                fmt::format("{}: a raw image has no metadata that could be preallocated", printable(path())));
  }
  try {
    if (size > old_size) {
      preallocate(*storage_, HostOffset(old_size), size - old_size, preallocation);
    } else {
      storage_->truncate(size);
    }
    storage_->flush();
  } catch (const Error&) {
    try {
      if (size > old_size) storage_->truncate(old_size);
    } catch (const Error&) {  // the first failure is the one to tell
    }
    throw;
  }
  disk_->set_size(round_up(size, sector_size));
}

}  // namespace drydock
