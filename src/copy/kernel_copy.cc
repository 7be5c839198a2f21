// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/copy/kernel_copy.h"

#include <linux/fs.h>
#include <sys/ioctl.h>

#include <cerrno>

#include "src/error.h"
#include "src/storage_copy.h"

namespace drydock {

namespace {

constexpr uint64_t clone_alignment = 4096;  // of offsets and lengths: no filesystem that clones has larger blocks here

}  // namespace

KernelCopy::KernelCopy(const Storage* target, bool copies)
    : target_(target),
      target_fd_(target == nullptr ? -1 : target->descriptor()),
      clones_(target_fd_ >= 0),
      copies_(copies && target_fd_ >= 0) {}

uint64_t KernelCopy::copy(const Extent& extent) {
  const int source = extent.file->descriptor();
  if (source < 0) return 0;
  const uint64_t whole = round_down(extent.range.length, clone_alignment);
  const bool aligned = extent.offset.is_aligned(clone_alignment) && extent.range.start.is_aligned(clone_alignment);
  if (clones_ && aligned && whole > 0 && clone(source, extent, whole)) return whole;
  return copies_ ? copy_range(extent) : 0;
}

bool KernelCopy::clone(int source, const Extent& extent, uint64_t length) {
  file_clone_range range{
      .src_fd = source,
      .src_offset = extent.offset.value(),
      .src_length = length,
      .dest_offset = extent.range.start.value(),
  };
  if (::ioctl(target_fd_, FICLONERANGE, &range) == 0) return true;
  if (errno == ENOSPC || errno == EDQUOT) {
    throw system_error(
        errno, fmt::format("{}: sharing {} bytes at offset {}", target_->name(), length, extent.range.start.value()));
  }
  clones_ = false;
  return false;
}

uint64_t KernelCopy::copy_range(const Extent& extent) try {
  const HostOffset to(extent.range.start.value());
  const auto done = copy_in_kernel({*extent.file, extent.offset}, {*target_, to}, extent.range.length);
  if (!done) copies_ = false;
  return done.value_or(0);  // 0: the source's file ends here, behind which are zeros
} catch (const Error& error) {
  throw error.within(fmt::format("error while writing at byte {}", extent.range.start.value()));
}

}  // namespace drydock
