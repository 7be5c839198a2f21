// SPDX-License-Identifier: GPL-3.0-or-later
//
// What is worth a compressor's while: zeros need no search for the best match, and bytes without a pattern need none at
// all, yet deflate spends most of its time on them.
//
// Thread-safety: none; one cluster after the other, by one thread.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace drydock::qcow2 {

enum class Compressibility : uint8_t {
  zeros,
  none,  // its bytes are as frequent as each other, and hardly a word of it has been there before
  some,
};

// Looks at the pieces of a cluster, in order.
class CompressibilityJudge {
 public:
  // A piece: as far back as qcow2's deflate can refer to.
  static constexpr size_t piece_size = 4096;

  // `cluster`, at most 2 MiB, outlives the judge's next begin().
  void begin(std::span<const std::byte> cluster);
  // Of the piece from `offset` on, a multiple of piece_size.
  Compressibility judge(size_t offset);

 private:
  bool repeats(size_t offset, size_t length);

  static constexpr unsigned table_bits = 12;
  std::span<const std::byte> cluster_;
  std::array<uint32_t, size_t{1} << table_bits> last_seen_{};  // by hash of a word: its offset + 1
};

}  // namespace drydock::qcow2
