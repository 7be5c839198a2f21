// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/options.h"

#include <algorithm>
#include <array>

#include "nbd/protocol_string.h"
#include "src/error.h"

namespace drydock::nbd {

namespace {

std::string_view as_text(std::span<const std::byte> data) {
  return {reinterpret_cast<const char*>(data.data()), data.size()};
}

void handle_export_name(Handshake& handshake, std::span<const std::byte> data) {
  // This option has no error reply, and no place among clients with extended headers.
  std::shared_ptr<const Export> chosen;
  try {
    const bool allowed = is_protocol_string(as_text(data)) && !handshake.agreement().extended();
    if (allowed) chosen = handshake.exports().find(as_text(data));
  } catch (const Error&) {
    chosen = nullptr;
  }
  if (!chosen) return handshake.close("asked for an export that it cannot have");
  Bytes& output = handshake.raw_output();
  append_be<uint64_t>(output, chosen->disk->size());
  append_be<uint16_t>(output, handshake.transmission_flags(*chosen));
  if (!handshake.agreement().no_zeroes) output.resize(output.size() + export_name_padding);
  handshake.enter_transmission(std::move(chosen));
}

void handle_abort(Handshake& handshake, std::span<const std::byte>) {
  handshake.reply(OptionReply::ack);
  handshake.close("ended the negotiation");
}

void handle_list(Handshake& handshake, std::span<const std::byte> data) {
  if (!data.empty()) {
    handshake.refuse(OptionReply::error_invalid, "NBD_OPT_LIST takes no data");
    return;
  }
  for (const ExportCatalog::Entry& listed : handshake.exports().list()) {
    Bytes entry;
    append_be<uint32_t>(entry, static_cast<uint32_t>(listed.name.size()));
    append_text(entry, listed.name);
    append_text(entry, listed.description);
    handshake.reply(OptionReply::server, entry);
  }
  handshake.reply(OptionReply::ack);
}

void handle_structured_reply(Handshake& handshake, std::span<const std::byte> data) {
  if (!data.empty()) {
    handshake.refuse(OptionReply::error_invalid, "NBD_OPT_STRUCTURED_REPLY takes no data");
    return;
  }
  if (handshake.agreement().extended()) {
    handshake.refuse(OptionReply::error_extended_headers_required, "extended headers were negotiated already");
    return;
  }
  handshake.agreed().framing = Framing::structured;
  handshake.reply(OptionReply::ack);
}

void handle_extended_headers(Handshake& handshake, std::span<const std::byte> data) {
  if (!data.empty()) {
    handshake.refuse(OptionReply::error_invalid, "NBD_OPT_EXTENDED_HEADERS takes no data");
    return;
  }
  if (handshake.agreement().extended()) {
    handshake.refuse(OptionReply::error_invalid, "extended headers were negotiated already");
    return;
  }
  handshake.agreed().framing = Framing::extended;
  handshake.reply(OptionReply::ack);
}

constexpr std::array handlers{
    OptionHandler{Option::export_name, handle_export_name},
    OptionHandler{Option::abort, handle_abort},
    OptionHandler{Option::list, handle_list},
    OptionHandler{Option::starttls, handle_starttls},
    OptionHandler{Option::info, handle_info},
    OptionHandler{Option::go, handle_go},
    OptionHandler{Option::structured_reply, handle_structured_reply},
    OptionHandler{Option::list_meta_context, handle_list_meta_context},
    OptionHandler{Option::set_meta_context, handle_set_meta_context},
    OptionHandler{Option::extended_headers, handle_extended_headers},
};

}  // namespace

const OptionHandler* find_option(uint32_t option) {
  const auto found = std::ranges::find(handlers, static_cast<Option>(option), &OptionHandler::option);
  return found == handlers.end() ? nullptr : &*found;
}

}  // namespace drydock::nbd
