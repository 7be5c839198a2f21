// SPDX-License-Identifier: GPL-3.0-or-later
//
// Bytes from storage to storage, without a way through this process where the kernel does that (copy_file_range(2)).
//
// Thread-safe. Errors: what reading and writing throw.

#pragma once

#include <functional>
#include <optional>

#include "src/storage.h"

namespace drydock {

struct StoragePlace {
  const Storage& storage;
  HostOffset offset;
};

// Copies a prefix of `length` bytes within the kernel, and tells how long it was: 0 where `from` ends there. Nothing
// where the kernel does not do it for these two, or fails for another reason than a lack of room: a copy by reading and
// writing tells which side it was.
std::optional<uint64_t> copy_in_kernel(const StoragePlace& from, const StoragePlace& to, uint64_t length);

// Copies all of `length` bytes. Throws truncated where `from` ends before.
void copy_bytes(const StoragePlace& from, Storage& target, HostOffset to, uint64_t length);

// Reads all of `length` bytes, and has `take` them part by part; `done` is what went before. Throws truncated where
// `from` ends before.
void read_in_parts(const StoragePlace& from, uint64_t length,
                   const std::function<void(uint64_t done, std::span<const std::byte> part)>& take);

}  // namespace drydock
