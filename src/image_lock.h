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
#include "src/storage.h"

namespace drydock {

// Of kind busy: what another process, or this one, does with the file `name` excludes what was wanted of it.
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

// Every file that is opened for use passes here: takes the locks that go with how `storage` was opened, on its
// descriptor. One that is read is locked against writers, unless the user has it read `beside_writers`: of other
// processes; this one has no file open twice where one of them writes (files_in_use.h). Nothing happens to what is no
// local file. `image`: what it is opened for; empty: itself. Throws LockError, whose message names who holds the file
// where that can be told.
void lock_for_use(const Storage& storage, bool beside_writers, const std::string& image = {});

// Gives up what lock_for_use() took. The storage stays open: what is read from it may change from now on.
void give_up_locks(const Storage& storage);

}  // namespace drydock
