// SPDX-License-Identifier: GPL-3.0-or-later
//
// New qcow2 images, laid out in an empty storage.
//
//   header | refcount table | refcount blocks | L1 table | L2 tables | data
//
// The last two are there for preallocated images only. Everything follows from the options, so nothing is allocated
// step by step: each region is an array that is written from its start to its end. The header comes last, behind a
// flush: until then the storage holds no image.

#pragma once

#include <optional>
#include <string>

#include "src/preallocation.h"
#include "src/qcow2/header.h"

namespace drydock::qcow2 {

inline constexpr uint64_t max_virtual_size = INT64_MAX;       // of a disk, bytes
inline constexpr uint64_t max_host_size = uint64_t{1} << 56;  // "Standard Cluster Descriptor": bits 9 to 55

// What `qemu-img create -f qcow2 -o` offers, with its defaults.
struct CreateOptions {
  uint64_t size = 0;  // virtual disk size, bytes; rounded up to a multiple of 512
  uint32_t version = 3;
  uint64_t cluster_size = 65536;
  CompressionType compression = CompressionType::zlib;
  bool extended_l2 = false;
  bool lazy_refcounts = false;
  uint64_t refcount_bits = 16;
  Preallocation preallocation = Preallocation::off;
  std::optional<std::string> backing_file;  // as the image is to spell it; not opened here
  std::optional<std::string> backing_format;
  std::optional<std::string> data_file;  // as the image is to spell it
  bool data_file_raw = false;            // preallocates metadata at least: the mapping must be complete
};

// Throws invalid for options that are out of range or contradict each other, no_space (EFBIG) for a size that the
// format cannot hold with these options.
void check_create_options(const CreateOptions& options);

// Writes the image, flushed, and returns its header. `storage` is empty, or a block device; it grows as needed. `data`
// is the external data file, empty too: there exactly when options.data_file is.
// Throws what check_create_options does, and what the storage does; the storage then holds no image.
Header create(Storage& storage, const CreateOptions& options, Storage* data = nullptr);

}  // namespace drydock::qcow2
