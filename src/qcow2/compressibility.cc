// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/compressibility.h"

#include <algorithm>
#include <cstring>

#include "src/copy/zeros.h"

namespace drydock::qcow2 {

namespace {

// So many of a piece's words may have been there before: of 4096 random ones next to none has.
constexpr size_t few_repeats = 8;

uint32_t word_at(std::span<const std::byte> bytes, size_t offset) {
  uint32_t word = 0;
  std::memcpy(&word, bytes.data() + offset, sizeof word);
  return word;
}

// Whether Huffman's code would gain nothing: the sum of the squares of the bytes' counts is that of random bytes,
// within a tenth. It is n*n/256 + n for n random ones, and more for all others.
bool is_flat(std::span<const std::byte> piece) {
  std::array<uint32_t, 256> counts{};
  for (const std::byte byte : piece) ++counts.at(std::to_integer<size_t>(byte));
  uint64_t squares = 0;
  for (const uint64_t count : counts) squares += count * count;
  const uint64_t random = piece.size() * piece.size() / counts.size() + piece.size();
  return squares * 10 < random * 11;
}

}  // namespace

void CompressibilityJudge::begin(std::span<const std::byte> cluster) {
  cluster_ = cluster;
  last_seen_.fill(0);
}

Compressibility CompressibilityJudge::judge(size_t offset) {
  const auto piece = cluster_.subspan(offset, std::min(piece_size, cluster_.size() - offset));
  if (is_zero(piece)) return Compressibility::zeros;
  return is_flat(piece) && !repeats(offset, piece.size()) ? Compressibility::none : Compressibility::some;
}

bool CompressibilityJudge::repeats(size_t offset, size_t length) {
  constexpr uint32_t golden = 2654435761U;  // Knuth's multiplicative hash
  size_t repeated = 0;
  for (size_t at = offset; at + sizeof(uint32_t) <= offset + length; ++at) {
    const uint32_t word = word_at(cluster_, at);
    uint32_t& seen = last_seen_.at((word * golden) >> (32 - table_bits));
    const bool again = seen != 0 && at - (seen - 1) <= piece_size && word_at(cluster_, seen - 1) == word;
    repeated += again ? 1 : 0;
    seen = static_cast<uint32_t>(at + 1);
  }
  return repeated > few_repeats;
}

}  // namespace drydock::qcow2
