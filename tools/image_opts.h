// SPDX-License-Identifier: GPL-3.0-or-later
//
// --image-opts: an image described by options, "driver=qcow2,file.filename=guest.qcow2", as QEMU spells them; and
// json:{...}, which has the same options as members, nested or with dots.
//
// What describes a local file or an NBD export in a known format is taken: the drivers raw (with offset and size) and
// qcow2, over file, host_device, nbd or null-co. Options of QEMU's that only tune it are checked by name and left at
// that. All others are refused by name.

#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "src/probe.h"
#include "tools/cli.h"

namespace drydock::cli {

struct ImageDescription {
  std::string filename;          // a path, or an NBD URI
  std::optional<Format> format;  // nothing: probe
  uint64_t offset = 0;           // bytes, of a part of a raw image
  std::optional<uint64_t> size;
  std::string driver = {};                 // where QEMU's name of the format is another: file, host_device, null-co
  std::string file_driver = {};            // of the file, where it is given
  std::optional<uint64_t> null_size = {};  // bytes: no file, but a null-co of that size
  bool is_part() const { return offset != 0 || size.has_value(); }
};

// Throws invalid, unsupported where it takes encryption, refused for what is neither; the words are QEMU's
// where it would refuse too.
// `writable`: what read-only=on refuses. `words`: where --object describes the credentials that tls-creds names.
ImageDescription parse_image_opts(const std::string& text, bool writable, const ParsedOptions& words);

// Whether the user's word is "json:{...}", which describes an image by the same options.
bool is_json_name(std::string_view word);
// The same for such a word. Only the user's: what an image names is for an OpenGate, and never json.
ImageDescription parse_json_name(const std::string& text, bool writable, const ParsedOptions& words);

// Checks the words of --object. Those that describe TLS credentials are of use; others are for what is not supported.
void check_object(const std::string& text);

}  // namespace drydock::cli
