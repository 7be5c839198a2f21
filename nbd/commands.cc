// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/commands.h"

#include <fcntl.h>

#include <algorithm>
#include <array>

namespace drydock::nbd {

namespace {

// What is not plain in a file is read to bring it into memory, in pieces of this size.
constexpr size_t cache_piece = 256 << 10;
// A range may be that of the whole disk, and have to be written. It is gone through in pieces of this size, so that it
// ends when its connection does; each goes on a little into the next, so that whatever unit the disk has its space in
// lies within one of them.
constexpr uint64_t range_piece = 64 << 20;
constexpr uint64_t largest_unit = 2 << 20;
// Up to here a copy is quicker than waking another thread for it.
constexpr uint64_t max_at_once = 32 << 10;

struct Call {
  const Request& request;
  const Agreement& agreement;
  BufferPool& buffers;
  std::span<const std::byte> payload;
  const std::atomic<bool>& abandoned;

  Disk& disk() const { return *agreement.chosen->disk; }
  Reply success() const { return success_reply(reply_to(request, agreement)); }
};

void stop_if_abandoned(const Call& call) {
  if (call.abandoned) throw Error(ErrorKind::interrupted, "the connection has ended");
}

// Calls `change(GuestRange)` for the pieces of the request's range.
template <class Change>
void in_pieces(const Call& call, const Change& change) {
  GuestRange rest = call.request.range();
  while (rest.length > range_piece + largest_unit) {
    change(GuestRange{rest.start, range_piece + largest_unit});
    stop_if_abandoned(call);
    rest = {rest.start + range_piece, rest.length - range_piece};
  }
  change(rest);
}

// A write command's reply waits for the disk where the client asked so.
Reply written(const Call& call) {
  if (call.request.has(command_flag_fua)) call.disk().flush();
  return call.success();
}

Reply run_read(const Call& call) { return read_from_disk(call.request, call.agreement, call.buffers); }

Reply run_write(const Call& call) {
  call.disk().write(call.request.range().start, call.payload);
  return written(call);
}

Reply run_flush(const Call& call) {
  if (call.agreement.chosen->writable()) call.disk().flush();
  return call.success();
}

Reply run_trim(const Call& call) {
  in_pieces(call, [&](GuestRange piece) { call.disk().discard(piece); });
  return written(call);
}

Reply run_write_zeroes(const Call& call) {
  const GuestRange range = call.request.range();
  const bool keep_space = call.request.has(command_flag_no_hole);
  if (!call.request.has(command_flag_fast_zero)) {
    in_pieces(call, [&](GuestRange piece) { call.disk().zero(piece, keep_space); });
  } else if (!call.disk().zero_at_once(range, keep_space)) {
    return error_reply(reply_to(call.request, call.agreement), WireError::not_supported,
                       "zeros would have to be written here, which is no faster than a write");
  }
  return written(call);
}

void read_into_memory(const Call& call, GuestRange range) {
  Buffer piece = call.buffers.take(std::min<uint64_t>(range.length, cache_piece));
  while (range.length > 0) {
    const auto step = piece.bytes().first(std::min<uint64_t>(range.length, piece.size()));
    call.disk().read(range.start, step);
    stop_if_abandoned(call);
    range = {range.start + step.size(), range.length - step.size()};
  }
}

// A hint, so that what fails now is told by the read that it was for.
Reply run_cache(const Call& call) {
  GuestRange rest = call.request.range();
  while (rest.length > 0) {
    stop_if_abandoned(call);
    for (const Extent& extent : call.disk().map(rest, extents_per_call)) {
      rest = {rest.start + extent.range.length, rest.length - extent.range.length};
      if (!extent.data || extent.zero) continue;
      if (extent.file != nullptr && extent.file->descriptor() >= 0) {
        ::posix_fadvise(extent.file->descriptor(), static_cast<off_t>(extent.offset.value()),
                        static_cast<off_t>(extent.range.length), POSIX_FADV_WILLNEED);
      } else {
        read_into_memory(call, extent.range);
      }
    }
  }
  return call.success();
}

Reply run_status(const Call& call) { return run_block_status(call.request, call.agreement, call.payload); }

struct Runner {
  CommandType type;
  Reply (*run)(const Call& call);
};

constexpr std::array runners{
    Runner{CommandType::read, run_read},           Runner{CommandType::write, run_write},
    Runner{CommandType::flush, run_flush},         Runner{CommandType::trim, run_trim},
    Runner{CommandType::cache, run_cache},         Runner{CommandType::write_zeroes, run_write_zeroes},
    Runner{CommandType::block_status, run_status},
};

}  // namespace

std::optional<Reply> run_at_once(const Request& request, const Agreement& agreement, BufferPool& buffers,
                                 std::span<const std::byte> payload) {
  if (request.is(CommandType::read)) {
    if (!agreement.chosen->disk->writable()) return read_at_once(request, agreement, buffers);
    if (request.length > max_at_once || !is_at_hand(request, agreement)) return std::nullopt;
    return read_from_disk(request, agreement, buffers);
  }
  // Into the page cache. What is to be durable waits for the disk.
  const bool small_write = request.is(CommandType::write) && !request.has(command_flag_fua) && request.length > 0 &&
                           request.length <= max_at_once;
  if (!small_write || !agreement.chosen->disk->write_at_once(request.range().start, payload)) return std::nullopt;
  return success_reply(reply_to(request, agreement));
}

Reply run_command(const Request& request, const Agreement& agreement, BufferPool& buffers,
                  std::span<const std::byte> payload, const std::atomic<bool>& abandoned) {
  const ReplyTo to = reply_to(request, agreement);
  const auto* const runner = std::ranges::find(runners, static_cast<CommandType>(request.type), &Runner::type);
  if (runner == runners.end()) return error_reply(to, WireError::invalid, "unknown command");
  try {
    return runner->run({request, agreement, buffers, payload, abandoned});
  } catch (const Error& error) {
    return error_reply(to, error);
  } catch (const std::bad_alloc&) {
    return error_reply(to, WireError::no_memory, "the server is out of memory");
  } catch (const std::exception& error) {
    return error_reply(to, WireError::io, error.what());
  }
}

}  // namespace drydock::nbd
