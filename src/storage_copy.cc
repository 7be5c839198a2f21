// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/storage_copy.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "src/error.h"

namespace drydock {

namespace {

constexpr uint64_t part_size = 1 << 20;

}  // namespace

std::optional<uint64_t> copy_in_kernel(const StoragePlace& from, const StoragePlace& to, uint64_t length) {
  const int source = from.storage.descriptor();
  const int target = to.storage.descriptor();
  if (source < 0 || target < 0) return std::nullopt;
  auto read_at = static_cast<off64_t>(from.offset.value());
  auto write_at = static_cast<off64_t>(to.offset.value());
  for (;;) {
    const ssize_t done = ::copy_file_range(source, &read_at, target, &write_at, length, 0);
    if (done >= 0) return static_cast<uint64_t>(done);
    if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG) {
      throw system_error(
          errno, fmt::format("{}: writing {} bytes at offset {}", to.storage.name(), length, to.offset.value()));
    }
    if (errno != EINTR) return std::nullopt;
  }
}

void copy_bytes(const StoragePlace& from, Storage& target, HostOffset to, uint64_t length) {
  uint64_t copied = 0;
  while (copied < length) {
    const auto done = copy_in_kernel({from.storage, from.offset + copied}, {target, to + copied}, length - copied);
    if (!done || *done == 0) break;
    copied += *done;
  }
  read_in_parts({from.storage, from.offset + copied}, length - copied,
                [&](uint64_t done, std::span<const std::byte> part) { target.write(to + copied + done, part); });
}

void read_in_parts(const StoragePlace& from, uint64_t length,
                   const std::function<void(uint64_t done, std::span<const std::byte> part)>& take) {
  std::vector<std::byte> buffer(std::min(length, part_size));
  for (uint64_t done = 0; done < length;) {
    const auto part = std::span(buffer).first(std::min<uint64_t>(length - done, buffer.size()));
    read_exactly(from.storage, from.offset + done, part, "a copy");
    take(done, part);
    done += part.size();
  }
}

}  // namespace drydock
