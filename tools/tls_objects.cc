// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/tls_objects.h"

#include "src/error.h"
#include "tools/option_string.h"

namespace drydock::cli {

namespace {

struct Object {
  std::string type;
  OptionString::Words words;

  std::string word(const std::string& name, const std::string& otherwise = "") const {
    const auto found = words.find(name);
    return found == words.end() ? otherwise : found->second;
  }
};

std::optional<Object> find_object(const ParsedOptions& words, const std::string& id) {
  for (const std::string& text : words.values("object")) {
    Object object{.type = text.substr(0, text.find(',')), .words = OptionString({text}).words()};
    if (object.type.starts_with("qom-type=")) object.type.erase(0, 9);
    if (object.word("id") == id) return object;
  }
  return std::nullopt;
}

bool flag_of(const Object& object, const std::string& name, bool otherwise) {
  const std::string word = object.word(name, otherwise ? "yes" : "no");
  if (word == "yes" || word == "on" || word == "true" || word == "y") return true;
  if (word == "no" || word == "off" || word == "false" || word == "n") return false;
  throw_invalid(fmt::format("Parameter '{}' expects 'on' or 'off'", name));
}

// The credentials of that name, for `endpoint`.
Object find_credentials(const ParsedOptions& words, const std::string& id, std::string_view endpoint) {
  auto object = find_object(words, id);
  if (!object) throw_invalid(fmt::format("Failed to get TLS creds: No TLS credentials with id '{}'", printable(id)));
  if (!object->type.starts_with("tls-creds-")) {
    throw_invalid(fmt::format("Failed to get TLS creds: Object with id '{}' is not TLS credentials", printable(id)));
  }
  if (object->word("endpoint", "client") != endpoint) {
    throw_invalid(fmt::format("Failed to get TLS creds: Expecting TLS credentials with a {} endpoint", endpoint));
  }
  if (object->type == "tls-creds-anon") {
    throw Error(ErrorKind::unsupported, "tls-creds-anon protects from nobody in the middle, and is not offered");
  }
  if (object->word("dir").empty()) throw_invalid("Missing 'dir' property value");
  return std::move(*object);
}

std::vector<std::string> authorised(const ParsedOptions& words) {
  const auto id = words.value("tls-authz");
  if (!id) return {};
  if (!words.has("tls-creds")) throw_invalid("TLS authorization is not permitted without TLS credentials");
  const auto object = find_object(words, *id);
  if (!object) throw_invalid(fmt::format("Object with id '{}' is not an authorization", printable(*id)));
  if (object->type != "authz-simple") {
    throw Error(ErrorKind::unsupported, fmt::format("'{}': of authorizations authz-simple is known here; --tls-allow "
                                                    "takes any number of names",
                                                    printable(object->type)));
  }
  return {object->word("identity")};
}

}  // namespace

std::vector<OptionSpec> tls_object_options() {
  return {
      {0, "tls-creds", "ID", "require TLS with the credentials that --object describes"},
      {0, "tls-authz", "ID", "let in whom the authorization lets in that --object describes"},
      {0, "tls-hostname", "NAME", "with --list: the name that the server's certificate must be for"},
  };
}

std::optional<nbd::TlsOptions> server_tls_of_objects(const ParsedOptions& words) {
  const auto id = words.value("tls-creds");
  const auto object = id ? std::optional(find_credentials(words, *id, "server")) : std::nullopt;
  std::vector<std::string> allowed = authorised(words);
  if (!object) return std::nullopt;
  nbd::TlsOptions tls{.mode = nbd::TlsMode::require, .allowed = std::move(allowed)};
  if (object->type == "tls-creds-psk") {
    tls.psk_file = object->word("dir") + "/keys.psk";
  } else {
    tls.certificates = object->word("dir");
    tls.verify_peer = flag_of(*object, "verify-peer", true);
  }
  return tls;
}

std::optional<ClientTls> client_tls_of_objects(const ParsedOptions& words) {
  const auto id = words.value("tls-creds");
  return id ? std::optional(client_tls_of_object(words, *id)) : std::nullopt;
}

ClientTls client_tls_of_object(const ParsedOptions& words, const std::string& id) {
  const Object object = find_credentials(words, id, "client");
  ClientTls tls{.verify_peer = flag_of(object, "verify-peer", true)};
  if (object.type == "tls-creds-psk") {
    tls.psk_file = object.word("dir") + "/keys.psk";
    tls.user = object.word("username", "qemu");
  } else {
    tls.certificates = object.word("dir");
  }
  return tls;
}

}  // namespace drydock::cli
