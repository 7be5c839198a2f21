// SPDX-License-Identifier: GPL-3.0-or-later
//
// NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT.
//
//     32 bits, length of export name; name; 32 bits, number of queries; for each 32 bits, its length; query

#include <optional>

#include "nbd/options.h"
#include "nbd/protocol_string.h"
#include "src/error.h"

namespace drydock::nbd {

namespace {

struct ContextRequest {
  std::string_view export_name;
  Queries queries;
};

// Queries of namespaces and names that we do not know find nothing, which is no error.
std::optional<ContextRequest> decode_context_request(std::span<const std::byte> data) {
  WireReader reader(data);
  const auto name = reader.counted_text();
  const auto count = reader.number<uint32_t>();
  if (!name || !count || !is_protocol_string(*name)) return std::nullopt;
  ContextRequest request{.export_name = *name, .queries = {}};
  // Every query takes four bytes at least, so that the data's own length bounds this loop.
  for (uint32_t i = 0; i < *count; ++i) {
    const auto query = reader.counted_text();
    if (!query || !is_protocol_string(*query) || query->find(':') == std::string_view::npos) return std::nullopt;
    request.queries.insert(*query);
  }
  return reader.at_end() ? std::optional(request) : std::nullopt;
}

void reply_context(Handshake& handshake, uint32_t id, std::string_view name) {
  Bytes bytes;
  append_be<uint32_t>(bytes, id);
  append_text(bytes, name);
  handshake.reply(OptionReply::meta_context, bytes);
}

// What both options check alike: the export that is asked about; null when the option was refused.
std::shared_ptr<const Export> check(Handshake& handshake, const std::optional<ContextRequest>& request) {
  if (!handshake.agreement().structured()) {
    handshake.refuse(OptionReply::error_invalid, "metadata contexts need structured replies, negotiated first");
    return nullptr;
  }
  if (!request) {
    handshake.refuse(OptionReply::error_invalid, "the option's data is malformed");
    return nullptr;
  }
  return handshake.find_export(request->export_name);
}

// In the order of the export's contexts, each once, whatever the queries are.
std::vector<MetaContext> found(const Export& chosen, const ContextRequest& request, QueryUse use) {
  std::vector<MetaContext> contexts = contexts_of(chosen);
  // No query at all asks for everything there is, but selects nothing.
  if (use == QueryUse::list && request.queries.empty()) return contexts;
  std::erase_if(contexts, [&](const MetaContext& context) { return !find_context(request.queries, context, use); });
  return contexts;
}

}  // namespace

void handle_list_meta_context(Handshake& handshake, std::span<const std::byte> data) {
  const auto request = decode_context_request(data);
  const auto chosen = check(handshake, request);
  if (!chosen) return;
  for (const MetaContext& context : found(*chosen, *request, QueryUse::list)) {
    reply_context(handshake, 0, context.name);
  }
  handshake.reply(OptionReply::ack);
}

void handle_set_meta_context(Handshake& handshake, std::span<const std::byte> data) {
  // Replaces what was set before, also when it fails.
  Agreement& agreed = handshake.agreed();
  agreed.contexts.clear();
  agreed.context_export.reset();
  const auto request = decode_context_request(data);
  const auto chosen = check(handshake, request);
  if (!chosen) return;
  agreed.contexts = found(*chosen, *request, QueryUse::set);
  agreed.context_export = chosen;
  for (const MetaContext& context : agreed.contexts) reply_context(handshake, context.id, context.name);
  handshake.reply(OptionReply::ack);
}

}  // namespace drydock::nbd
