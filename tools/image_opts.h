// SPDX-License-Identifier: GPL-3.0-or-later
//
// --image-opts: an image described by options, "driver=qcow2,file.filename=guest.qcow2", as QEMU spells them.
//
// What describes a local file or an NBD export in a known format is taken: the drivers raw (with offset and size) and
// qcow2, over file, host_device or nbd. Options of QEMU's that only tune it are checked by name and left at that. All
// others are refused by name.

#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "src/probe.h"

namespace drydock::cli {

struct ImageDescription {
  std::string filename;          // a path, or an NBD URI
  std::optional<Format> format;  // nothing: probe
  uint64_t offset = 0;           // bytes, of a part of a raw image
  std::optional<uint64_t> size;
  bool is_part() const { return offset != 0 || size.has_value(); }
};

// Throws invalid, unsupported where it takes encryption, refused for what is neither; the words are QEMU's
// where it would refuse too.
// `writable`: what read-only=on refuses.
ImageDescription parse_image_opts(const std::string& text, bool writable);

// Checks the words of --object. No object is of use here: what needs one is encryption, which is not supported.
void check_object(const std::string& text);

}  // namespace drydock::cli
