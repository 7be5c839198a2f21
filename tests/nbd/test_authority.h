// SPDX-License-Identifier: GPL-3.0-or-later
//
// A certificate authority for tests: certificates in the files that qemu, nbdkit and libnbd look for in a folder.

#pragma once

#include <gnutls/x509.h>

#include <string>
#include <vector>

#include "nbd/tls_credentials.h"

namespace drydock::nbd {

using TestKey = GnuTlsOwned<gnutls_x509_privkey_t, gnutls_x509_privkey_deinit>;
using TestCertificate = GnuTlsOwned<gnutls_x509_crt_t, gnutls_x509_crt_deinit>;

class TestAuthority {
 public:
  TestAuthority();

  struct Subject {
    std::string common_name;
    std::string organization = {};
    std::string alternative_name = {};  // a host name
    bool for_clients = false;           // else for servers
    bool expired = false;
  };
  // Makes `folder` with ca-cert.pem and a certificate and its key, client-... or server-cert.pem and -key.pem.
  void issue(const std::string& folder, const Subject& subject);
  // ca-crl.pem in `folder`, with the last certificate issued in it.
  void revoke_last(const std::string& folder);

 private:
  unsigned char serial_ = 1;
  TestKey key_;
  TestCertificate certificate_;
  TestCertificate last_;
};

}  // namespace drydock::nbd
