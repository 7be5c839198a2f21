// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/serve_options.h"

#include <charconv>
#include <limits>

#include "src/error.h"
#include "tools/qemu_nbd.h"
#include "tools/served_image.h"
#include "tools/server_log.h"
#include "tools/tls_objects.h"

namespace drydock::cli {

namespace {

template <class Number>
Number parse_number(std::string_view text, std::string_view option, std::string_view expected) {
  Number number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) {
    usage_error(fmt::format("{} {}: {} is expected", option, printable(text), expected));
  }
  return number;
}

nbd::VsockAddress parse_vsock(std::string_view text) {
  constexpr std::string_view expected = "a port, or a CID, a colon and a port, from 0 to 4294967294";
  const size_t colon = text.find(':');
  nbd::VsockAddress address;
  if (colon != std::string_view::npos) {
    address.cid = parse_number<uint32_t>(text.substr(0, colon), "--vsock", expected);
    text.remove_prefix(colon + 1);
  }
  address.port = parse_number<uint32_t>(text, "--vsock", expected);
  return address;
}

nbd::TlsMode parse_tls_mode(const std::string& text) {
  if (text == "off") return nbd::TlsMode::off;
  if (text == "on") return nbd::TlsMode::on;
  if (text == "require") return nbd::TlsMode::require;
  usage_error(fmt::format("--tls {}: off, on or require is expected", printable(text)));
}

bool parse_verify_peer(const std::string& text) {
  if (text.empty() || text == "on") return true;
  if (text == "off") return false;
  usage_error(fmt::format("--tls-verify-peer={}: on or off is expected", printable(text)));
}

nbd::TlsOptions parse_tls(const ParsedOptions& options) {
  nbd::TlsOptions tls;
  tls.certificates = options.value("tls-certificates").value_or("");
  tls.psk_file = options.value("tls-psk").value_or("");
  tls.allowed = options.values("tls-allow");
  if (const auto text = options.value("tls-verify-peer")) tls.verify_peer = parse_verify_peer(*text);
  const bool given = !tls.certificates.empty() || !tls.psk_file.empty();
  // Whoever has credentials ready does not mean to do without.
  if (given) tls.mode = nbd::TlsMode::require;
  if (const auto text = options.value("tls")) tls.mode = parse_tls_mode(*text);
  if (!tls.certificates.empty() && !tls.psk_file.empty()) {
    usage_error("--tls-certificates and --tls-psk exclude each other");
  }
  if (tls.mode != nbd::TlsMode::off && !given) usage_error("--tls needs --tls-certificates or --tls-psk");
  if (!tls.allowed.empty() && tls.mode != nbd::TlsMode::require) {
    usage_error("--tls-allow needs --tls require: without TLS nobody has a name");
  }
  if (!tls.allowed.empty() && !tls.verify_peer) {
    usage_error("--tls-allow needs verified clients: leave out --tls-verify-peer=off");
  }
  return tls;
}

nbd::ServerOptions own_server(const ParsedOptions& options) {
  nbd::ServerOptions result;
  if (const auto path = options.value("socket")) {
    if (path->empty()) usage_error("--socket needs a path");
    result.socket_path = *path;
  }
  if (const auto port = options.value("port")) {
    result.port = parse_number<uint16_t>(*port, "--port", "a number from 0 (any free port) to 65535");
  }
  if (const auto address = options.value("bind")) result.address = *address;
  if (const auto address = options.value("vsock")) result.vsock = parse_vsock(*address);
  if (!result.socket_path.empty() && result.port) usage_error("--socket and --port exclude each other");
  if (result.vsock && (!result.socket_path.empty() || result.port)) {
    usage_error("--vsock excludes --socket and --port");
  }
  if (options.has("bind") && !result.port) usage_error("--bind goes with --port");
  result.stop_with_last_client = options.has("exit-with-last-client");
  return result;
}

// Under its own name, who comes beyond the limit is told so; qemu-nbd's clients wait for their turn.
void limit_clients(const Invocation& invocation, nbd::ServerOptions& options) {
  const unsigned clients = shared_clients(invocation);
  options.limits.connections = clients > 0 ? clients : std::numeric_limits<size_t>::max();
  options.limits.queue = invocation.as_incumbent;
}

// A path has a slash in it; what is before the last colon else is an address, in brackets where it has colons.
void parse_metrics(std::string_view text, nbd::ServerOptions& result) {
  result.metrics = std::make_shared<nbd::Metrics>();
  if (text.find('/') != std::string_view::npos) {
    result.metrics_socket = text;
    return;
  }
  const size_t colon = text.rfind(':');
  if (colon != std::string_view::npos) {
    std::string_view address = text.substr(0, colon);
    const bool brackets = address.starts_with('[') && address.ends_with(']');
    result.metrics_address = brackets ? address.substr(1, address.size() - 2) : address;
    text.remove_prefix(colon + 1);
  }
  result.metrics_port = parse_number<uint16_t>(text, "--metrics", "a port, ADDRESS:PORT, or a path with a slash in it");
}

void check_log(const ParsedOptions& options) {
  const auto path = options.value("log");
  if (path == "-" && options.has("fork")) {
    usage_error("--log -: a server in the background has no standard error; name a file");
  }
  if (path == "") usage_error("--log needs a file");
}

}  // namespace

