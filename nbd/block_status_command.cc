// SPDX-License-Identifier: GPL-3.0-or-later
//
// NBD_CMD_BLOCK_STATUS. A chunk for each context:
//
//     structured    32 bits, context;                               then 32 bits, length; 32 bits, flags, ...
//     extended      32 bits, context; 32 bits, number of extents;   then 64 bits, length; 64 bits, flags, ...
//
// With extended headers a payload may narrow the contexts down:
//
//     64 bits, length of the range; 32 bits each, contexts

#include <algorithm>
#include <set>

#include "nbd/commands.h"

namespace drydock::nbd {

namespace {

// A chunk tells of so many extents at most: 16 KiB, and a bounded walk through the map. The client asks on from there.
constexpr size_t max_status_extents = 1024;

struct StatusRequest {
  GuestRange range;
  std::vector<MetaContext> contexts;
};

[[noreturn]] void refuse(const std::string& why) { throw Error(ErrorKind::usage, why); }

StatusRequest decode_status_request(const Request& request, const Agreement& agreement,
                                    std::span<const std::byte> payload) {
  if (request.payload_length == 0) return {request.range(), agreement.contexts};
  WireReader reader(payload);
  const auto length = reader.number<uint64_t>();
  if (!length || (payload.size() - sizeof *length) % sizeof(uint32_t) != 0) {
    refuse("the payload of a block status is 64 bits and a number of 32 bits");
  }
  StatusRequest question{.range = {GuestOffset(request.offset), *length}, .contexts = {}};
  std::set<uint32_t> wanted;
  while (const auto id = reader.number<uint32_t>()) {
    const auto found = std::ranges::find(agreement.contexts, *id, &MetaContext::id);
    if (found == agreement.contexts.end()) refuse(fmt::format("metadata context {} was not negotiated", *id));
    if (!wanted.insert(*id).second) refuse(fmt::format("metadata context {} is asked for twice", *id));
    question.contexts.push_back(*found);
  }
  if (question.contexts.empty()) refuse("block status for no metadata context");
  if (*length == 0) refuse("block status of no bytes");
  const uint64_t size = agreement.chosen->disk->size();
  if (!range_fits(request.offset, *length, size)) {
    refuse(fmt::format("{} bytes at offset {} reach past the end of the export at {}", *length, request.offset, size));
  }
  return question;
}

void append_extents(Bytes& bytes, std::span<const StatusExtent> extents, bool extended) {
  for (const StatusExtent& extent : extents) {
    if (extended) {
      append_be<uint64_t>(bytes, extent.length);
      append_be<uint64_t>(bytes, extent.flags);
    } else {
      // Fit: a request's length does, and no context of ours has flags beyond.
      append_be<uint32_t>(bytes, static_cast<uint32_t>(extent.length));
      append_be<uint32_t>(bytes, static_cast<uint32_t>(extent.flags));
    }
  }
}

}  // namespace

Reply run_block_status(const Request& request, const Agreement& agreement, std::span<const std::byte> payload) {
  const StatusRequest question = decode_status_request(request, agreement, payload);
  const size_t most = request.has(command_flag_req_one) ? 1 : max_status_extents;
  const bool extended = agreement.extended();
  Reply reply{.to = reply_to(request, agreement)};
  for (const MetaContext& context : question.contexts) {
    const auto extents = status_of(*agreement.chosen, context, question.range, most);
    const bool done = &context == &question.contexts.back();
    const auto count = static_cast<uint32_t>(extents.size());
    if (extended) {
      append_chunk_header(reply.head, reply.to, ChunkType::block_status_extended, done, 8 + 16 * count);
      append_be<uint32_t>(reply.head, context.id);
      append_be<uint32_t>(reply.head, count);
    } else {
      append_chunk_header(reply.head, reply.to, ChunkType::block_status, done, 4 + 8 * count);
      append_be<uint32_t>(reply.head, context.id);
    }
    append_extents(reply.head, extents, extended);
  }
  reply.add_head(0);
  return reply;
}

}  // namespace drydock::nbd
