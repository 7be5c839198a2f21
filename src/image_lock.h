// SPDX-License-Identifier: GPL-3.0-or-later
//
// Locks on image files that QEMU understands (safety.md, 2).
//
// QEMU marks what a process does with an image by shared byte-range locks of the open file description: byte 100 + n
// says "I use permission n", byte 200 + n "nobody else may use permission n". Who opens an image takes its locks and
// then looks whether anyone else's say the opposite; so two programs that start at once never both win.

#pragma once

#include <string>
#include <utility>

#include "src/error.h"
#include "src/file_storage.h"

namespace drydock {

// Of kind busy: what another process does with the file `name` excludes what was wanted of it.
class LockError final : public Error {
 public:
  // `lock` is the one that was not to be had, in QEMU's words: `shared "write"`.
  LockError(const std::string& message, std::string name, std::string lock)
      : Error(ErrorKind::busy, message), name_(std::move(name)), lock_(std::move(lock)) {}

  const std::string& name() const { return name_; }
  const std::string& lock() const { return lock_; }

 private:
  std::string name_;
  std::string lock_;
};

// Every file that is opened for use passes here: takes the locks that go with how `storage` was opened. One that is
// read is locked against writers, unless the user has it read `beside_writers`. Nothing happens to what is no local
// file. Throws LockError.
void lock_for_use(const Storage& storage, bool beside_writers);

// Takes the locks of a program that writes to an image, on the descriptor of `file`: they go when the file is closed.
// Throws LockError where another process reads (and minds) or writes the image; the message names it where /proc tells.
void lock_for_writing(const FileStorage& file);

// Takes the locks of a program that reads an image and wants nobody to write to it meanwhile, on the descriptor of
// `file`. Throws LockError where another process writes it.
void lock_against_writers(const FileStorage& file);

// Gives up the locks that were taken on the descriptor of `storage`, which stays open.
void give_up_locks(const Storage& storage);

}  // namespace drydock
