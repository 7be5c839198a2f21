// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/tls_credentials.h"

#include <gnutls/crypto.h>
#include <gnutls/x509.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <new>

#include "src/error.h"

namespace drydock::nbd {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view client_purpose = GNUTLS_KP_TLS_WWW_CLIENT;
constexpr const char* certificate_priority = "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:-RSA";
constexpr const char* psk_priority = "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:-KX-ALL:+ECDHE-PSK:+DHE-PSK";

// Bytes of a key; psktool makes 32 and allows 64.
constexpr size_t max_key_size = 512;

void check_memory(int result) {
  if (result < 0) throw std::bad_alloc();
}

// gnutls_free() is a variable, which no template takes.
struct DatumDeleter {
  void operator()(unsigned char* data) const { gnutls_free(data); }
};

std::string take_text(const gnutls_datum_t& datum) {
  const std::unique_ptr<unsigned char, DatumDeleter> owner(datum.data);
  return {reinterpret_cast<const char*>(datum.data), datum.size};
}

// A missing file is the system's to name; GnuTLS calls every one an "error while reading".
void check_readable(const fs::path& path) {
  errno = 0;
  const std::ifstream file(path);
  if (!file) throw system_error(errno != 0 ? errno : EIO, printable(path.string()));
}

void check_loaded(int result, const fs::path& path, std::string_view what) {
  if (result < 0) {
    throw Error(ErrorKind::usage, fmt::format("{}: {}, for TLS, was expected: {}", printable(path.string()), what,
                                              tls_error_text(result)));
  }
}

std::string from_hexadecimal(std::string_view text) {
  std::string bytes(text.size() / 2, '\0');
  size_t size = bytes.size();
  const int result = gnutls_hex2bin(text.data(), text.size(), bytes.data(), &size);
  return result < 0 || text.size() % 2 != 0 || size != bytes.size() ? std::string() : bytes;
}

using Certificate = GnuTlsOwned<gnutls_x509_crt_t, gnutls_x509_crt_deinit>;

Certificate certificate_of(gnutls_session_t session) {
  unsigned count = 0;
  const gnutls_datum_t* chain = gnutls_certificate_get_peers(session, &count);
  gnutls_x509_crt_t made = nullptr;
  if (chain == nullptr || count == 0) return nullptr;
  check_memory(gnutls_x509_crt_init(&made));
  Certificate certificate(made);
  // It was parsed once already, for its verification.
  return gnutls_x509_crt_import(made, chain, GNUTLS_X509_FMT_DER) < 0 ? nullptr : std::move(certificate);
}

// RFC 4514 starts with the last part of the name; older programs, QEMU among them, with the first.
std::vector<std::string> distinguished_names_of(gnutls_x509_crt_t certificate) {
  std::vector<std::string> names;
  gnutls_datum_t name{};
  if (gnutls_x509_crt_get_dn3(certificate, &name, 0) >= 0) names.push_back(take_text(name));
  if (gnutls_x509_crt_get_dn3(certificate, &name, GNUTLS_X509_DN_FLAG_COMPAT) >= 0) names.push_back(take_text(name));
  return names;
}

std::vector<std::string> plain_names_of(gnutls_x509_crt_t certificate) {
  std::vector<std::string> names;
  std::array<char, 1024> text{};
  int result = 0;
  for (unsigned i = 0; result >= 0; ++i) {
    size_t size = text.size();
    result = gnutls_x509_crt_get_dn_by_oid(certificate, GNUTLS_OID_X520_COMMON_NAME, i, 0, text.data(), &size);
    if (result >= 0) names.emplace_back(text.data(), size);
  }
  result = 0;
  for (unsigned i = 0; result >= 0; ++i) {
    size_t size = text.size();
    result = gnutls_x509_crt_get_subject_alt_name(certificate, i, text.data(), &size, nullptr);
    const bool is_text = result == GNUTLS_SAN_DNSNAME || result == GNUTLS_SAN_RFC822NAME || result == GNUTLS_SAN_URI;
    if (is_text) names.emplace_back(text.data(), size);
  }
  return names;
}

}  // namespace

std::string tls_error_text(int error) { return gnutls_strerror(error); }

bool TlsPeer::is_among(const std::vector<std::string>& allowed) const {
  return std::ranges::any_of(allowed, [this](const std::string& entry) {
    const auto& own = entry.find('=') == std::string::npos ? names : distinguished_names;
    return std::ranges::find(own, entry) != own.end();
  });
}

TlsCredentials::TlsCredentials(const TlsOptions& options) : verify_peer_(options.verify_peer) {
  purpose_.type = GNUTLS_DT_KEY_PURPOSE_OID;
  purpose_.data = reinterpret_cast<unsigned char*>(const_cast<char*>(client_purpose.data()));
  if (options.psk_file.empty()) {
    load_certificates(options.certificates);
  } else {
    load_keys(options.psk_file);
  }
  gnutls_priority_t priority = nullptr;
  const int result = gnutls_priority_init(&priority, psk_ ? psk_priority : certificate_priority, nullptr);
  priority_.reset(priority);
  if (result < 0) throw Error(ErrorKind::io, fmt::format("GnuTLS offers no TLS here: {}", tls_error_text(result)));
}

