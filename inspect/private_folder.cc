// SPDX-License-Identifier: GPL-3.0-or-later

#include "inspect/private_folder.h"

#include <cerrno>
#include <cstdlib>

#include "src/error.h"

namespace drydock {

PrivateFolder::PrivateFolder() {
  std::error_code failure;
  const std::filesystem::path parent = std::filesystem::temp_directory_path(failure);
  if (failure) throw system_error(failure.value(), "temporary folder");
  std::string pattern = (parent / "drydock-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) throw system_error(errno, pattern);  // mkdtemp makes it 0700
  path_ = pattern;
}

PrivateFolder::~PrivateFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace drydock
