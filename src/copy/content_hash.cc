// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/copy/content_hash.h"

#include <nettle/sha2.h>

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "src/byteorder.h"
#include "src/copy/parallel.h"
#include "src/copy/work_feed.h"
#include "src/copy/zeros.h"
#include "src/error.h"

namespace drydock {

namespace {

constexpr uint64_t block_bytes = 64 << 10;
constexpr uint64_t fan_out = 256;
constexpr uint64_t node_bytes = block_bytes * fan_out;  // what one lowest node covers, and a thread takes on at a time
constexpr uint64_t zeros_at_once = node_bytes << 16;    // most that is reported at once

constexpr std::byte block_mark{0};
constexpr std::byte node_mark{1};
constexpr std::byte disk_mark{2};

// A level's hashes by their index; those that are not there are of zeros.
using Level = std::map<uint64_t, Sha256>;

// The library has no more to load than this needs: it starts with every command on images.
Sha256 hash_of(std::byte mark, std::initializer_list<std::span<const std::byte>> parts) {
  sha256_ctx context;
  sha256_init(&context);
  const auto update = [&](std::span<const std::byte> bytes) {
    sha256_update(&context, bytes.size(), reinterpret_cast<const uint8_t*>(bytes.data()));
  };
  update(std::span(&mark, 1));
  for (const auto part : parts) update(part);
  Sha256 result{};
  sha256_digest(&context, result.size(), reinterpret_cast<uint8_t*>(result.data()));
  return result;
}

Sha256 hash_of_node(std::span<const Sha256> hashes) { return hash_of(node_mark, {std::as_bytes(hashes)}); }

// Of `fan_out` equal ones.
Sha256 hash_of_equal_nodes(const Sha256& hash) { return hash_of_node(std::vector<Sha256>(fan_out, hash)); }

Sha256 hash_of_zero_block() { return hash_of(block_mark, {std::vector<std::byte>(block_bytes)}); }

// The lowest node over one piece of work: nothing for zeros.
class PieceHash {
 public:
  explicit PieceHash(const Disk& disk) : disk_(disk), zero_block_(hash_of_zero_block()), block_(block_bytes) {}

  std::optional<Sha256> node(GuestRange range) {
    hashes_.assign(fan_out, zero_block_);
    bool any = false;
    uint64_t next = 0;  // the first block that has not been looked at
    for_each_extent(disk_, range, [&](const Extent& extent) {
      if (extent.zero) return;
      const uint64_t first = (extent.range.start - range.start) / block_bytes;
      const uint64_t end = divide_up(extent.range.end() - range.start, block_bytes);
      for (next = std::max(next, first); next < end; ++next) any = hash_block(range, next) || any;
    });
    return any ? std::optional(hash_of_node(hashes_)) : std::nullopt;
  }

 private:
  bool hash_block(GuestRange range, uint64_t index) {
    const uint64_t length = std::min(block_bytes, range.length - index * block_bytes);
    const auto bytes = std::span(block_).first(length);
    disk_.read(range.start + index * block_bytes, bytes);
    if (is_zero(bytes)) return false;
    std::ranges::fill(std::span(block_).subspan(length), std::byte{0});
    hashes_[index] = hash_of(block_mark, {block_});
    return true;
  }

  const Disk& disk_;
  Sha256 zero_block_;
  std::vector<std::byte> block_;
  std::vector<Sha256> hashes_;
};

Level lowest_nodes(const Disk& disk, const std::function<void(uint64_t)>& progress) {
  WorkFeed feed(disk, [](const Extent& extent) { return extent.zero ? WorkKind::zero : WorkKind::data; },
                {.alignment = node_bytes, .data_chunk = node_bytes, .other_chunk = zeros_at_once});
  Level nodes;
  std::mutex mutex;  // guards nodes
  const auto threads =
      static_cast<unsigned>(std::clamp<uint64_t>(divide_up(disk.size(), node_bytes), 1, default_threads()));
  run_in_parallel(threads, [&](const std::atomic<bool>& stop) {
    PieceHash piece(disk);
    for (auto work = feed.next(); work && !stop; work = feed.next()) {
      if (work->kind == WorkKind::data) {
        if (const auto node = piece.node(work->range)) {
          const std::lock_guard lock(mutex);
          nodes[work->range.start.value() / node_bytes] = *node;
        }
      }
      if (progress) progress(work->range.length);
    }
  });
  return nodes;
}

Level nodes_above(const Level& below, const Sha256& zeros_below) {
  Level nodes;
  for (auto child = below.begin(); child != below.end();) {
    const uint64_t index = child->first / fan_out;
    std::vector<Sha256> hashes(fan_out, zeros_below);
    for (; child != below.end() && child->first / fan_out == index; ++child)
      hashes[child->first % fan_out] = child->second;
    nodes[index] = hash_of_node(hashes);
  }
  return nodes;
}

Sha256 hash_of_one_block(const Disk& disk) {
  std::vector<std::byte> block(block_bytes);
  disk.read(GuestOffset(0), std::span(block).first(disk.size()));
  return hash_of(block_mark, {block});
}

}  // namespace

Sha256 content_hash(const Disk& disk, const std::function<void(uint64_t)>& progress) {
  Sha256 top{};
  if (disk.size() <= block_bytes) {
    top = hash_of_one_block(disk);
    if (progress) progress(disk.size());
  } else {
    Level level = lowest_nodes(disk, progress);
    Sha256 zeros = hash_of_equal_nodes(hash_of_zero_block());
    for (uint64_t nodes = divide_up(disk.size(), node_bytes); nodes > 1; nodes = divide_up(nodes, fan_out)) {
      level = nodes_above(level, zeros);
      zeros = hash_of_equal_nodes(zeros);
    }
    top = level.empty() ? zeros : level.begin()->second;
  }
  std::array<std::byte, 8> size{};
  store_be<uint64_t>(size, 0, disk.size());
  return hash_of(disk_mark, {size, top});
}

std::string hex_digits(const Sha256& hash) {
  std::string text;
  for (const std::byte byte : hash) text += fmt::format("{:02x}", std::to_integer<unsigned>(byte));
  return text;
}

}  // namespace drydock
