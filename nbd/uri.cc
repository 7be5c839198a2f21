// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/uri.h"

#include <fmt/format.h>

namespace drydock::nbd {

namespace {

constexpr std::string_view plain =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/";  // RFC 3986, and the slash of paths

std::string encoded(std::string_view text) {
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

}  // namespace

std::string unix_uri(std::string_view export_name, std::string_view socket_path) {
  return fmt::format("nbd+unix:///{}?socket={}", encoded(export_name), encoded(socket_path));
}

std::string tcp_uri(std::string_view export_name, std::string_view host, uint16_t port) {
  const bool brackets = host.find(':') != std::string_view::npos;
  return fmt::format("nbd://{}{}{}:{}/{}", brackets ? "[" : "", host, brackets ? "]" : "", port, encoded(export_name));
}

}  // namespace drydock::nbd
