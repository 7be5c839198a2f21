// SPDX-License-Identifier: GPL-3.0-or-later
//
// HeaderRewrite: a change of anything in the first cluster of a qcow2 image, extensions and the backing file's name
// included, that is made as a whole or not at all.
//
// Only the first sector changes in one piece. A header that fits into it is one write. Behind an old one that fitted,
// the rest of the new one is put in place first, and then the first sector changes over to it. Else it takes two
// switches:
//
//   1. extensions and name are written behind all that is in use           flush
//   2. the first sector changes over: new fields, and one extension that    flush
//      nobody knows and that reaches to where step 1 wrote
//   3. the part behind the first sector is written where it belongs         flush
//   4. the first sector changes over to it                                  flush
//
// From 2 on the change is made; 3 and 4 tidy up. What other programs put there is kept: unknown fields, unknown
// extensions. Clauses: "Header", "Header extensions".
//
// Thread-safety: none; whoever writes an image's header sees to it that nobody else does.

#pragma once

#include <optional>
#include <string>
#include <vector>

#include "src/qcow2/header.h"

namespace drydock::qcow2 {

class HeaderRewrite {
 public:
  // Reads the first cluster. Throws invalid for a header that read_header() would not take.
  explicit HeaderRewrite(Storage& storage);

  // Nothing: there is none.
  void set_backing(const std::optional<std::string>& name, const std::optional<std::string>& format);
  void set_data_file(const std::string& name);
  // From 2 to 3 with no features and 16 bits for each count; from 3 to 2, whose images must not need a feature.
  void set_version(uint32_t version);

  // Throws no_space for what does not fit into the cluster, and what the storage throws; then the header is the old
  // one.
  void store();

 private:
  struct Extension {
    uint32_t type = 0;
    std::vector<std::byte> data;
  };

  void set_extension(uint32_t type, const std::optional<std::string>& text);
  // Extensions, their end, and the name; where in it the name begins.
  std::vector<std::byte> encode_tail(uint64_t& name_at) const;
  // All of it, where it belongs.
  std::vector<std::byte> encode() const;
  void finish_last_change();
  uint64_t find_room(uint64_t whole_bytes, uint64_t tail_bytes) const;
  std::vector<std::byte> first_part(uint64_t name_offset) const;
  bool can_store_rest_first(const std::vector<std::byte>& whole) const;
  void store_rest_first(const std::vector<std::byte>& whole);
  void write_start(std::vector<std::byte> bytes);
  void tidy(const std::vector<std::byte>& whole);

  Storage& storage_;
  uint64_t cluster_size_ = 0;
  std::vector<std::byte> old_start_;  // the first sector as it was
  uint64_t extensions_end_ = 0;       // of the old header
  uint64_t name_start_ = 0;           // of the old backing file's name
  uint64_t name_end_ = 0;
  std::vector<std::byte> tidied_;  // the old header after steps 3 and 4, where it still lacks them
  std::vector<std::byte> fields_;  // up to where the extensions begin
  std::vector<Extension> extensions_;
  std::optional<std::string> backing_name_;
};

// Records another backing file, or none, in an image that nobody else writes; flushed when it returns. Throws as
// HeaderRewrite does, unsupported for images that cannot have one, invalid for names that are too long.
void store_backing_file(Storage& storage, const std::optional<std::string>& name,
                        const std::optional<std::string>& format);

}  // namespace drydock::qcow2
