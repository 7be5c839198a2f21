// SPDX-License-Identifier: GPL-3.0-or-later
//
// The exports of a server: disks under names.
//
// Thread-safety: filled first, then read by any thread. Ownership: shares the disks.

#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "src/disk.h"

namespace drydock::nbd {

struct Export {
  std::string name;         // at most 4096 bytes of UTF-8
  std::string description;  // one line for people
  std::shared_ptr<Disk> disk;
  bool read_only = true;  // a disk that is not writable() is read-only in any case

  bool writable() const { return !read_only && disk->writable(); }
};

class Exports {
 public:
  // Throws usage for a name that is taken or that the protocol cannot carry.
  void add(Export added);
  // Which export a client gets that asks for the empty name; without this it gets none.
  void set_default(std::string_view name);

  const std::vector<Export>& all() const { return all_; }
  // Null for none. The empty name is the default export's.
  const Export* find(std::string_view name) const;

 private:
  std::vector<Export> all_;
  std::string default_name_;
};

}  // namespace drydock::nbd
