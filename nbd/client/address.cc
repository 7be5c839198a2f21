// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/client/address.h"

#include <algorithm>
#include <charconv>
#include <string_view>

#include "nbd/uri.h"
#include "src/error.h"

namespace drydock::nbd {

namespace {

// doc/proto.md, "Values": strings are at most 4096 bytes long.
constexpr size_t max_export_name = 4096;

constexpr std::string_view schemes = "the schemes are nbd, nbds, nbd+unix, nbds+unix, nbd+vsock and nbds+vsock";

[[noreturn]] void invalid(const std::string& uri, std::string_view why) {
  throw Error(ErrorKind::invalid, fmt::format("{}: No valid URL specified: {}", printable(uri), why));
}

// A NUL would end the string for those behind us.
std::string decoded(const std::string& uri, std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      result += text[i];
      continue;
    }
    unsigned value = 0;
    const char* const digits = text.data() + i + 1;
    if (i + 2 >= text.size() || std::from_chars(digits, digits + 2, value, 16).ptr != digits + 2 || value == 0) {
      invalid(uri, "a percent sign is followed by two hexadecimal digits, which are not 00");
    }
    result += static_cast<char>(value);
    i += 2;
  }
  if (result.find('\0') != std::string::npos) invalid(uri, "it has a NUL in it");
  return result;
}

void set_scheme(const std::string& uri, std::string_view scheme, Address& address) {
  if (!scheme.starts_with("nbd")) invalid(uri, schemes);
  std::string_view rest = scheme.substr(3);
  if (rest.starts_with('s')) {
    address.tls = true;
    rest.remove_prefix(1);
  }
  if (rest == "+unix") {
    address.transport = Transport::unix_socket;
  } else if (rest == "+vsock") {
    address.transport = Transport::vsock;
  } else if (!rest.empty() && rest != "+tcp") {
    invalid(uri, schemes);
  }
}

uint32_t parse_port(const std::string& uri, std::string_view text, Transport transport) {
  const uint32_t most = transport == Transport::vsock ? UINT32_MAX : UINT16_MAX;
  uint32_t port = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (failure != std::errc() || end != text.data() + text.size() || port == 0 || port > most) {
    invalid(uri, fmt::format("a port is a number from 1 to {}", most));
  }
  return port;
}

void set_authority(const std::string& uri, std::string_view authority, Address& address) {
  if (const size_t at = authority.rfind('@'); at != std::string_view::npos) {
    address.user = decoded(uri, authority.substr(0, at));
    authority.remove_prefix(at + 1);
  }
  if (address.transport == Transport::unix_socket) {
    if (!authority.empty()) invalid(uri, "with +unix there is no host, but ?socket=PATH");
    return;
  }
  const size_t bracket = authority.starts_with('[') ? authority.find(']') : std::string_view::npos;
  const size_t colon = authority.find(':', bracket == std::string_view::npos ? 0 : bracket);
  std::string_view host = authority.substr(0, colon);
  if (bracket != std::string_view::npos) {
    if (host.size() != bracket + 1) invalid(uri, "after the address in brackets comes a colon, or nothing");
    host = host.substr(1, bracket - 1);
  }
  if (colon != std::string_view::npos && colon + 1 < authority.size()) {
    address.port = parse_port(uri, authority.substr(colon + 1), address.transport);
  }
  address.host = decoded(uri, host);
  if (address.host.empty()) address.host = address.transport == Transport::vsock ? "2" : "localhost";
}

void set_query(const std::string& uri, std::string_view query, Address& address) {
  while (!query.empty()) {
    const size_t end = std::min(query.find_first_of("&;"), query.size());
    const std::string_view word = query.substr(0, end);
    query.remove_prefix(std::min(end + 1, query.size()));
    const size_t equals = std::min(word.find('='), word.size());
    const std::string_view name = word.substr(0, equals);
    const std::string value = decoded(uri, word.substr(std::min(equals + 1, word.size())));
    if (name == "socket" && address.transport == Transport::unix_socket) {
      address.socket = value;
    } else if (name == "tls-certificates" && address.tls) {
      address.tls_certificates = value;
    } else if (name == "tls-psk-file" && address.tls) {
      address.tls_psk_file = value;
    } else {
      invalid(uri, fmt::format("'{}' does not belong there", printable(name)));
    }
  }
}

