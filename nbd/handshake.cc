// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/handshake.h"

#include <algorithm>

#include "nbd/options.h"
#include "nbd/protocol_string.h"
#include "src/error.h"

namespace drydock::nbd {

Bytes Handshake::greeting() {
  Bytes bytes;
  append_be<uint64_t>(bytes, init_magic);
  append_be<uint64_t>(bytes, option_magic);
  append_be<uint16_t>(bytes, flag_fixed_newstyle | flag_no_zeroes);
  return bytes;
}

size_t Handshake::consume(std::span<const std::byte> input, Bytes& output) {
  output_ = &output;
  if (!greeted_) return take_client_flags(input);
  if (to_skip_ > 0) return skip(input);
  return take_option(input);
}

size_t Handshake::take_client_flags(std::span<const std::byte> input) {
  WireReader reader(input);
  const auto flags = reader.number<uint32_t>();
  if (!flags) return 0;
  greeted_ = true;
  agreement_.no_zeroes = (*flags & client_flag_no_zeroes) != 0;
  // A client that sets what was never offered must be dropped.
  if ((*flags & ~(client_flag_fixed_newstyle | client_flag_no_zeroes)) != 0) close("set flags that it was not offered");
  return sizeof *flags;
}

size_t Handshake::take_option(std::span<const std::byte> input) {
  WireReader reader(input);
  const auto magic = reader.number<uint64_t>();
  if (!magic) return 0;
  if (*magic != option_magic) {
    close("does not speak NBD");
    return input.size();
  }
  const auto option = reader.number<uint32_t>();
  const auto length = reader.number<uint32_t>();
  if (!option || !length) return 0;
  if (*length > max_skipped_option_length) {
    close("sent an option of an absurd length");
    return input.size();
  }
  if (*length > max_option_length) {
    option_ = *option;
    to_skip_ = *length;
    return option_header_size;
  }
  if (input.size() < option_header_size + *length) return 0;
  option_ = *option;
  run_option(input.subspan(option_header_size, *length));
  return option_header_size + *length;
}

size_t Handshake::skip(std::span<const std::byte> input) {
  const auto skipped = static_cast<uint32_t>(std::min<size_t>(input.size(), to_skip_));
  to_skip_ -= skipped;
  if (to_skip_ > 0) return skipped;
  if (turn_away(*this, static_cast<Option>(option_))) return skipped;
  if (option_ == static_cast<uint32_t>(Option::export_name)) {
    close("asked for an export of an absurd name");  // the one option that has no error reply
  } else if (find_option(option_) == nullptr) {
    refuse(OptionReply::error_unsupported, "the server does not know this option");
  } else {
    refuse(OptionReply::error_too_big, fmt::format("an option's data is limited to {} bytes", max_option_length));
  }
  return skipped;
}

void Handshake::run_option(std::span<const std::byte> data) {
  if (turn_away(*this, static_cast<Option>(option_))) return;
  if (const OptionHandler* handler = find_option(option_)) {
    handler->handle(*this, data);
  } else {
    refuse(OptionReply::error_unsupported, "the server does not know this option");
  }
}

void Handshake::reply(OptionReply type, std::span<const std::byte> data) {
  append_be<uint64_t>(*output_, option_reply_magic);
  append_be<uint32_t>(*output_, option_);
  append_be<uint32_t>(*output_, static_cast<uint32_t>(type));
  append_be<uint32_t>(*output_, static_cast<uint32_t>(data.size()));
  output_->insert(output_->end(), data.begin(), data.end());
}

void Handshake::close(std::string_view why) {
  phase_ = Phase::closed;
  closed_because_ = fmt::format("the client {}", why);
}

void Handshake::refuse(OptionReply error, std::string_view message) {
  refused_ = {error, std::string(message)};
  reply(error, std::as_bytes(std::span(as_protocol_string(message))));
}

std::shared_ptr<const Export> Handshake::find_export(std::string_view name) {
  try {
    auto found = exports_.find(name);
    if (found) return found;
    refuse(OptionReply::error_unknown, name.empty()
                                           ? "there is no default export; list the exports for their names"
                                           : fmt::format("there is no export '{}'", printable_in_quotes(name)));
  } catch (const Error& error) {
    refuse(OptionReply::error_unknown, error.what());
  }
  return nullptr;
}

// What an attacker in between may have put in before is forgotten (CVE-2021-3716); the client's flags are not options.
void Handshake::finish_tls(std::string refusal) {
  agreement_ = {.no_zeroes = agreement_.no_zeroes};
  tls_.established = true;
  tls_.refusal = std::move(refusal);
  phase_ = Phase::negotiating;
}

void Handshake::enter_transmission(std::shared_ptr<const Export> chosen) {
  agreement_.chosen = std::move(chosen);
  phase_ = Phase::transmission;
}

uint16_t Handshake::transmission_flags(const Export& chosen) const {
  // One Disk stands behind all connections to an export, so a flush on one covers the writes of all.
  unsigned flags = transmission_has_flags | transmission_send_flush | transmission_send_fua | transmission_send_cache;
  if (chosen.multi_conn) flags |= transmission_can_multi_conn;
  flags |= chosen.writable() ? transmission_send_trim | transmission_send_write_zeroes | transmission_send_fast_zero
                             : transmission_read_only;
  if (agreement_.structured()) flags |= transmission_send_df;
  if (agreement_.extended()) flags |= transmission_block_status_payload;
  return static_cast<uint16_t>(flags);
}

}  // namespace drydock::nbd
