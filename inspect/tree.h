// SPDX-License-Identifier: GPL-3.0-or-later
//
// A tree of files on its way out of a guest: entries come one after the other, as in a tar archive.
//
// Everything in an entry is the guest's word and may be hostile: paths with "..", links that lead anywhere. Sinks that
// write to the host go through TreeExtractor.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace drydock {

enum class EntryKind { file, directory, symlink, hard_link, character_device, block_device, fifo, socket };

struct ExtendedAttribute {
  std::string name;   // "user.note"
  std::string value;  // any bytes

  bool operator==(const ExtendedAttribute&) const = default;
};

struct TreeEntry {
  std::string path;  // relative to the tree's root, '/' between parts; "" is the root
  EntryKind kind = EntryKind::file;
  uint32_t permissions = 0;  // the lower 12 bits of the mode
  uint64_t uid = 0;
  uint64_t gid = 0;
  int64_t modified = 0;  // seconds since the Epoch
  uint64_t size = 0;     // bytes that follow; files only
  std::string link;      // a symlink's text; a hard link's earlier path, relative to the tree's root
  uint32_t device_major = 0;
  uint32_t device_minor = 0;
  uint32_t modified_nanoseconds = 0;  // to be added to `modified`
  // ACLs among them, as Linux keeps them (posix_acl.h).
  std::vector<ExtendedAttribute> attributes = {};
};

class TreeSink {
 public:
  TreeSink() = default;
  TreeSink(const TreeSink&) = delete;
  TreeSink& operator=(const TreeSink&) = delete;
  virtual ~TreeSink() = default;

  virtual void begin(const TreeEntry& entry) = 0;
  // Bytes of the entry begun last, in order.
  virtual void data(std::span<const std::byte> bytes) = 0;
  // After the entry's last byte.
  virtual void end() = 0;
};

}  // namespace drydock
