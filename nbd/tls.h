// SPDX-License-Identifier: GPL-3.0-or-later
//
// What a server is told about TLS, and what it knows of a client that came through it. Plain values.

#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace drydock::nbd {

enum class TlsMode : uint8_t {
  off,
  on,       // for those who ask for it
  require,  // nothing but STARTTLS and ABORT is answered without it
};

// One of the two kinds of credentials is given, unless the mode is `off`.
struct TlsOptions {
  TlsMode mode = TlsMode::off;
  // A folder with ca-cert.pem, server-cert.pem, server-key.pem and, where certificates were revoked, ca-crl.pem.
  std::string certificates;
  // Clients need a certificate that the CA has signed for clients.
  bool verify_peer = true;
  // A file of lines USER:KEY, the key in hexadecimal.
  std::string psk_file;
  // Who may come in; empty: whoever has a certificate or a key. See TlsPeer.
  std::vector<std::string> allowed;
};

// Whom TLS has shown a client to be.
struct TlsPeer {
  std::string name;                              // for people: the user of a key or the subject of a certificate
  std::vector<std::string> names;                // the user; or common names and alternative names
  std::vector<std::string> distinguished_names;  // the subject, from either end: "CN=a,O=b" and "O=b,CN=a"

  // An entry with "=" in it is a distinguished name, and never compared with what a certificate calls a plain name.
  bool is_among(const std::vector<std::string>& allowed) const;
};

}  // namespace drydock::nbd