void TlsCredentials::load_certificates(const std::string& folder) {
  gnutls_certificate_credentials_t made = nullptr;
  check_memory(gnutls_certificate_allocate_credentials(&made));
  certificates_.reset(made);
  const fs::path certificate = fs::path(folder) / "server-cert.pem";
  const fs::path key = fs::path(folder) / "server-key.pem";
  check_readable(certificate);
  check_readable(key);
  check_loaded(gnutls_certificate_set_x509_key_file(made, certificate.c_str(), key.c_str(), GNUTLS_X509_FMT_PEM),
               certificate, "a certificate, and beside it the key that belongs to it");
  if (!verify_peer_) return;
  const fs::path authority = fs::path(folder) / "ca-cert.pem";
  check_readable(authority);
  int loaded = gnutls_certificate_set_x509_trust_file(made, authority.c_str(), GNUTLS_X509_FMT_PEM);
  if (loaded == 0) loaded = GNUTLS_E_NO_CERTIFICATE_FOUND;
  check_loaded(loaded, authority, "the certificate of the authority that signs clients' certificates");
  const fs::path revoked = fs::path(folder) / "ca-crl.pem";
  if (!fs::exists(revoked)) return;
  check_readable(revoked);
  check_loaded(gnutls_certificate_set_x509_crl_file(made, revoked.c_str(), GNUTLS_X509_FMT_PEM), revoked,
               "a list of revoked certificates");
}

void TlsCredentials::load_keys(const std::string& path) {
  check_readable(path);
  std::ifstream file(path);
  size_t number = 0;
  for (std::string line; std::getline(file, line);) {
    ++number;
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.empty() || line.front() == '#') continue;
    const size_t colon = line.find(':');
    const std::string key =
        colon == std::string::npos ? "" : from_hexadecimal(std::string_view(line).substr(colon + 1));
    if (colon == 0 || key.empty() || key.size() > max_key_size) {
      // The line is not shown: it may hold a key.
      throw Error(ErrorKind::usage,
                  fmt::format("{}: line {} is not a user, a colon, and a key in hexadecimal", printable(path), number));
    }
    keys_.emplace(line.substr(0, colon), key);
  }
  if (keys_.empty()) throw Error(ErrorKind::usage, fmt::format("{}: there is no key in it", printable(path)));
  gnutls_psk_server_credentials_t made = nullptr;
  check_memory(gnutls_psk_allocate_server_credentials(&made));
  psk_.reset(made);
  gnutls_psk_set_server_credentials_function(made, find_key);
}

UriTls TlsCredentials::uri_hints(const TlsOptions& options) const {
  UriTls hints{.used = true};
  if (psk_) {
    hints.psk_file = fs::absolute(options.psk_file).lexically_normal().string();
    if (keys_.size() == 1) hints.user = keys_.begin()->first;
    if (options.allowed.size() == 1) hints.user = options.allowed.front();
    return hints;
  }
  const fs::path folder = fs::absolute(options.certificates).lexically_normal();
  const bool has_what_clients_need = fs::exists(folder / "client-cert.pem") || !verify_peer_;
  if (has_what_clients_need) hints.certificates = folder.string();
  return hints;
}

// An unknown user gets a key that nobody has: to fail in the same way, so that nobody finds out who is known.
int TlsCredentials::find_key(gnutls_session_t session, const char* user, gnutls_datum_t* key) {
  const auto* credentials = static_cast<const TlsCredentials*>(gnutls_session_get_ptr(session));
  const auto found = credentials->keys_.find(user);
  const bool known = found != credentials->keys_.end();
  const size_t size = known ? found->second.size() : size_t{32};
  key->data = static_cast<unsigned char*>(gnutls_malloc(size));
  if (key->data == nullptr) return -1;
  key->size = static_cast<unsigned>(size);
  if (!known) return gnutls_rnd(GNUTLS_RND_KEY, key->data, size);
  std::memcpy(key->data, found->second.data(), size);
  return 0;
}

TlsSession TlsCredentials::new_session() const {
  gnutls_session_t made = nullptr;
  // Nothing of a session outlives it: without tickets every client is verified each time.
  check_memory(gnutls_init(&made, GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL | GNUTLS_NO_TICKETS));
  TlsSession session(made);
  // Only find_key() reads through it.
  gnutls_session_set_ptr(made, const_cast<TlsCredentials*>(this));
  check_memory(gnutls_priority_set(made, priority_.get()));
  if (psk_) {
    check_memory(gnutls_credentials_set(made, GNUTLS_CRD_PSK, psk_.get()));
    return session;
  }
  check_memory(gnutls_credentials_set(made, GNUTLS_CRD_CERTIFICATE, certificates_.get()));
  gnutls_certificate_server_set_request(made, verify_peer_ ? GNUTLS_CERT_REQUIRE : GNUTLS_CERT_IGNORE);
  if (verify_peer_) {
    gnutls_session_set_verify_cert2(made, const_cast<gnutls_typed_vdata_st*>(&purpose_), 1, 0);
  }
  return session;
}

TlsPeer TlsCredentials::peer_of(gnutls_session_t session) const {
  TlsPeer peer;
  if (psk_) {
    const char* user = gnutls_psk_server_get_username(session);
    peer.name = user == nullptr ? "" : user;
    peer.names = {peer.name};
    return peer;
  }
  if (!verify_peer_) return peer;
  const Certificate certificate = certificate_of(session);
  if (!certificate) return peer;
  peer.names = plain_names_of(certificate.get());
  peer.distinguished_names = distinguished_names_of(certificate.get());
  if (!peer.distinguished_names.empty()) peer.name = peer.distinguished_names.front();
  return peer;
}

}  // namespace drydock::nbd
