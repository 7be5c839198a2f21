// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/scratch_overlay.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "src/chain.h"
#include "src/error.h"
#include "src/file_storage.h"
#include "src/qcow2/create.h"
#include "src/qcow2/qcow2_image.h"

namespace drydock {

namespace {

// A file without a name; where the filesystem cannot do that, one that loses its name at once.
UniqueFd open_nameless_file(const std::string& folder) {
  UniqueFd fd(::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (fd || (errno != EOPNOTSUPP && errno != EISDIR)) return fd;
  std::string path = folder + "/drydock-scratch-XXXXXX";
  fd.reset(::mkostemp(path.data(), O_CLOEXEC));
  if (fd) ::unlink(path.c_str());
  return fd;
}

}  // namespace

std::string scratch_folder() {
  const char* chosen = std::getenv("TMPDIR");
  return chosen != nullptr && *chosen != '\0' ? chosen : "/var/tmp";
}

UniqueFd open_scratch_file() {
  const std::string folder = scratch_folder();
  UniqueFd fd = open_nameless_file(folder);
  if (fd) return fd;
  const int error = errno;
  throw system_error(error, fmt::format("{}: creating a scratch file", printable(folder)));
}

std::shared_ptr<Image> open_scratch_overlay(std::shared_ptr<const Image> base, const OpenOptions& options) {
  UniqueFd fd = options.scratch_file ? options.scratch_file() : open_scratch_file();
  auto storage = std::make_shared<FileStorage>(std::move(fd), base->path() + " (scratch)", true);
  qcow2::create(*storage, {.size = base->disk()->size()});
  Chain chain(options);
  return std::make_shared<qcow2::Qcow2Image>(std::move(storage), chain, std::move(base));
}

}  // namespace drydock
