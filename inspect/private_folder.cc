// SPDX-License-Identifier: GPL-3.0-or-later

#include "inspect/private_folder.h"

#include <cerrno>
#include <cstdlib>

#include "inspect/temporary_space.h"
#include "src/error.h"

namespace drydock {

PrivateFolder::PrivateFolder() {
  const TemporaryFolder parent = temporary_folder();
  std::string pattern = (parent.path / "drydock-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) {  // mkdtemp makes it 0700
    const int failure = errno;
    if (parent.trouble.empty()) throw system_error(failure, printable(pattern));
    throw Error(system_error(failure, "").kind(), failure, fmt::format("{} ({})", parent.trouble, parent.advice));
  }
  path_ = pattern;
}

PrivateFolder::~PrivateFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace drydock
