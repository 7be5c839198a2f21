// SPDX-License-Identifier: GPL-3.0-or-later
//
// Creating image files: what `qemu-img create` does.
//
//     ImageCreateOptions options{.format = Format::qcow2, .size = 10 << 30};
//     create_image("guest.qcow2", options);
//
// An existing file is replaced when the new one is whole, and stays as it was where that fails or is interrupted: see
// PartFile. The same goes for an external data file.

#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "src/error.h"
#include "src/new_file.h"
#include "src/open_gate.h"
#include "src/probe.h"
#include "src/qcow2/create.h"

namespace drydock {

struct ImageCreateOptions {
  Format format = Format::raw;
  std::string place;             // the file to make, which is to get the image's own name later; "": that at once
  std::string data_place;        // the same of the external data file
  std::optional<uint64_t> size;  // bytes, rounded up to a multiple of 512; nothing: as large as the backing file
  Preallocation preallocation = Preallocation::off;
  bool backing_must_exist = true;  // false: it is not opened, and `size` must be given
  FileHints hints;
  qcow2::CreateOptions qcow2;                  // of qcow2 images; size and preallocation are taken from above
  std::shared_ptr<const OpenGate> gate;        // for the files below the backing file, which is opened as it stands
  std::shared_ptr<const RemoteOpener> remote;  // for the image and the backing file
};

// The backing file cannot be opened, or not as what it is said to be.
class BackingError final : public Error {
 public:
  explicit BackingError(const Error& error) : Error(error) {}
};

// What creation needs to know of other files: opens the backing file, with its own chain, and fills in the size.
// Throws invalid for options that contradict each other, and BackingError for what opening the backing file throws.
ImageCreateOptions resolve_create_options(const std::string& path, ImageCreateOptions options);

// Creates the image at `path` and, where the options name one, its external data file: a relative name is beside the
// image. A remote image is made within what is there, and names other files by absolute or remote names. Returns
// warnings. Throws as resolve_create_options() and qcow2::create() do; busy where a target is in use.
std::vector<std::string> create_image(const std::string& path, const ImageCreateOptions& options);

}  // namespace drydock
