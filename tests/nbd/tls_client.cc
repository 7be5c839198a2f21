// SPDX-License-Identifier: GPL-3.0-or-later

#include "tests/nbd/tls_client.h"

#include <filesystem>
#include <stdexcept>

namespace drydock::nbd {

namespace {

int check_tls(int result) {
  if (result < 0) throw std::runtime_error(tls_error_text(result));
  return result;
}

}  // namespace

void TlsClient::start_tls(const TlsIdentity& identity) {
  if (verdict(Option::starttls) != OptionReply::ack) throw std::runtime_error("STARTTLS was refused");
  shake_hands(identity);
}

void TlsClient::shake_hands(const TlsIdentity& identity) {
  gnutls_session_t made = nullptr;
  check_tls(gnutls_init(&made, GNUTLS_CLIENT | GNUTLS_NO_SIGNAL));
  TlsSession session(made);
  check_tls(gnutls_priority_set_direct(made, identity.priority.c_str(), nullptr));
  if (identity.user.empty()) {
    gnutls_certificate_credentials_t credentials = nullptr;
    check_tls(gnutls_certificate_allocate_credentials(&credentials));
    certificates_.reset(credentials);
    const std::string own = identity.certificates + "/client-cert.pem";
    if (std::filesystem::exists(own)) {
      check_tls(gnutls_certificate_set_x509_key_file(
          credentials, own.c_str(), (identity.certificates + "/client-key.pem").c_str(), GNUTLS_X509_FMT_PEM));
    }
    check_tls(gnutls_credentials_set(made, GNUTLS_CRD_CERTIFICATE, credentials));
  } else {
    gnutls_psk_client_credentials_t credentials = nullptr;
    check_tls(gnutls_psk_allocate_client_credentials(&credentials));
    psk_.reset(credentials);
    std::string key = identity.key;
    const gnutls_datum_t datum{reinterpret_cast<unsigned char*>(key.data()), static_cast<unsigned>(key.size())};
    check_tls(gnutls_psk_set_client_credentials(credentials, identity.user.c_str(), &datum, GNUTLS_PSK_KEY_HEX));
    check_tls(gnutls_credentials_set(made, GNUTLS_CRD_PSK, credentials));
  }
  gnutls_transport_set_int(made, descriptor());
  int result = 0;
  do {
    result = gnutls_handshake(made);
  } while (result < 0 && gnutls_error_is_fatal(result) == 0);
  check_tls(result);
  session_ = std::move(session);
}

void TlsClient::update_keys() { check_tls(gnutls_session_key_update(session_.get(), GNUTLS_KU_PEER)); }

void TlsClient::send(std::span<const std::byte> bytes) {
  if (!session_) return RawClient::send(bytes);
  while (!bytes.empty()) {
    const ssize_t sent = gnutls_record_send(session_.get(), bytes.data(), bytes.size());
    check_tls(static_cast<int>(sent));
    bytes = bytes.subspan(static_cast<size_t>(sent));
  }
}

Bytes TlsClient::receive(size_t count) {
  if (!session_) return RawClient::receive(count);
  Bytes bytes(count);
  size_t done = 0;
  int patience = 3;  // one for the keys that may come in between; the last is the socket's time limit
  while (done < count) {
    const ssize_t got = gnutls_record_recv(session_.get(), bytes.data() + done, count - done);
    if ((got == GNUTLS_E_AGAIN || got == GNUTLS_E_INTERRUPTED) && --patience > 0) continue;
    if (got == 0) throw std::runtime_error("the server hung up");
    done += static_cast<size_t>(check_tls(static_cast<int>(got)));
  }
  return bytes;
}

bool TlsClient::is_closed() {
  if (!session_) return RawClient::is_closed();
  std::byte byte{};
  const ssize_t got = gnutls_record_recv(session_.get(), &byte, 1);
  return got == 0 || (got < 0 && gnutls_error_is_fatal(static_cast<int>(got)) != 0);
}

bool TlsClient::heard_goodbye() {
  std::byte byte{};
  return gnutls_record_recv(session_.get(), &byte, 1) == 0;
}

}  // namespace drydock::nbd
