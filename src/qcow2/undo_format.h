// SPDX-License-Identifier: GPL-3.0-or-later
//
// The undo file of a repair: a log that is only ever appended to.
//
//   file header, then frames:
//     saved       old bytes of a range of sectors, and checksums of what is about to be written there
//     rewritten   checksums of what is about to be written to sectors that were saved before
//     finished    the repair is complete: the image's size, and a checksum of its header and refcounts
//     restoring   the image was found as the repair left it, and is being restored
//     restored    done; the file has served
//
// A frame is flushed before the image is touched. A file without `finished` is one of a repair that was interrupted:
// its last frame may be torn, and then what it speaks of was never written.
//
// A change is always of whole sectors (the unit of what a crash may tear), so that each sector of the image can be told
// to be as it was, as the repair left it, or as neither. All numbers are big-endian.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "src/storage.h"
#include "src/units.h"

namespace drydock::qcow2::undo {

inline constexpr uint64_t magic = 0x4452'5944'4F43'4B55;  // "DRYDOCKU"
inline constexpr uint32_t version = 1;
inline constexpr uint64_t file_header_bytes = 32;     // magic, version, 4 unused, size of the image, 4 unused, checksum
inline constexpr uint32_t frame_magic = 0x4652'414D;  // "FRAM"
inline constexpr uint64_t frame_header_bytes = 32;    // magic, kind, offset, length, payload checksum, checksum
inline constexpr uint64_t max_frame_bytes = 16 << 20;  // of a range in one frame
inline constexpr uint64_t checksum_bytes = 4;

enum class FrameKind : uint32_t { saved = 1, rewritten = 2, finished = 3, restoring = 4, restored = 5 };

struct Frame {
  FrameKind kind = FrameKind::saved;
  HostOffset offset;    // of the range in the image; of `finished`: unused
  uint64_t length = 0;  // bytes of the range, a multiple of sector_size; of `finished`: the image's size
  std::vector<std::byte> payload;
};

uint32_t checksum(std::span<const std::byte> bytes, uint32_t seed = 0);

std::vector<std::byte> encode_file_header(uint64_t image_size);
// Returns the image's size. Throws invalid for anything else than an undo file.
uint64_t decode_file_header(const Storage& file);

std::vector<std::byte> encode_frame(const Frame& frame);
// How many bytes of payload a frame has.
uint64_t payload_bytes(FrameKind kind, uint64_t length);

// A checksum of what no later change of the image's allocation leaves as it was: its header, refcount table and
// refcount blocks.
uint32_t allocation_checksum(const Storage& image);

}  // namespace drydock::qcow2::undo
