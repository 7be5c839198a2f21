// SPDX-License-Identifier: GPL-3.0-or-later
//
// Tree: the folders and files that a mount shows, built once from a list of paths and disks.
//
// Thread-safety: immutable after construction, apart from what DiskFile says of itself.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "fuse/disk_file.h"

namespace drydock::fuse {

struct TreeFile {
  std::string path;  // relative, "/" between names: "snapshots/before.raw"
  std::shared_ptr<Disk> disk;
};

// Nodes are known by number, as the kernel calls them: 1 is the root.
using NodeNumber = uint64_t;
inline constexpr NodeNumber root_node = 1;

// Bytes of one name: what every file system and every tool can take.
inline constexpr size_t max_name_length = 255;

struct Node {
  std::string name;
  NodeNumber parent = root_node;
  std::unique_ptr<DiskFile> file;    // null: a folder
  std::vector<NodeNumber> children;  // of a folder, in the order in which they were given
  std::unordered_map<std::string, NodeNumber> by_name;

  bool is_folder() const { return file == nullptr; }
};

class Tree {
 public:
  // Folders are made as paths need them. Names longer than max_name_length are cut and numbered.
  // Throws usage for an empty name, ".", "..", and for two files of one path.
  explicit Tree(const std::vector<TreeFile>& files);

  // Null for a number that was never given out.
  const Node* find(NodeNumber number) const;
  std::optional<NodeNumber> lookup(NodeNumber folder, std::string_view name) const;
  size_t count() const { return nodes_.size(); }

  // Flushes every writable file, also after one failed; throws the first failure.
  void flush() const;

 private:
  NodeNumber add(NodeNumber folder, const std::string& name, std::unique_ptr<DiskFile> file);

  std::vector<Node> nodes_;  // node n is at n - 1
};

}  // namespace drydock::fuse
