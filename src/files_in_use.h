// SPDX-License-Identifier: GPL-3.0-or-later
//
// The files that this process has in use, by what they are and not by their names: locks (image_lock.h) tell of other
// processes and of other descriptors, but not of readers that mind no writer. One process does not open a file twice
// where one of them writes, whatever it is opened as: an image, a layer below one, a data file, under another name.
//
// Thread-safety: all of it. Ownership: there is one table, since there is one process; a FileStorage leaves it when it
// ends.

#pragma once

#include <optional>
#include <string>

namespace drydock {

class FileStorage;

struct FileUse {
  std::string image;  // the image that it was opened for
  bool writing = false;
};

// Enters a file, once for each storage. Another use that excludes this one, where there is one: nothing is entered
// then.
std::optional<FileUse> enter_use(const FileStorage& file, const FileUse& use);

// Takes it out again; nothing happens to one that is not in.
void leave_use(const FileStorage& file);

}  // namespace drydock
