// SPDX-License-Identifier: GPL-3.0-or-later
//
// The options of the negotiation: a table of handlers. A new option is a function and a row.

#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "nbd/handshake.h"

namespace drydock::nbd {

struct OptionHandler {
  Option option;
  // `data` is complete and at most max_option_length bytes. Answers through `handshake`.
  void (*handle)(Handshake& handshake, std::span<const std::byte> data);
};

// Null for an option that the server does not know.
const OptionHandler* find_option(uint32_t option);

// Whether `option` was answered with a refusal because the client has to use TLS first, or may not come in at all.
bool turn_away(Handshake& handshake, Option option);

void handle_starttls(Handshake& handshake, std::span<const std::byte> data);
void handle_info(Handshake& handshake, std::span<const std::byte> data);
void handle_go(Handshake& handshake, std::span<const std::byte> data);
void handle_list_meta_context(Handshake& handshake, std::span<const std::byte> data);
void handle_set_meta_context(Handshake& handshake, std::span<const std::byte> data);

}  // namespace drydock::nbd
