// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/guest_words.h"

#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <optional>

#include "src/error.h"
#include "src/views.h"
#include "tools/cli.h"

namespace drydock::cli {

namespace {

// A disk or partition by one of the names that libguestfs takes: /dev/sda, /dev/vdb2, /dev/hdc.
struct DiskName {
  size_t disk = 0;  // counted from 0
  std::optional<unsigned> partition;
};

std::optional<DiskName> parse_disk_name(const std::string& device) {
  constexpr size_t prefix = std::string_view("/dev/sd").size();
  const bool disk = device.starts_with("/dev/sd") || device.starts_with("/dev/vd") || device.starts_with("/dev/hd");
  if (!disk) return {};
  size_t end = prefix;
  uint64_t count = 0;  // "a" is 1, "z" 26, "aa" 27
  constexpr size_t most_letters = 3;
  for (; end < device.size() && device[end] >= 'a' && device[end] <= 'z'; ++end) {
    if (end - prefix == most_letters) return {};
    count = count * 26 + static_cast<uint64_t>(device[end] - 'a') + 1;
  }
  if (count == 0) return {};
  DiskName name{.disk = static_cast<size_t>(count - 1), .partition = {}};
  if (end == device.size()) return name;
  unsigned number = 0;
  const auto [rest, failure] = std::from_chars(device.data() + end, device.data() + device.size(), number);
  if (failure != std::errc{} || rest != device.data() + device.size()) return {};
  name.partition = number;
  return name;
}

std::string letters_of(size_t disk) {
  std::string letters;
  for (uint64_t count = disk + 1; count > 0; count = (count - 1) / 26) {
    letters.insert(letters.begin(), static_cast<char>('a' + (count - 1) % 26));
  }
  return letters;
}

void require_partition(const MountRequest& request, const DiskName& name, const Image& image) {
  const Views found = list_views(image);
  std::string known;
  for (const View& view : found.views) {
    if (view.kind != ViewKind::partition) continue;
    if (view.name == fmt::format("p{}", *name.partition)) return;
    const std::string number = view.name.substr(1);
    known +=
        fmt::format("{}/dev/sd{}{} ({})", known.empty() ? "" : ", ", letters_of(name.disk), number,
                    view.description.substr(std::min(view.description.find(", "), view.description.size() - 2) + 2));
  }
  // Of tables that are damaged, or of other kinds, the appliance may know more.
  if (known.empty() || !found.warnings.empty()) return;
  throw Error(ErrorKind::not_found,
              fmt::format("-m {}: there is no such partition; there are: {}", printable(request.device), known));
}

}  // namespace

void require_guest_path(const std::string& word) {
  const bool drive = word.size() >= 2 && std::isalpha(static_cast<unsigned char>(word[0])) != 0 && word[1] == ':';
  if (word.starts_with('/') || word.starts_with('\\') || drive) return;
  usage_error(fmt::format("'{0}': paths inside the guest start with a slash, as in '/{0}'", printable(word)));
}

void require_guest_paths(const std::vector<std::string>& words) { std::ranges::for_each(words, require_guest_path); }

void require_local_source(const std::string& word) {
  std::error_code failure;
  const auto status = std::filesystem::symlink_status(word, failure);
  if (!std::filesystem::exists(status)) {
    const int code = failure ? failure.value() : ENOENT;
    throw system_error(code, printable(word));
  }
  if (!std::filesystem::is_symlink(status) && ::access(word.c_str(), R_OK) != 0) {
    throw system_error(errno, printable(word));
  }
}

void require_mountable(const std::vector<MountRequest>& requests, const std::vector<std::shared_ptr<Image>>& images) {
  if (!requests.empty() && requests[0].mountpoint != "/") {
    usage_error(fmt::format("-m {}:{}: the first -m mounts the root filesystem, on /", printable(requests[0].device),
                            printable(requests[0].mountpoint)));
  }
  for (const MountRequest& request : requests) {
    const std::optional<DiskName> name = parse_disk_name(request.device);
    if (!name) continue;
    if (name->disk >= images.size()) {
      throw Error(ErrorKind::not_found,
                  fmt::format("-m {}: there is no such disk; the last is /dev/sd{}: each -a adds one",
                              printable(request.device), letters_of(images.size() - 1)));
    }
    if (name->partition) require_partition(request, *name, *images[name->disk]);
  }
}

}  // namespace drydock::cli
