// SPDX-License-Identifier: GPL-3.0-or-later
//
// TLS as QEMU's programs are told of it: --object describes credentials and authorisation, --tls-creds and --tls-authz
// choose among them.

#pragma once

#include <optional>

#include "nbd/tls.h"
#include "tools/cli.h"

namespace drydock::cli {

// Rows: --tls-creds, --tls-authz, --tls-hostname.
std::vector<OptionSpec> tls_object_options();

// What a server is to do; nothing without --tls-creds. Throws invalid for an object that is not there or not for
// servers, unsupported for kinds of them that are not known here.
std::optional<nbd::TlsOptions> server_tls_of_objects(const ParsedOptions& words);

// What a client needs.
struct ClientTls {
  std::string certificates;  // a folder; or
  std::string psk_file;
  std::string user;  // of the key; empty: the process's own
  bool verify_peer = true;
};
std::optional<ClientTls> client_tls_of_objects(const ParsedOptions& words);
// Of the object `id`.
ClientTls client_tls_of_object(const ParsedOptions& words, const std::string& id);

}  // namespace drydock::cli
