// SPDX-License-Identifier: GPL-3.0-or-later
//
// TreeExtractor: puts a guest's files onto the host, safely (safety.md, 12).
//
// Whatever the entries say: nothing is written outside the target folder, no symlink is followed on the way (neither
// one made just now nor one that was there before), an existing file is replaced and never written through, and neither
// device nodes nor set-uid and set-gid bits are made unless asked for.
//
// A file has another name (part_name() in src/part_file.h) until all of it is there and flushed, so that whatever ends
// the program leaves no short file under the name that it was to have; what was there before stays until then.
//
// Modes, times and extended attributes of users ("user.") come along. Run by root it gives files the guest's numeric
// owners and ACLs, as tar does. Capabilities are a privilege, as set-uid bits are; other extended attributes (labels,
// checksums) are the guest's kernel's business, and stay there.
//
// Thread-safety: none. Errors: `Error` naming the path; refused for entries that try to leave the folder.

#pragma once

#include <functional>
#include <string>
#include <vector>

#include "inspect/naming_queue.h"
#include "inspect/tree.h"
#include "src/unique_fd.h"

namespace drydock {

struct ExtractOptions {
  bool devices = false;  // make device nodes
  bool setuid = false;   // keep set-uid and set-gid bits, and capabilities
  std::function<void(const std::string&)> warn = [](const std::string&) {};  // told of what was left out
};

// How many files lost what; told at the end, since there may be thousands.
struct LeftOut {
  uint64_t capabilities = 0;
  uint64_t acls = 0;
  uint64_t attributes = 0;  // other extended ones
};

class TreeExtractor final : public TreeSink {
 public:
  // Entries land in `folder`, which exists. `root_name` puts the whole tree one level down, in a folder of that name
  // (made when missing); "" puts it into `folder` itself, whose own attributes then stay.
  TreeExtractor(const std::string& folder, std::string root_name, ExtractOptions options);
  // Folders whose finish() never came keep private permissions, and the last files are not there.
  ~TreeExtractor() override = default;

  void begin(const TreeEntry& entry) override;
  void data(std::span<const std::byte> bytes) override;
  void end() override;

  // Gives the last files their names, and folders their permissions, owners and times: last, because a read-only folder
  // takes no files. Returns when all survives a power cut.
  void finish();

  const LeftOut& left_out() const { return left_out_; }

 private:
  struct Place {
    UniqueFd folder;
    std::string name;
  };
  struct Folder {
    std::vector<std::string> parts;
    TreeEntry entry;
  };

  std::vector<std::string> parts_of(const std::string& path) const;
  UniqueFd open_folder(const std::vector<std::string>& parts) const;
  Place place_of(const std::vector<std::string>& parts) const;
  uint32_t permissions_of(const TreeEntry& entry) const;
  void make_folder(const Place& place, const std::vector<std::string>& parts, const TreeEntry& entry);
  void make_file(Place place, const TreeEntry& entry);
  void make_symlink(Place place, const TreeEntry& entry);
  void make_hard_link(Place place, const TreeEntry& entry);
  void make_special(Place place, const TreeEntry& entry);
  void set_attributes(int fd, const TreeEntry& entry);
  void set_all(int fd, const TreeEntry& entry);
  void finish_folders();

  UniqueFd target_;
  std::string target_name_;
  std::string root_name_;
  ExtractOptions options_;
  std::vector<Folder> folders_;

  LeftOut left_out_;

  NamingQueue queue_;
  UniqueFd file_;  // being written; -1 for entries without data
  UnnamedFile file_name_;
  TreeEntry current_;
  uint64_t position_ = 0;
};

}  // namespace drydock
