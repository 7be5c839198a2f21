// SPDX-License-Identifier: GPL-3.0-or-later
//
// A RawClient that goes on over TLS.

#pragma once

#include "nbd/tls_credentials.h"
#include "tests/nbd/raw_client.h"

namespace drydock::nbd {

// Whom a client claims to be.
struct TlsIdentity {
  std::string certificates = {};  // a folder; with client-cert.pem in it, that is shown
  std::string user = {};          // of a key
  std::string key = {};           // in hexadecimal
  std::string priority = "NORMAL";
};

class TlsClient : public RawClient {
 public:
  // Connects, and stays in the clear until start_tls() or shake_hands().
  using RawClient::RawClient;

  // NBD_OPT_STARTTLS and the handshake.
  void start_tls(const TlsIdentity& identity);
  // The handshake alone; throws std::runtime_error when it fails. The server verdict on a certificate comes only with
  // what is received next, in TLS 1.3.
  void shake_hands(const TlsIdentity& identity);
  // TLS 1.3: new keys for both sides.
  void update_keys();
  gnutls_session_t session() { return session_.get(); }

  void send(std::span<const std::byte> bytes) override;
  Bytes receive(size_t count) override;
  // Whether the server has hung up, however it did so.
  bool is_closed() override;
  // Whether it ended TLS as one should.
  bool heard_goodbye();

 private:
  GnuTlsOwned<gnutls_certificate_credentials_t, gnutls_certificate_free_credentials> certificates_;
  GnuTlsOwned<gnutls_psk_client_credentials_t, gnutls_psk_free_client_credentials> psk_;
  TlsSession session_;
};

}  // namespace drydock::nbd
