// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/qemu_nbd.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "nbd/client/address.h"
#include "src/error.h"
#include "tools/nbd_device.h"
#include "tools/nbd_list.h"
#include "tools/tls_objects.h"

namespace drydock::cli {

namespace {

constexpr std::string_view default_address = "0.0.0.0";

// What is about an image, and no use to who lists exports.
constexpr std::array image_words{"export-name", "description", "offset",        "bitmap", "allocation-depth",
                                 "read-only",   "snapshot",    "load-snapshot", "format"};

uint16_t parse_port(const std::string& text) {
  uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc() || end != text.data() + text.size())
    throw_invalid(fmt::format("Invalid port '{}'", printable(text)));
  return port;
}

int list(const Invocation& invocation) {
  if (!invocation.arguments.empty()) throw_invalid("List mode is incompatible with a file name");
  const bool about_image =
      std::ranges::any_of(image_words, [&](const char* word) { return invocation.options.has(word); });
  if (about_image) throw_invalid("List mode is incompatible with per-device settings");
  return list_exports(invocation);
}

int disconnect(const Invocation& invocation) {
  if (invocation.arguments.size() != 1) usage_error("Invalid number of arguments");
  NbdDevice device(invocation.arguments[0]);
  device.disconnect();
  invocation.io.out << fmt::format("{} disconnected\n", printable(invocation.arguments[0]));
  return 0;
}

}  // namespace

std::vector<OptionSpec> qemu_nbd_options() {
  return join(
      {
          {'c', "connect", "DEVICE", "put the kernel's device DEVICE (/dev/nbd0) before the disk"},
          {'d', "disconnect", "", "end what is behind the device that is named instead of an image"},
          {'L', "list", "", "tell what the server at --socket, or --bind and --port, exports"},
          {'t', "persistent", "", "go on when the last client has gone (the default, but for qemu-nbd)"},
          {'T', "trace", "WORDS", "taken for the sake of scripts"},
      },
      tls_object_options());
}

nbd::ServerOptions qemu_nbd_server(const Invocation& invocation) {
  const ParsedOptions& words = invocation.options;
  nbd::ServerOptions options;
  options.stop_with_last_client = !words.has("persistent") && !words.has("connect");
  if (const auto path = words.value("socket")) {
    if (!path->starts_with('/')) throw_invalid("socket path must be absolute");
    options.socket_path = *path;
  } else if (!words.has("connect")) {
    options.port = words.has("port") ? parse_port(*words.value("port")) : nbd::default_port;
    options.address = words.value("bind").value_or(std::string(default_address));
  }
  return options;
}

std::optional<int> run_without_serving(const Invocation& invocation) {
  if (invocation.options.has("disconnect")) return disconnect(invocation);
  if (invocation.options.has("list")) return list(invocation);
  return std::nullopt;
}

}  // namespace drydock::cli
