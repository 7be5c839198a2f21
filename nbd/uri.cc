// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/uri.h"

#include <fmt/format.h>

#include <vector>

namespace drydock::nbd {

namespace {

constexpr std::string_view plain =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/";  // RFC 3986, and the slash of paths

}  // namespace

std::string uri_encoded(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (plain.find(c) != std::string_view::npos) {
      result += c;
    } else {
      result += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return result;
}

namespace {

struct Authority {
  std::string user;
  std::string place;
};

std::string uri(std::string_view transport, const Authority& authority, std::string_view export_name,
                std::vector<std::string> query, const UriTls& tls) {
  if (!tls.certificates.empty()) query.push_back("tls-certificates=" + uri_encoded(tls.certificates));
  if (!tls.psk_file.empty()) query.push_back("tls-psk-file=" + uri_encoded(tls.psk_file));
  return fmt::format("{}{}://{}{}{}/{}{}{}", tls.used ? "nbds" : "nbd", transport, uri_encoded(authority.user),
                     authority.user.empty() ? "" : "@", authority.place, uri_encoded(export_name),
                     query.empty() ? "" : "?", fmt::join(query, "&"));
}

}  // namespace

std::string unix_uri(std::string_view export_name, std::string_view socket_path, const UriTls& tls) {
  return uri("+unix", {tls.user, ""}, export_name, {"socket=" + uri_encoded(socket_path)}, tls);
}

std::string tcp_uri(std::string_view export_name, std::string_view host, uint16_t port, const UriTls& tls) {
  const bool brackets = host.find(':') != std::string_view::npos;
  const std::string place = fmt::format("{}{}{}:{}", brackets ? "[" : "", host, brackets ? "]" : "", port);
  return uri("", {tls.user, place}, export_name, {}, tls);
}

std::string vsock_uri(std::string_view export_name, uint32_t cid, uint32_t port, const UriTls& tls) {
  return uri("+vsock", {tls.user, fmt::format("{}:{}", cid, port)}, export_name, {}, tls);
}

}  // namespace drydock::nbd
