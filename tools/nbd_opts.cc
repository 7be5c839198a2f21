// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/nbd_opts.h"

#include <array>
#include <optional>

#include "nbd/client/address.h"
#include "src/error.h"
#include "tools/size_argument.h"
#include "tools/tls_objects.h"

namespace drydock::cli {

namespace {

using Options = OptionString::Words;

// They tell QEMU how to go about it, not what the image is.
constexpr std::array tuning{"node-name",         "auto-read-only", "discard",         "detect-zeroes", "cache.direct",
                            "cache.no-flush",    "force-share",    "reconnect-delay", "open-timeout",  "server.to",
                            "server.keep-alive", "server.numeric", "server.ipv4",     "server.ipv6",   "server.mptcp"};

std::string need(Options& options, const std::string& name, const std::string& what) {
  auto value = take(options, name);
  if (!value) throw_invalid(fmt::format("Parameter '{}' is missing", what));
  return std::move(*value);
}

uint16_t port_of(const std::string& text) {
  constexpr uint64_t max_port = UINT16_MAX;
  if (text == "nbd") return nbd::default_port;
  const SizeArgument number = read_number(text);
  if (number.problem != SizeArgument::Problem::none || number.bytes == 0 || number.bytes > max_port) {
    throw_invalid(fmt::format("address resolution failed for port '{}'", printable(text)));
  }
  return static_cast<uint16_t>(number.bytes);
}

void read_server(Options& options, nbd::Address& address) {
  const std::string type = need(options, "server.type", "server.type");
  if (type == "unix") {
    address.transport = nbd::Transport::unix_socket;
    address.socket = need(options, "server.path", "path");
  } else if (type == "inet") {
    address.host = need(options, "server.host", "host");
    address.port = port_of(need(options, "server.port", "port"));
  } else if (type == "vsock") {
    address.transport = nbd::Transport::vsock;
    address.host = need(options, "server.cid", "cid");
    address.port = port_of(need(options, "server.port", "port"));
  } else {
    throw_invalid(fmt::format("Parameter 'type' does not accept value '{}'", printable(type)));
  }
}

// The words from before there was server.type.
void read_old_words(Options& options, nbd::Address& address) {
  const auto path = take(options, "path");
  const auto host = take(options, "host");
  const auto port = take(options, "port");
  if (path && host) throw_invalid("path and host may not be used at the same time");
  if (!path && !host) throw_invalid(port ? "port may not be used without host" : "NBD server address missing");
  if (path && port) throw_invalid("port may not be used without host");
  if (path) {
    address.transport = nbd::Transport::unix_socket;
    address.socket = *path;
  } else {
    address.host = *host;
    if (port) address.port = port_of(*port);
  }
}

void add_tls(const ClientTls& tls, nbd::Address& address) {
  if (!tls.verify_peer) {
    throw Error(ErrorKind::unsupported, "verify-peer=off: the server's certificate is always verified here");
  }
  address.tls = true;
  address.user = tls.user;
  address.tls_certificates = tls.certificates;
  address.tls_psk_file = tls.psk_file;
}

}  // namespace

std::string take_nbd_uri(Options& options, const ParsedOptions& words) {
  nbd::Address address;
  if (const auto id = take(options, "tls-creds")) add_tls(client_tls_of_object(words, *id), address);
  if (options.contains("tls-hostname")) {
    throw Error(ErrorKind::unsupported, "'tls-hostname': a certificate is checked for the address's own name");
  }
  address.export_name = take(options, "export").value_or("");
  const auto first = options.lower_bound("server.");
  if (first != options.end() && first->first.starts_with("server.")) {
    if (options.contains("path") || options.contains("host") || options.contains("port")) {
      throw_invalid("Cannot use 'server' and path/host/port at the same time");
    }
    read_server(options, address);
  } else {
    read_old_words(options, address);
  }
  for (const char* name : tuning) options.erase(name);
  if (!options.empty()) {
    throw_invalid(
        fmt::format("Block protocol 'nbd' doesn't support the option '{}'", printable(options.begin()->first)));
  }
  return nbd::to_uri_with_keys(address);
}

}  // namespace drydock::cli
