// SPDX-License-Identifier: GPL-3.0-or-later

#include "inspect/guestfs_handle.h"

#include <algorithm>
#include <cerrno>
#include <sstream>

namespace drydock {

namespace {

// Whether `word` names a libguestfs call: "download", or "mount_options_stub" in its appliance.
bool is_call_name(std::string_view word) {
  return std::ranges::all_of(word, [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; });
}

// The first line, which says it all; without the names of the calls that failed ("download: /etc/x: No such file"),
// which tell users nothing.
std::string essence(const std::string& text) {
  std::string message = text.substr(0, text.find('\n'));
  for (bool first = true;; first = false) {
    const size_t colon = message.find(": ");
    if (colon == std::string::npos || !is_call_name(message.substr(0, colon))) return message;
    if (!first && !message.substr(0, colon).ends_with("_stub")) return message;
    message.erase(0, colon + 2);
  }
}

}  // namespace

GuestfsHandle::GuestfsHandle() : handle_(guestfs_create_flags(GUESTFS_CREATE_NO_ENVIRONMENT)) {
  if (handle_ == nullptr) throw system_error(errno, "libguestfs");
  adopt_thread();
}

GuestfsHandle::~GuestfsHandle() { guestfs_close(handle_); }

void GuestfsHandle::adopt_thread() const { guestfs_set_error_handler(handle_, nullptr, nullptr); }

int GuestfsHandle::last_errno() const { return guestfs_last_errno(handle_); }

Error GuestfsHandle::error() const {
  const char* message = guestfs_last_error(handle_);
  const int code = guestfs_last_errno(handle_);
  const ErrorKind kind = code == 0 ? ErrorKind::io : system_error(code, "").kind();
  const int errno_value = code == 0 ? errno_of(kind) : code;
  return {kind, errno_value, printable(essence(message == nullptr ? "libguestfs failed" : message))};
}

std::vector<std::string> GuestfsHandle::error_lines() const {
  const char* message = guestfs_last_error(handle_);
  std::istringstream text(message == nullptr ? "" : message);
  std::vector<std::string> lines;
  for (std::string line; std::getline(text, line);) lines.push_back(line);
  return lines;
}

std::string GuestfsHandle::check_string(char* answer) const {
  if (answer == nullptr) throw error();
  const std::unique_ptr<char, void (*)(void*)> owned(answer, std::free);
  return owned.get();
}

std::vector<std::string> GuestfsHandle::check_list(char** answer) const {
  if (answer == nullptr) throw error();
  const std::unique_ptr<char*, void (*)(void*)> owned(answer, std::free);
  std::vector<std::string> list;
  for (char** item = answer; *item != nullptr; ++item) list.push_back(check_string(*item));
  return list;
}

CStringList::CStringList(const std::vector<std::string>& strings) {
  pointers_.reserve(strings.size() + 1);
  // libguestfs takes char *const * and changes nothing.
  for (const std::string& string : strings) pointers_.push_back(const_cast<char*>(string.c_str()));
  pointers_.push_back(nullptr);
}

}  // namespace drydock
