// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/nbd_list.h"

#include <libnbd.h>

#include <array>
#include <cerrno>
#include <memory>
#include <optional>

#include "nbd/client/address.h"
#include "nbd/protocol.h"
#include "src/error.h"
#include "tools/tls_objects.h"

namespace drydock::cli {

namespace {

using Handle = std::unique_ptr<nbd_handle, decltype(&::nbd_close)>;

void check(int result, const std::string& context) {
  if (result != -1) return;
  const int number = nbd_get_errno() != 0 ? nbd_get_errno() : EIO;
  throw Error(ErrorKind::io, number, fmt::format("{}: {}", context, printable(nbd_get_error())));
}

// Who cannot connect wants to hear of the system's reason alone.
void check_connected(int result, const std::string& where) {
  if (result == -1 && nbd_get_errno() != 0) {
    throw system_error(nbd_get_errno(), fmt::format("Failed to connect to '{}'", printable(where)));
  }
  check(result, fmt::format("Failed to connect to '{}'", printable(where)));
}

struct Listed {
  std::string name;
  std::string description;
};

// libnbd's callbacks come through C: nothing is thrown there.
struct Listing {
  std::vector<Listed> exports;
  bool failed = false;
};

int take_export(void* data, const char* name, const char* description) {
  auto& listing = *static_cast<Listing*>(data);
  try {
    listing.exports.push_back({name, description});
    return 0;
  } catch (const std::bad_alloc&) {
    listing.failed = true;
    return -1;
  }
}

int take_context(void* data, const char* name) {
  try {
    static_cast<std::vector<std::string>*>(data)->emplace_back(name);
    return 0;
  } catch (const std::bad_alloc&) {
    return -1;
  }
}

Handle connect(const Invocation& invocation) {
  const ParsedOptions& words = invocation.options;
  Handle handle(nbd_create(), &::nbd_close);
  if (!handle) throw Error(ErrorKind::io, printable(nbd_get_error()));
  nbd_handle* nbd = handle.get();
  check(nbd_set_opt_mode(nbd, true), "listing");
  check(nbd_set_request_structured_replies(nbd, true), "listing");
  if (const auto tls = client_tls_of_objects(words)) {
    check(nbd_set_tls(nbd, LIBNBD_TLS_REQUIRE), "TLS");
    check(nbd_set_tls_verify_peer(nbd, tls->verify_peer), "TLS");
    if (!tls->certificates.empty()) check(nbd_set_tls_certificates(nbd, tls->certificates.c_str()), "TLS");
    if (!tls->psk_file.empty()) check(nbd_set_tls_psk_file(nbd, tls->psk_file.c_str()), "TLS");
    if (!tls->user.empty()) check(nbd_set_tls_username(nbd, tls->user.c_str()), "TLS");
  }
  if (const auto path = words.value("socket")) {
    check_connected(nbd_connect_unix(nbd, path->c_str()), *path);
    return handle;
  }
  const std::string host = words.value("bind").value_or("localhost");
  if (const std::string expected = words.value("tls-hostname").value_or(host); expected != host) {
    throw Error(ErrorKind::unsupported,
                fmt::format("--tls-hostname {}: libnbd checks a certificate for the address's own name, '{}'",
                            printable(expected), printable(host)));
  }
  const std::string port = words.value("port").value_or(std::to_string(nbd::default_port));
  check_connected(nbd_connect_tcp(nbd, host.c_str(), port.c_str()), fmt::format("{}:{}", host, port));
  return handle;
}

struct FlagName {
  int (*is_set)(nbd_handle*);
  std::string_view name;
  uint16_t bit;
};

constexpr std::array flag_names{
    FlagName{nbd_is_read_only, "readonly", nbd::transmission_read_only},
    FlagName{nbd_can_flush, "flush", nbd::transmission_send_flush},
    FlagName{nbd_can_fua, "fua", nbd::transmission_send_fua},
    FlagName{nbd_is_rotational, "rotational", 1 << 4},
    FlagName{nbd_can_trim, "trim", nbd::transmission_send_trim},
    FlagName{nbd_can_zero, "zeroes", nbd::transmission_send_write_zeroes},
    FlagName{nbd_can_df, "df", nbd::transmission_send_df},
    FlagName{nbd_can_multi_conn, "multi", nbd::transmission_can_multi_conn},
    FlagName{nbd_can_cache, "cache", nbd::transmission_send_cache},
    FlagName{nbd_can_fast_zero, "fast-zero", nbd::transmission_send_fast_zero},
};

std::string text_of(nbd_handle* nbd, const Listed& listed) {
  std::string text = fmt::format(" export: '{}'\n", printable_in_quotes(listed.name));
  if (!listed.description.empty()) text += fmt::format("  description: {}\n", printable(listed.description));
  check(nbd_set_export_name(nbd, listed.name.c_str()), "listing");
  if (nbd_opt_info(nbd) == -1) return text;  // listed, but not to be had
  text += fmt::format("  size:  {}\n", nbd_get_size(nbd));
  unsigned bits = nbd::transmission_has_flags;
  std::string names;
  for (const FlagName& flag : flag_names) {
    if (flag.is_set(nbd) != 1) continue;
    bits |= flag.bit;
    names += fmt::format(" {}", flag.name);
  }
  text += fmt::format("  flags: {:#x} ({} )\n", bits, names);
  const int64_t least = nbd_get_block_size(nbd, LIBNBD_SIZE_MINIMUM);
  if (least > 0) {
    text += fmt::format("  min block: {}\n  opt block: {}\n  max block: {}\n", least,
                        nbd_get_block_size(nbd, LIBNBD_SIZE_PREFERRED), nbd_get_block_size(nbd, LIBNBD_SIZE_MAXIMUM));
  }
  std::vector<std::string> contexts;
  const nbd_context_callback callback{.callback = take_context, .user_data = &contexts, .free = nullptr};
  if (nbd_opt_list_meta_context(nbd, callback) > 0 && !contexts.empty()) {
    text += fmt::format("  available meta contexts: {}\n", contexts.size());
    for (const std::string& context : contexts) text += fmt::format("   {}\n", printable(context));
  }
  return text;
}

}  // namespace

int list_exports(const Invocation& invocation) {
  const Handle handle = connect(invocation);
  Listing listing;
  const nbd_list_callback callback{.callback = take_export, .user_data = &listing, .free = nullptr};
  check(nbd_opt_list(handle.get(), callback), "Failed to list exports");
  if (listing.failed) throw std::bad_alloc();
  std::string text = fmt::format("exports available: {}\n", listing.exports.size());
  for (const Listed& listed : listing.exports) text += text_of(handle.get(), listed);
  invocation.io.out << text;
  nbd_opt_abort(handle.get());
  return 0;
}

}  // namespace drydock::cli
