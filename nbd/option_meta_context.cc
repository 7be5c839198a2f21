// SPDX-License-Identifier: GPL-3.0-or-later
//
// NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT. The one context there is: base:allocation.
//
//     32 bits, length of export name; name; 32 bits, number of queries; for each 32 bits, its length; query

#include <optional>

#include "nbd/options.h"
#include "src/error.h"

namespace drydock::nbd {

namespace {

struct Queries {
  std::string_view export_name;
  uint32_t count = 0;
  bool allocation = false;  // "base:allocation" is among them
  bool wildcard = false;    // "base:" is
};

// Queries of namespaces and names that we do not know find nothing, which is no error.
std::optional<Queries> decode(std::span<const std::byte> data) {
  WireReader reader(data);
  const auto name = reader.counted_text();
  const auto count = reader.number<uint32_t>();
  if (!name || !count || !is_protocol_string(*name)) return std::nullopt;
  Queries queries{.export_name = *name, .count = *count};
  // Every query takes four bytes at least, so that the data's own length bounds this loop.
  for (uint32_t i = 0; i < *count; ++i) {
    const auto query = reader.counted_text();
    if (!query || !is_protocol_string(*query) || query->find(':') == std::string_view::npos) return std::nullopt;
    queries.allocation |= *query == base_allocation;
    queries.wildcard |= *query == base_namespace;
  }
  return reader.at_end() ? std::optional(queries) : std::nullopt;
}

void reply_allocation(Handshake& handshake, uint32_t id) {
  Bytes bytes;
  append_be<uint32_t>(bytes, id);
  append_text(bytes, base_allocation);
  handshake.reply(OptionReply::meta_context, bytes);
}

struct Question {
  Queries queries;
  const Export* chosen;
};

// What both options check alike; nothing when the option was refused.
std::optional<Question> parse(Handshake& handshake, std::span<const std::byte> data) {
  if (!handshake.agreement().structured_replies) {
    handshake.refuse(OptionReply::error_invalid, "metadata contexts need structured replies, negotiated first");
    return std::nullopt;
  }
  const auto queries = decode(data);
  if (!queries) {
    handshake.refuse(OptionReply::error_invalid, "the option's data is malformed");
    return std::nullopt;
  }
  const Export* chosen = handshake.exports().find(queries->export_name);
  if (chosen == nullptr) {
    handshake.refuse(OptionReply::error_unknown,
                     fmt::format("there is no export '{}'", printable(queries->export_name)));
    return std::nullopt;
  }
  return Question{*queries, chosen};
}

}  // namespace

void handle_list_meta_context(Handshake& handshake, std::span<const std::byte> data) {
  const auto question = parse(handshake, data);
  if (!question) return;
  const Queries& queries = question->queries;
  // No query at all asks for everything.
  if (queries.count == 0 || queries.allocation || queries.wildcard) reply_allocation(handshake, 0);
  handshake.reply(OptionReply::ack);
}

void handle_set_meta_context(Handshake& handshake, std::span<const std::byte> data) {
  // Replaces what was set before, also when it fails.
  handshake.agreed().allocation_context = false;
  const auto question = parse(handshake, data);
  if (!question) return;
  if (question->queries.allocation) {
    handshake.agreed().allocation_context = true;
    handshake.agreed().context_export = question->chosen;
    reply_allocation(handshake, base_allocation_id);
  }
  handshake.reply(OptionReply::ack);
}

}  // namespace drydock::nbd
