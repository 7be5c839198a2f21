// SPDX-License-Identifier: GPL-3.0-or-later
//
// Encoding and decoding of compressed clusters ("Compressed Clusters Descriptor", "compression_type").

#pragma once

#include <cstddef>
#include <optional>
#include <span>

#include "src/qcow2/header.h"

namespace drydock::qcow2 {

// Decodes one cluster: fills `cluster` exactly, writes nothing outside it and allocates nothing that depends on `input`
// (safety.md, 11). What follows the stream in `input` is ignored: the descriptor gives its length in whole sectors.
// False when the stream is damaged, ends early, or (zstd) holds more than a cluster.
// Thread-safe; keeps a decoder for each thread.
bool decompress(CompressionType type, std::span<const std::byte> input, std::span<std::byte> cluster);

// Encodes one cluster into the start of `output`; returns how many bytes of it were used: fewer than the cluster has.
// Nothing where the encoded form would not be smaller than the cluster, or does not fit into `output`: such a cluster
// is stored as it is. zlib keeps to a window of 4 KiB, which readers rely upon.
// Thread-safe; keeps an encoder for each thread.
std::optional<size_t> compress(CompressionType type, std::span<const std::byte> cluster, std::span<std::byte> output);

}  // namespace drydock::qcow2
