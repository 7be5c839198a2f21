// SPDX-License-Identifier: GPL-3.0-or-later
//
// Options of a qcow2 image that can be changed once it is made: what `qemu-img amend` changes, but for the size, which
// is Image::resize().
//
// Each option is a change of its own that is made as a whole or not at all; they are made in an order in which each
// finds what it needs.

#pragma once

#include <functional>
#include <optional>
#include <string>

#include "src/qcow2/header.h"

namespace drydock::qcow2 {

struct AmendOptions {
  std::optional<uint32_t> version;  // 2 or 3
  std::optional<uint64_t> refcount_bits;
  std::optional<bool> lazy_refcounts;
  std::optional<std::string> data_file;
  std::optional<bool> data_file_raw;
};

// Throws invalid or unsupported, in QEMU's words, for what an image with this header cannot become.
void check_amend_options(const Header& header, const AmendOptions& options);

// Changes everything but the version when that becomes lower. `storage` is a writable file that nobody else has open.
// `progress` is told how much of how much is done.
void amend(Storage& storage, const AmendOptions& options,
           const std::function<void(uint64_t done, uint64_t total)>& progress);

// Throws unsupported for an image that cannot become one of version 2, whatever is done about its bitmaps and zero
// clusters.
void check_downgrade(const Storage& storage);

// The last step, after amend() and a change of the size: from version 3 to 2. Bitmaps must be gone, and zero clusters
// (see Qcow2Image::expand_zero_clusters()).
void downgrade(Storage& storage);

}  // namespace drydock::qcow2
