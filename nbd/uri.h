// SPDX-License-Identifier: GPL-3.0-or-later
//
// NBD URIs (https://github.com/NetworkBlockDevice/nbd, doc/uri.md). Pure functions.

#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace drydock::nbd {

// What a URI tells clients of TLS: that they have to use it, and where this machine has what they need for it.
struct UriTls {
  bool used = false;
  std::string user = {};          // of a key
  std::string certificates = {};  // a folder
  std::string psk_file = {};
};

// Percent-encoded but for letters, digits, "-._~" and "/".
std::string uri_encoded(std::string_view text);
// nbd+unix:///NAME?socket=PATH
std::string unix_uri(std::string_view export_name, std::string_view socket_path, const UriTls& tls = {});
// nbd://HOST:PORT/NAME; an IPv6 address gets its brackets.
std::string tcp_uri(std::string_view export_name, std::string_view host, uint16_t port, const UriTls& tls = {});
// nbd+vsock://CID:PORT/NAME
std::string vsock_uri(std::string_view export_name, uint32_t cid, uint32_t port, const UriTls& tls = {});

}  // namespace drydock::nbd
