// SPDX-License-Identifier: GPL-3.0-or-later

#include "tests/nbd/test_authority.h"

#include <ctime>
#include <filesystem>
#include <stdexcept>

#include "tests/support/support.h"

namespace drydock::nbd {

namespace {

constexpr time_t day = 24L * 60 * 60;

void check(int result) {
  if (result < 0) throw std::runtime_error(tls_error_text(result));
}

std::string text_of(const gnutls_datum_t& datum) {
  std::string text(reinterpret_cast<const char*>(datum.data), datum.size);
  gnutls_free(datum.data);
  return text;
}

TestKey new_key() {
  gnutls_x509_privkey_t made = nullptr;
  check(gnutls_x509_privkey_init(&made));
  TestKey key(made);
  check(gnutls_x509_privkey_generate(made, GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0));
  return key;
}

TestCertificate new_certificate(gnutls_x509_privkey_t key, unsigned char serial, const std::string& common_name) {
  gnutls_x509_crt_t made = nullptr;
  check(gnutls_x509_crt_init(&made));
  TestCertificate certificate(made);
  check(gnutls_x509_crt_set_version(made, 3));
  check(gnutls_x509_crt_set_serial(made, &serial, sizeof serial));
  check(gnutls_x509_crt_set_activation_time(made, std::time(nullptr) - 2 * day));
  check(gnutls_x509_crt_set_expiration_time(made, std::time(nullptr) + day));
  check(gnutls_x509_crt_set_dn_by_oid(made, GNUTLS_OID_X520_COMMON_NAME, 0, common_name.data(),
                                      static_cast<unsigned>(common_name.size())));
  check(gnutls_x509_crt_set_key(made, key));
  return certificate;
}

void write_certificate(gnutls_x509_crt_t certificate, const std::string& path) {
  gnutls_datum_t text{};
  check(gnutls_x509_crt_export2(certificate, GNUTLS_X509_FMT_PEM, &text));
  test::write_file(path, text_of(text));
}

}  // namespace

TestAuthority::TestAuthority() : key_(new_key()), certificate_(new_certificate(key_.get(), serial_, "test authority")) {
  check(gnutls_x509_crt_set_basic_constraints(certificate_.get(), 1, -1));
  check(gnutls_x509_crt_set_key_usage(certificate_.get(), GNUTLS_KEY_KEY_CERT_SIGN | GNUTLS_KEY_CRL_SIGN));
  check(gnutls_x509_crt_sign2(certificate_.get(), certificate_.get(), key_.get(), GNUTLS_DIG_SHA256, 0));
}

void TestAuthority::issue(const std::string& folder, const Subject& subject) {
  const TestKey key = new_key();
  last_ = new_certificate(key.get(), ++serial_, subject.common_name);
  gnutls_x509_crt_t made = last_.get();
  if (!subject.organization.empty()) {
    check(gnutls_x509_crt_set_dn_by_oid(made, GNUTLS_OID_X520_ORGANIZATION_NAME, 0, subject.organization.data(),
                                        static_cast<unsigned>(subject.organization.size())));
  }
  if (!subject.alternative_name.empty()) {
    check(gnutls_x509_crt_set_subject_alt_name(made, GNUTLS_SAN_DNSNAME, subject.alternative_name.data(),
                                               static_cast<unsigned>(subject.alternative_name.size()), 0));
  }
  if (subject.expired) check(gnutls_x509_crt_set_expiration_time(made, std::time(nullptr) - day));
  check(gnutls_x509_crt_set_key_usage(made, GNUTLS_KEY_DIGITAL_SIGNATURE));
  check(gnutls_x509_crt_set_key_purpose_oid(
      made, subject.for_clients ? GNUTLS_KP_TLS_WWW_CLIENT : GNUTLS_KP_TLS_WWW_SERVER, 0));
  check(gnutls_x509_crt_sign2(made, certificate_.get(), key_.get(), GNUTLS_DIG_SHA256, 0));

  std::filesystem::create_directories(folder);
  const std::string prefix = folder + (subject.for_clients ? "/client" : "/server");
  write_certificate(certificate_.get(), folder + "/ca-cert.pem");
  write_certificate(made, prefix + "-cert.pem");
  gnutls_datum_t text{};
  check(gnutls_x509_privkey_export2(key.get(), GNUTLS_X509_FMT_PEM, &text));
  test::write_file(prefix + "-key.pem", text_of(text));
}

void TestAuthority::revoke_last(const std::string& folder) {
  gnutls_x509_crl_t made = nullptr;
  check(gnutls_x509_crl_init(&made));
  const GnuTlsOwned<gnutls_x509_crl_t, gnutls_x509_crl_deinit> list(made);
  check(gnutls_x509_crl_set_version(made, 2));
  check(gnutls_x509_crl_set_this_update(made, std::time(nullptr) - day));
  check(gnutls_x509_crl_set_next_update(made, std::time(nullptr) + day));
  check(gnutls_x509_crl_set_crt(made, last_.get(), std::time(nullptr) - day));
  check(gnutls_x509_crl_sign2(made, certificate_.get(), key_.get(), GNUTLS_DIG_SHA256, 0));
  gnutls_datum_t text{};
  check(gnutls_x509_crl_export2(made, GNUTLS_X509_FMT_PEM, &text));
  test::write_file(folder + "/ca-crl.pem", text_of(text));
}

}  // namespace drydock::nbd