void check(const std::string& uri, const Address& address) {
  if (address.transport == Transport::unix_socket && address.socket.empty()) invalid(uri, "?socket=PATH is missing");
  if (address.export_name.size() > max_export_name) {
    invalid(uri, fmt::format("the name of an export has at most {} bytes", max_export_name));
  }
}

// nbd:HOST:PORT[:exportname=NAME], nbd:unix:PATH[:exportname=NAME]; nothing in it is encoded.
Address parse_old_form(const std::string& uri) {
  constexpr std::string_view name_word = ":exportname=";
  Address address;
  std::string_view rest = std::string_view(uri).substr(4);
  if (const size_t name = rest.find(name_word); name != std::string_view::npos) {
    address.export_name = rest.substr(name + name_word.size());
    rest = rest.substr(0, name);
  }
  if (rest.starts_with("unix:")) {
    address.transport = Transport::unix_socket;
    address.socket = rest.substr(5);
  } else {
    set_authority(uri, rest, address);
  }
  return address;
}

}  // namespace

Address parse_address(const std::string& uri) {
  if (uri.find('\0') != std::string::npos) invalid(uri, "it has a NUL in it");
  Address address;
  const size_t colon = uri.find("://");
  if (colon == std::string::npos && uri.starts_with("nbd:")) {
    address = parse_old_form(uri);
    check(uri, address);
    return address;
  }
  if (colon == std::string::npos) invalid(uri, "it begins with nbd:// or one of its kin");
  set_scheme(uri, std::string_view(uri).substr(0, colon), address);
  std::string_view rest = std::string_view(uri).substr(colon + 3);
  rest = rest.substr(0, rest.find('#'));
  const size_t question = std::min(rest.find('?'), rest.size());
  const std::string_view query = rest.substr(std::min(question + 1, rest.size()));
  rest = rest.substr(0, question);
  const size_t slash = std::min(rest.find('/'), rest.size());
  set_authority(uri, rest.substr(0, slash), address);
  address.export_name = decoded(uri, rest.substr(std::min(slash + 1, rest.size())));
  set_query(uri, query, address);
  check(uri, address);
  return address;
}

std::string to_uri(const Address& address) {
  const std::string scheme = address.tls ? "nbds" : "nbd";
  const std::string path = address.export_name.empty() ? "" : "/" + uri_encoded(address.export_name);
  switch (address.transport) {
    case Transport::unix_socket:
      return fmt::format("{}+unix://{}?socket={}", scheme, path, uri_encoded(address.socket));
    case Transport::vsock:
      return fmt::format("{}+vsock://{}:{}{}", scheme, uri_encoded(address.host), address.port, path);
    case Transport::tcp:
      break;
  }
  const bool brackets = address.host.find(':') != std::string::npos;
  const std::string host = brackets ? fmt::format("[{}]", address.host) : uri_encoded(address.host);
  return fmt::format("{}://{}:{}{}", scheme, host, address.port, path);
}

std::string to_uri_with_keys(const Address& address) {
  std::string uri = to_uri(address);
  if (!address.user.empty()) uri.insert(uri.find("//") + 2, uri_encoded(address.user) + "@");
  const auto add = [&](std::string_view name, const std::string& value) {
    if (!value.empty())
      uri += fmt::format("{}{}={}", uri.find('?') == std::string::npos ? '?' : '&', name, uri_encoded(value));
  };
  add("tls-certificates", address.tls_certificates);
  add("tls-psk-file", address.tls_psk_file);
  return uri;
}

std::string place_of(const Address& address) {
  return address.transport == Transport::unix_socket ? address.socket
                                                     : fmt::format("{}:{}", address.host, address.port);
}

bool same_server(const Address& a, const Address& b) {
  return a.transport == b.transport && a.tls == b.tls && a.host == b.host && a.socket == b.socket &&
         (a.transport == Transport::unix_socket || a.port == b.port);
}

}  // namespace drydock::nbd
