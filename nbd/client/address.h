// SPDX-License-Identifier: GPL-3.0-or-later
//
// Address: the server and the export that an NBD URI names (https://github.com/NetworkBlockDevice/nbd, doc/uri.md).
//
//     nbd://HOST[:PORT]/EXPORT            nbds://  the same with TLS
//     nbd+unix:///EXPORT?socket=PATH      nbds+unix://
//     nbd+vsock://CID[:PORT]/EXPORT       nbds+vsock://
//
// With TLS: nbds://USER@HOST, tls-certificates=DIR and tls-psk-file=FILE in the query. QEMU's nbd+tcp:// is nbd://, and
// its older nbd:HOST:PORT[:exportname=EXPORT] and nbd:unix:PATH[:exportname=EXPORT] are understood.
//
// URIs are parsed here alone, and connections are made from the fields: what was allowed is what is connected to.
// Pure functions.

#pragma once

#include <cstdint>
#include <string>

namespace drydock::nbd {

inline constexpr uint16_t default_port = 10809;  // registered with IANA

enum class Transport { tcp, unix_socket, vsock };

struct Address {
  Transport transport = Transport::tcp;
  bool tls = false;
  std::string user;              // for TLS
  std::string host;              // of vsock: the CID
  uint32_t port = default_port;  // of TCP 16 bits
  std::string socket;            // path
  std::string export_name;
  std::string tls_certificates;  // folder
  std::string tls_psk_file;

  bool operator==(const Address&) const = default;
};

// Throws invalid for what is no NBD URI.
Address parse_address(const std::string& uri);

// The URI in the form in which QEMU tells of it: with the port, without a slash where there is no export. Without what
// concerns TLS's keys.
std::string to_uri(const Address& address);

// The same with them: what parse_address() makes the same address of.
std::string to_uri_with_keys(const Address& address);

// Where the server listens, for messages: "localhost:10809", "/run/nbd.sock".
std::string place_of(const Address& address);

// Whether both name the same server by the same words, with TLS or without. Names are not looked up.
bool same_server(const Address& a, const Address& b);

}  // namespace drydock::nbd
