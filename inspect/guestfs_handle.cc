// SPDX-License-Identifier: GPL-3.0-or-later

#include "inspect/guestfs_handle.h"

#include <algorithm>
#include <cerrno>

namespace drydock {

namespace {

// The first line, which says it all; without the name of the call that failed ("download: /etc/x: No such file"), which
// tells users nothing.
std::string essence(const std::string& text) {
  std::string message = text.substr(0, text.find('\n'));
  const size_t colon = message.find(": ");
  if (colon == std::string::npos) return message;
  const bool is_name = std::ranges::all_of(
      message.substr(0, colon), [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; });
  return is_name ? message.substr(colon + 2) : message;
}

}  // namespace

GuestfsHandle::GuestfsHandle() : handle_(guestfs_create()) {
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
