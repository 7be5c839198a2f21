// SPDX-License-Identifier: GPL-3.0-or-later
//
// The server's side of TLS: its certificate or its clients' keys, read once, and the rules by which sessions are made.
// TLS 1.2 and 1.3 only, and only key exchanges whose traffic stays secret when a key becomes known later.
//
// Thread-safety: all of it, once made. Ownership: outlives its sessions.
// Errors: usage for files without what is needed in them; not_found and io as the system says.

#pragma once

#include <gnutls/gnutls.h>

#include <memory>
#include <string>
#include <type_traits>
#include <unordered_map>

#include "nbd/tls.h"
#include "nbd/uri.h"

namespace drydock::nbd {

template <auto free_function>
struct GnuTlsDeleter {
  template <class T>
  void operator()(T* owned) const {
    free_function(owned);
  }
};
template <class Handle, auto free_function>
using GnuTlsOwned = std::unique_ptr<std::remove_pointer_t<Handle>, GnuTlsDeleter<free_function>>;

using TlsSession = GnuTlsOwned<gnutls_session_t, gnutls_deinit>;

class TlsCredentials {
 public:
  explicit TlsCredentials(const TlsOptions& options);

  // What clients on this machine need to know; `allowed` as in TlsOptions.
  UriTls uri_hints(const TlsOptions& options) const;

  // A session that waits for its client's hello, without a way to move bytes. Throws bad_alloc.
  TlsSession new_session() const;
  // After the handshake.
  TlsPeer peer_of(gnutls_session_t session) const;

 private:
  void load_certificates(const std::string& folder);
  void load_keys(const std::string& path);
  static int find_key(gnutls_session_t session, const char* user, gnutls_datum_t* key);

  const bool verify_peer_;
  gnutls_typed_vdata_st purpose_{};  // what clients' certificates have to be for; sessions point to it
  GnuTlsOwned<gnutls_certificate_credentials_t, gnutls_certificate_free_credentials> certificates_;
  GnuTlsOwned<gnutls_psk_server_credentials_t, gnutls_psk_free_server_credentials> psk_;
  GnuTlsOwned<gnutls_priority_t, gnutls_priority_deinit> priority_;
  std::unordered_map<std::string, std::string> keys_;  // of users, as bytes
};

// What GnuTLS means by a negative number, in one line.
std::string tls_error_text(int error);

}  // namespace drydock::nbd