nbd::Log open_log(const Invocation& invocation) {
  const auto path = invocation.options.value("log");
  const bool to_stream = invocation.options.has("verbose") || path == "-";
  return log_to_both(path && path != "-" ? log_to_file(*path) : nbd::Log(),
                     to_stream ? log_to_stream(invocation.io.err) : nbd::Log());
}

std::vector<OptionSpec> listen_options() {
  return {
      {'k', "socket", "PATH", "listen on a Unix socket at PATH (default: one in a private folder)"},
      {'p', "port", "N", "listen on TCP port N of localhost; 0 takes a free one"},
      {'b', "bind", "ADDRESS", "with --port: listen on this address instead of localhost"},
      {0, "vsock", "[CID:]PORT", "listen for virtual machines, or their host, on this vsock port"},
      {'e', "shared", "N", "let in N clients at once, 0: any number (default: 64)"},
  };
}

std::vector<OptionSpec> process_options() {
  return {
      {0, "fork", "", "serve in the background; return when clients can connect"},
      {0, "pid-file", "FILE", "write the server's process ID to FILE, which goes away with it"},
      {0, "exit-with-last-client", "", "end when the last client that used an export is gone"},
  };
}

std::vector<OptionSpec> report_options() {
  return {
      {0, "log", "FILE", "append to FILE who connects, to what, and why they leave; -: to standard error"},
      {'v', "verbose", "", "log to standard error, and tell what this kernel lacks for the sandbox"},
      {0, "metrics", "[ADDRESS:]PORT|PATH", "tell Prometheus of the server on this port of localhost or socket"},
  };
}

void refuse_listen_options(const ParsedOptions& options) {
  for (const char* option : {"socket", "port", "bind", "vsock"}) {
    if (!options.has(option)) continue;
    usage_error(fmt::format("--{}: the sockets to listen on were handed over already (LISTEN_FDS)", option));
  }
}

std::vector<OptionSpec> tls_options() {
  return {
      {0, "tls", "MODE", "TLS: off, on (for those who ask) or require (default with credentials)"},
      {0, "tls-certificates", "DIR", "use ca-cert.pem, server-cert.pem and server-key.pem of this folder"},
      {0, "tls-verify-peer", "on|off", "whether clients need a certificate that the CA has signed (default: on)", true},
      {0, "tls-psk", "FILE", "use the pre-shared keys in FILE: lines of USER:KEY"},
      {0, "tls-allow", "NAME", "let in only clients of this name; may be repeated"},
  };
}

nbd::ServerOptions parse_server_options(const Invocation& invocation) {
  nbd::ServerOptions options = invocation.as_incumbent ? qemu_nbd_server(invocation) : own_server(invocation.options);
  if (invocation.options.value("pid-file") == "") usage_error("--pid-file needs a path");
  options.stop_on_signals = true;
  options.tls = parse_tls(invocation.options);
  if (const auto described = server_tls_of_objects(invocation.options)) options.tls = *described;
  if (const auto text = invocation.options.value("metrics")) parse_metrics(*text, options);
  check_log(invocation.options);
  limit_clients(invocation, options);
  return options;
}

}  // namespace drydock::cli
