// SPDX-License-Identifier: GPL-3.0-or-later
//
// NBD_CMD_READ.
//
// The extent map of the range decides how its bytes travel:
//
//     extents   | plain  plain  zero zero zero | compressed | plain |
//     runs      | data         | hole          | data               |
//
// Each run is a chunk of a structured reply; without structured replies, or with "don't fragment", everything is one
// run of data. A run's bytes come by one of three ways:
//   - out of the file while sending (sendfile): large plain stretches of files that nobody here writes;
//   - copied from the page cache on the spot (preadv2 with RWF_NOWAIT): small ones, where a second system call would
//     cost more than the copy;
//   - through Disk::read, which may block: all else, and what is not in the page cache.

#include <linux/magic.h>
#include <sys/uio.h>
#include <sys/vfs.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "nbd/commands.h"

namespace drydock::nbd {

namespace {

// A range in more pieces is read as if it were data all over.
constexpr size_t max_extents = 64;
// Reads below this do not look for holes when they have to go through the disk anyway: asking costs more than reading.
constexpr uint32_t min_mapped_read = 64 << 10;
// Plain stretches up to this are copied, longer ones are sent from the file.
constexpr uint64_t max_copied = 32 << 10;
// A hole gets a chunk of its own from here on.
constexpr uint64_t min_hole = 4096;

struct Run {
  GuestRange range;
  bool hole = false;
  std::span<const Extent> extents;
};

bool is_plain(const Extent& extent) {
  return extent.data && !extent.zero && extent.file != nullptr && extent.file->descriptor() >= 0 &&
         !extent.file->writable();
}

// The map of the whole range; where it is in too many pieces, the rest stands as one extent that only Disk::read can
// tell about.
std::vector<Extent> look_up(const Disk& disk, GuestRange range) {
  std::vector<Extent> extents = disk.map(range, max_extents);
  uint64_t known = 0;
  for (const Extent& extent : extents) known += extent.range.length;
  if (known < range.length) {
    extents.push_back({.range = {range.start + known, range.length - known}, .present = true, .data = true});
  }
  return extents;
}

std::vector<Run> runs_of(std::span<const Extent> extents, bool fragment) {
  std::vector<Run> runs;
  for (size_t i = 0; i < extents.size(); ++i) {
    const Extent& extent = extents[i];
    const bool hole = fragment && extent.zero && extent.range.length >= min_hole;
    if (runs.empty() || runs.back().hole != hole) {
      runs.push_back({.range = {extent.range.start, 0}, .hole = hole, .extents = extents.subspan(i, 0)});
    }
    Run& run = runs.back();
    run.range.length += extent.range.length;
    run.extents = {run.extents.data(), run.extents.size() + 1};
  }
  return runs;
}

// Puts the headers around the bytes that `fill` adds for each run of data.
template <class Fill>
Reply assemble(const ReplyTo& to, Buffer payload, bool from_files, std::span<const Run> runs, const Fill& fill) {
  Reply reply{.to = to};
  reply.payload = std::move(payload);
  // A file can still fail while it is being sent, so that its chunk must not be the last.
  const bool separate_end = to.structured() && from_files;
  for (size_t i = 0; i < runs.size(); ++i) {
    const Run& run = runs[i];
    const auto length = static_cast<uint32_t>(run.range.length);
    const size_t from = reply.head.size();
    const bool done = !separate_end && i + 1 == runs.size();
    if (!to.structured()) {
      append_simple_header(reply.head, to, 0);
    } else if (run.hole) {
      append_chunk_header(reply.head, to, ChunkType::offset_hole, done, 12);
      append_be<uint64_t>(reply.head, run.range.start.value());
      append_be<uint32_t>(reply.head, length);
    } else {
      append_chunk_header(reply.head, to, ChunkType::offset_data, done, 8 + length);
      append_be<uint64_t>(reply.head, run.range.start.value());
    }
    reply.add_head(from);
    if (!run.hole) fill(reply, run);
  }
  if (separate_end) {
    const size_t from = reply.head.size();
    append_chunk_header(reply.head, to, ChunkType::none, true, 0);
    reply.add_head(from);
  }
  return reply;
}

// Whether the file system keeps its files in memory alone: it knows no reading without waiting, and needs none.
bool lies_in_memory(int descriptor) {
  struct statfs status {};
  return ::fstatfs(descriptor, &status) == 0 && status.f_type == TMPFS_MAGIC;
}

bool read_cached(const Extent& extent, std::span<std::byte> buffer) {
  const iovec target{buffer.data(), buffer.size()};
  const int descriptor = extent.file->descriptor();
  const auto offset = static_cast<off_t>(extent.offset.value());
  ssize_t got = ::preadv2(descriptor, &target, 1, offset, RWF_NOWAIT);
  if (got < 0 && errno == EOPNOTSUPP && lies_in_memory(descriptor)) got = ::preadv(descriptor, &target, 1, offset);
  return got == static_cast<ssize_t>(buffer.size());
}

// What the map promises behind the end of a truncated file is for Disk::read to judge: lost data or a cluster's empty
// tail.
bool ends_within_file(const Extent& extent) {
  return extent.offset.value() + extent.range.length <= extent.file->size();
}

// Whether the start of an extent is in the page cache, as a guess at the rest of it: what is not would block the
// connection's sender, while the disk's own reads run several at once.
bool starts_cached(const Extent& extent) {
  std::byte first{};
  return read_cached(extent, {&first, 1});
}

bool may_fragment(const Request& request, const Agreement& agreement) {
  return agreement.structured() && !request.has(command_flag_df);
}

// A small read of what is one stretch of a file, without asking for its extents: holes are sent as zeros.
std::optional<Reply> read_in_place(const Request& request, const Agreement& agreement, BufferPool& buffers) {
  const auto place = agreement.chosen->disk->file_place(request.range());
  if (!place || place->file->descriptor() < 0 || place->file->writable()) return std::nullopt;
  const Extent extent{
      .range = request.range(), .present = true, .data = true, .file = place->file, .offset = place->offset};
  Buffer payload = buffers.take(request.length);
  if (!read_cached(extent, payload.bytes())) return std::nullopt;
  const std::array runs{Run{.range = extent.range, .hole = false, .extents = {&extent, 1}}};
  const auto fill = [&](Reply& filled, const Run&) {
    filled.add(Source::payload, 0, static_cast<uint32_t>(request.length));
  };
  return assemble(reply_to(request, agreement), std::move(payload), false, runs, fill);
}

}  // namespace

std::optional<Reply> read_at_once(const Request& request, const Agreement& agreement, BufferPool& buffers) {
  const Disk& disk = *agreement.chosen->disk;
  if (disk.writable()) return std::nullopt;
  if (request.length == 0) return success_reply(reply_to(request, agreement));  // nothing to send at all
  if (request.length <= max_copied) {
    if (auto reply = read_in_place(request, agreement, buffers)) return reply;
  }
  const std::vector<Extent> extents = look_up(disk, request.range());
  uint64_t plain = 0;
  for (const Extent& extent : extents) {
    if (!extent.zero && !is_plain(extent)) return std::nullopt;
    if (!extent.zero) plain += extent.range.length;
  }

  const bool copy = plain <= max_copied;
  Buffer payload = buffers.take(copy ? plain : 0);
  uint64_t copied = 0;
  for (const Extent& extent : extents) {
    if (extent.zero) continue;
    const bool at_hand = copy ? read_cached(extent, payload.bytes().subspan(copied, extent.range.length))
                              : starts_cached(extent) && ends_within_file(extent);
    if (!at_hand) return std::nullopt;
    copied += extent.range.length;
  }

  uint64_t taken = 0;
  const auto fill = [&](Reply& filled, const Run& run) {
    for (const Extent& extent : run.extents) {
      const auto length = static_cast<uint32_t>(extent.range.length);
      if (extent.zero) {
        filled.add(Source::zeros, 0, length);
      } else if (copy) {
        filled.add(Source::payload, taken, length);
        taken += length;
      } else {
        filled.add(Source::file, extent.offset.value(), length, extent.file->descriptor());
      }
    }
  };
  return assemble(reply_to(request, agreement), std::move(payload), !copy,
                  runs_of(extents, may_fragment(request, agreement)), fill);
}

bool is_at_hand(const Request& request, const Agreement& agreement) {
  const Disk& disk = *agreement.chosen->disk;
  const std::vector<Extent> extents = disk.map(request.range(), max_extents);
  return !extents.empty() && extents.back().range.end() == request.range().end() &&
         std::ranges::all_of(extents, [](const Extent& extent) {
           const bool in_file = extent.data && extent.file != nullptr && extent.file->descriptor() >= 0;
           return extent.zero || (in_file && starts_cached(extent));
         });
}

Reply read_from_disk(const Request& request, const Agreement& agreement, BufferPool& buffers) {
  const Disk& disk = *agreement.chosen->disk;
  if (request.length == 0) return success_reply(reply_to(request, agreement));  // nothing to send at all
  std::vector<Extent> extents{{.range = request.range(), .present = true, .data = true}};
  if (may_fragment(request, agreement) && request.length >= min_mapped_read) {
    extents = look_up(disk, request.range());
  }
  const std::vector<Run> runs = runs_of(extents, may_fragment(request, agreement));
  uint64_t data = 0;
  for (const Run& run : runs) data += run.hole ? 0 : run.range.length;

  Buffer payload = buffers.take(data);
  uint64_t filled = 0;
  for (const Run& run : runs) {
    if (run.hole) continue;
    disk.read(run.range.start, payload.bytes().subspan(filled, run.range.length));
    filled += run.range.length;
  }
  uint64_t taken = 0;
  const auto fill = [&](Reply& target, const Run& run) {
    target.add(Source::payload, taken, static_cast<uint32_t>(run.range.length));
    taken += run.range.length;
  };
  return assemble(reply_to(request, agreement), std::move(payload), false, runs, fill);
}

}  // namespace drydock::nbd
