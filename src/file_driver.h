// SPDX-License-Identifier: GPL-3.0-or-later
//
// QEMU's drivers of local files, file and host_device. Each can stand where a format does, and is raw then.

#pragma once

#include <optional>
#include <string_view>

#include "src/probe.h"
#include "src/storage.h"

namespace drydock {

bool is_file_driver(std::string_view name);

// The format that a driver of that name has: a format's own, raw for those of files; nothing for one that is not known.
std::optional<Format> format_of_driver(std::string_view name);

// Throws invalid, in QEMU's words, where `driver` is one of files and does not take what `storage` is: file regular
// files, host_device devices.
void check_file_driver(const Storage& storage, std::string_view driver);

}  // namespace drydock
