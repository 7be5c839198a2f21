// SPDX-License-Identifier: GPL-3.0-or-later
//
// What tests of the NBD client share: exports as storages, which give up soon.

#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "nbd/client/nbd_storage.h"
#include "nbd/wire.h"

namespace drydock::nbd {

// Gives up at once, but for a moment.
inline ClientOptions impatient_client() { return {.first_pause = std::chrono::milliseconds(1), .pauses = 3}; }

inline std::shared_ptr<NbdStorage> open_export(const std::string& uri, bool writable = false,
                                               const ClientOptions& options = impatient_client()) {
  return NbdStorage::open(parse_address(uri), writable, options);
}

inline Bytes read_export(const Storage& storage, uint64_t offset, size_t count) {
  Bytes bytes(count);
  bytes.resize(storage.read(HostOffset(offset), bytes));
  return bytes;
}

}  // namespace drydock::nbd
