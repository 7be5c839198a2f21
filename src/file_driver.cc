// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/file_driver.h"

#include <sys/stat.h>

#include "src/error.h"

namespace drydock {

bool is_file_driver(std::string_view name) { return name == "file" || name == "host_device"; }

std::optional<Format> format_of_driver(std::string_view name) {
  return is_file_driver(name) ? Format::raw : format_by_name(name);
}

void check_file_driver(const Storage& storage, std::string_view driver) {
  if (!is_file_driver(driver)) return;
  struct stat status {};
  const int fd = storage.descriptor();
  if (fd < 0 || ::fstat(fd, &status) != 0) status.st_mode = 0;
  const bool device = S_ISBLK(status.st_mode) || S_ISCHR(status.st_mode);
  if (driver == "file" ? S_ISREG(status.st_mode) : device) return;
  throw_invalid(fmt::format("'{}' driver requires '{}' to be {}", driver, printable_in_quotes(storage.name()),
                            driver == "file" ? "a regular file" : "either a character or block device"));
}

}  // namespace drydock
