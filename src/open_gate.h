// SPDX-License-Identifier: GPL-3.0-or-later
//
// OpenGate: who may open the files that an image names (safety.md, 9).
//
// An image is foreign: the backing file or data file that it names may be /etc/shadow, a device, a URL or a json:
// description that makes its reader connect somewhere. The engine therefore never opens such a name itself: it asks the
// gate that its caller handed in.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "src/remote.h"
#include "src/storage.h"

namespace drydock {

enum class FileRole { backing_file, data_file };

struct FileReference {
  std::string name;      // as the image spells it
  std::string named_by;  // path of the image that names it; relative names are relative to its folder
  FileRole role = FileRole::backing_file;
};

class OpenGate {
 public:
  virtual ~OpenGate() = default;

  // Opens the file, or throws: refused where the policy says no (with what the user can do about it), not_found, ...
  // The storage's name() is the path that it was found at. Thread-safe.
  virtual std::shared_ptr<Storage> open(const FileReference& reference, bool writable) const = 0;
};

// The default policy: plain local paths; regular files and block devices; after all symlinks are resolved, within the
// folder tree of the image that names the file, or within one of `allowed_trees`. An image that is remote has no
// folder. Remote files where `remote` knows that the user allowed them.
class LocalFilesGate final : public OpenGate {
 public:
  explicit LocalFilesGate(std::vector<std::string> allowed_trees = {},
                          std::shared_ptr<const RemoteOpener> remote = nullptr)
      : allowed_trees_(std::move(allowed_trees)), remote_(std::move(remote)) {}

  std::shared_ptr<Storage> open(const FileReference& reference, bool writable) const override;

 private:
  std::shared_ptr<Storage> open_remote_file(const FileReference& reference, bool writable) const;

  std::vector<std::string> allowed_trees_;
  std::shared_ptr<const RemoteOpener> remote_;
};

// The local path that `reference` stands for, symlinks unresolved: absolute and remote names as they are, relative ones
// beside the image that names them; of an image that is remote, which has nothing beside it, as they are. No policy is
// applied.
std::string resolve_name(const FileReference& reference);

}  // namespace drydock
