// SPDX-License-Identifier: GPL-3.0-or-later
//
// Formats that disks come in and that are not read here: other hypervisors' images, and archives around an image. They
// are recognised so that none of them is taken for a raw disk.
//
// One row a format. A raw disk is never taken for one of them: where a boot sector or a partition table begins the
// file, it is a disk.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace drydock {

// What the probes look at.
struct ImageEnds {
  static constexpr size_t head_size = 1024;  // bytes
  static constexpr size_t tail_size = 512;

  std::span<const std::byte, head_size> head;  // with zeros behind the end of the file
  std::span<const std::byte, tail_size> tail;  // the last bytes of the file; zeros where it is shorter than that
};

enum class Guess { as_by_qemu, ours_only };
enum class Place { head, tail };

struct ForeignFormat {
  std::string_view name;         // QEMU's where it has one: what its -f takes
  std::string_view description;  // "a disk of VMware's"
  std::string_view advice;       // what the user can do: "unpack it first, with gunzip"
  Guess guess;                   // whether QEMU recognises it, too, when it is not told the format
  Place place;                   // where the probe looks: a file that begins as a disk does can be foreign by its tail
  bool (*probe)(const ImageEnds& ends);
};

// The format of a file that has these ends; null for none of those known.
const ForeignFormat* find_foreign_format(const ImageEnds& ends);

}  // namespace drydock
