// SPDX-License-Identifier: GPL-3.0-or-later
//
// NBD URIs (https://github.com/NetworkBlockDevice/nbd, doc/uri.md). Pure functions.

#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace drydock::nbd {

// nbd+unix:///NAME?socket=PATH
std::string unix_uri(std::string_view export_name, std::string_view socket_path);
// nbd://HOST:PORT/NAME; an IPv6 address gets its brackets.
std::string tcp_uri(std::string_view export_name, std::string_view host, uint16_t port);

}  // namespace drydock::nbd
