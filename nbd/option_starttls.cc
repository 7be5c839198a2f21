// SPDX-License-Identifier: GPL-3.0-or-later
//
// NBD_OPT_STARTTLS, and what the other options get before it is through, where TLS is required, and after it, where
// TLS has shown that the client may not come in.

#include "nbd/options.h"

namespace drydock::nbd {

void handle_starttls(Handshake& handshake, std::span<const std::byte> data) {
  if (!data.empty()) {
    handshake.refuse(OptionReply::error_invalid, "NBD_OPT_STARTTLS takes no data");
  } else if (handshake.tls().established) {
    handshake.refuse(OptionReply::error_invalid, "TLS is in use already");
  } else if (handshake.tls().mode == TlsMode::off) {
    handshake.refuse(OptionReply::error_unsupported, "the server offers no TLS");
  } else {
    handshake.reply(OptionReply::ack);
    handshake.start_tls();
  }
}

bool turn_away(Handshake& handshake, Option option) {
  const TlsState& tls = handshake.tls();
  if (option == Option::abort) return false;
  const bool required = tls.mode == TlsMode::require && !tls.established && option != Option::starttls;
  if (!required && tls.refusal.empty()) return false;
  if (option == Option::export_name) {
    handshake.close(required ? "asked for an export without TLS"
                             : "is not allowed in here");  // this option has no error reply
  } else if (required) {
    handshake.refuse(OptionReply::error_tls_required, "the server talks to clients that use TLS only");
  } else {
    handshake.refuse(OptionReply::error_policy, tls.refusal);
  }
  return true;
}

}  // namespace drydock::nbd
