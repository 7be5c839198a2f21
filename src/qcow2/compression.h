// SPDX-License-Identifier: GPL-3.0-or-later
//
// Decoding of compressed clusters.

#pragma once

#include <cstddef>
#include <span>

#include "src/qcow2/header.h"

namespace drydock::qcow2 {

// Decodes one cluster: fills `cluster` exactly, writes nothing outside it and allocates nothing that depends on `input`
// (safety.md, 11). What follows the stream in `input` is ignored: the descriptor gives its length in whole sectors.
// False when the stream is damaged, ends early, or (zstd) holds more than a cluster.
// Thread-safe; keeps a decoder for each thread.
bool decompress(CompressionType type, std::span<const std::byte> input, std::span<std::byte> cluster);

}  // namespace drydock::qcow2
