// SPDX-License-Identifier: GPL-3.0-or-later
//
// Which kind of image a workload runs on, and that image's files.

#pragma once

#include <cstddef>
#include <iosfwd>
#include <memory>
#include <string>
#include <vector>

#include "src/image.h"
#include "src/memory_storage.h"
#include "tests/crash/random.h"
#include "tests/crash/recording_storage.h"
#include "tests/support/support.h"

namespace drydock::crash {

enum class BackingKind { none, raw_shorter, raw_longer, qcow2 };
enum class DataFileKind { none, plain, raw };

struct Configuration {
  uint32_t version = 3;
  uint32_t cluster_bits = 16;
  uint32_t refcount_bits = 16;
  bool extended_l2 = false;
  bool lazy_refcounts = false;
  bool zstd = false;
  BackingKind backing = BackingKind::none;
  DataFileKind data_file = DataFileKind::none;
  bool preallocated = false;  // metadata
  bool made_by_qemu = false;  // created by qemu-img instead of by us
  bool discard_keeps_place = false;
  DiscardReads discard_reads = DiscardReads::zeros;
  uint64_t disk_size = 0;  // bytes
  uint64_t cache_size = min_metadata_cache_size;

  uint64_t cluster_size() const { return uint64_t{1} << cluster_bits; }
  // As `qemu-img create -o` wants it, but for the names of files.
  std::string create_options() const;
  std::string describe() const;
};

// For messages of tests.
std::ostream& operator<<(std::ostream& out, const Configuration& configuration);

// Any that is possible; small disks of small clusters oftenest.
Configuration random_configuration(Random& random);

std::vector<std::byte> bytes_of(const Storage& storage);

// The files that one image consists of.
struct Files {
  std::vector<std::byte> image;
  std::vector<std::byte> data;              // of the external data file
  std::shared_ptr<MemoryStorage> backing;   // null for none; never changes
  std::vector<std::byte> backing_contents;  // what a guest reads in it

  // What a guest finds on the disk before anything is written to it.
  std::vector<std::byte> empty_disk(const Configuration& configuration) const;
};

// Makes an image that holds nothing yet, and leaves it in `dir` as image, data and base, where other programs find it.
Files make_files(const Configuration& configuration, const test::TempDir& dir);

// What is to be opened: the storages that Image::open() and the gate hand out.
OpenOptions open_options(const Configuration& configuration, std::shared_ptr<Storage> data,
                         std::shared_ptr<Storage> backing, bool writable);

}  // namespace drydock::crash
