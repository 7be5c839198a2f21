// SPDX-License-Identifier: GPL-3.0-or-later
//
// A libguestfs handle that closes itself and throws.
//
// Thread-safety: libguestfs locks its handle; it keeps errors per thread, so that check() is called on the thread that
// made the call, after adopt_thread() on threads other than the handle's first.
// Errors: what libguestfs reports becomes an `Error` with its errno.

#pragma once

#include <guestfs.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "src/error.h"

namespace drydock {

class GuestfsHandle {
 public:
  GuestfsHandle();  // knows nothing of the environment
  GuestfsHandle(const GuestfsHandle&) = delete;
  GuestfsHandle& operator=(const GuestfsHandle&) = delete;
  ~GuestfsHandle();

  // For passing to guestfs_...().
  guestfs_h* get() const { return handle_; }

  // LIBGUESTFS_..., TMPDIR, PATH. Errors: a value that libguestfs refuses.
  void read_environment() const { check(guestfs_parse_environment(handle_)); }

  // Errors on the calling thread are kept for check(), not printed.
  void adopt_thread() const;

  // The last error of the calling thread.
  Error error() const;
  int last_errno() const;
  // Its complaints when a program in the appliance failed ("tar: ..."), one a line.
  std::vector<std::string> error_lines() const;

  // For calls that answer -1 or null on failure.
  void check(int answer) const {
    if (answer == -1) throw error();
  }
  int64_t check_number(int64_t answer) const {
    if (answer == -1) throw error();
    return answer;
  }
  // Takes the string over.
  std::string check_string(char* answer) const;
  // Takes the list over; of hashes: key, value, key, value ...
  std::vector<std::string> check_list(char** answer) const;
  // Takes a struct over, to be freed by `free_it`.
  template <class Struct>
  std::unique_ptr<Struct, void (*)(Struct*)> check_struct(Struct* answer, void (*free_it)(Struct*)) const {
    if (answer == nullptr) throw error();
    return {answer, free_it};
  }

 private:
  guestfs_h* handle_;
};

// A null-terminated list of C strings over `strings`, which it does not own.
class CStringList {
 public:
  explicit CStringList(const std::vector<std::string>& strings);
  char* const* get() const { return pointers_.data(); }

 private:
  std::vector<char*> pointers_;
};

}  // namespace drydock
