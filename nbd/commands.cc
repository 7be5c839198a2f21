// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/commands.h"

#include <algorithm>
#include <array>

namespace drydock::nbd {

namespace {

// A reply tells of so many extents at most: 8 KiB, and a bounded walk through the map. The client asks on from there.
constexpr size_t max_descriptors = 1024;
constexpr size_t extents_per_call = 256;

struct Call {
  const Request& request;
  const Agreement& agreement;
  BufferPool& buffers;
  std::span<const std::byte> payload;

  Disk& disk() const { return *agreement.chosen->disk; }
  Reply success() const { return success_reply(request.cookie, agreement.structured_replies); }
};

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
  call.disk().discard(call.request.range());
  return written(call);
}

Reply run_write_zeroes(const Call& call) {
  call.disk().zero(call.request.range(), call.request.has(command_flag_no_hole));
  return written(call);
}

struct Descriptor {
  uint32_t length;
  uint32_t flags;
};

uint32_t allocation_flags(const Extent& extent) {
  return (extent.data ? 0 : state_hole) | (extent.zero ? state_zero : 0);
}

std::vector<Descriptor> allocation(const Disk& disk, GuestRange range, size_t most) {
  std::vector<Descriptor> descriptors;
  while (range.length > 0) {
    for (const Extent& extent : disk.map(range, extents_per_call)) {
      const uint32_t flags = allocation_flags(extent);
      if (descriptors.empty() || descriptors.back().flags != flags) {
        if (descriptors.size() == most) return descriptors;
        descriptors.push_back({0, flags});
      }
      // Fits: a request's length does.
      descriptors.back().length += static_cast<uint32_t>(extent.range.length);
      range.start += extent.range.length;
      range.length -= extent.range.length;
    }
  }
  return descriptors;
}

Reply run_block_status(const Call& call) {
  const size_t most = call.request.has(command_flag_req_one) ? 1 : max_descriptors;
  const auto descriptors = allocation(call.disk(), call.request.range(), most);
  Reply reply;
  reply.cookie = call.request.cookie;
  reply.structured = true;
  append_chunk_header(reply.head, reply.cookie, ChunkType::block_status, true,
                      static_cast<uint32_t>(4 + 8 * descriptors.size()));
  append_be<uint32_t>(reply.head, base_allocation_id);
  for (const Descriptor& descriptor : descriptors) {
    append_be<uint32_t>(reply.head, descriptor.length);
    append_be<uint32_t>(reply.head, descriptor.flags);
  }
  reply.add_head(0);
  return reply;
}

struct Runner {
  CommandType type;
  Reply (*run)(const Call& call);
};

constexpr std::array runners{
    Runner{CommandType::read, run_read},
    Runner{CommandType::write, run_write},
    Runner{CommandType::flush, run_flush},
    Runner{CommandType::trim, run_trim},
    Runner{CommandType::write_zeroes, run_write_zeroes},
    Runner{CommandType::block_status, run_block_status},
};

}  // namespace

Reply run_command(const Request& request, const Agreement& agreement, BufferPool& buffers,
                  std::span<const std::byte> payload) {
  const bool structured = agreement.structured_replies;
  const auto runner = std::ranges::find(runners, static_cast<CommandType>(request.type), &Runner::type);
  if (runner == runners.end()) return error_reply(request.cookie, structured, WireError::invalid, "unknown command");
  try {
    return runner->run({request, agreement, buffers, payload});
  } catch (const Error& error) {
    return error_reply(request.cookie, structured, error);
  } catch (const std::bad_alloc&) {
    return error_reply(request.cookie, structured, WireError::no_memory, "the server is out of memory");
  } catch (const std::exception& error) {
    return error_reply(request.cookie, structured, WireError::io, error.what());
  }
}

}  // namespace drydock::nbd
