// SPDX-License-Identifier: GPL-3.0-or-later
//
// A Linux guest's /etc/fstab, and the devices that its lines mean (fstab(5), blkid(8)).
//
// Thread-safety: any thread; nothing here touches a guest.

#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace drydock {

// A line, its escapes (\040) decoded.
struct FstabEntry {
  std::string spec;        // "UUID=...", "/dev/sda1", "server:/export", "tmpfs" ...
  std::string mountpoint;  // as written: "none", "swap" and relative ones, too
  std::string type;
  std::vector<std::string> options;

  bool has_option(std::string_view name) const;
  // The value of "name=value".
  std::optional<std::string> option_value(std::string_view name) const;
};

// Lines with fewer than two fields are left out, as mount(8) leaves them out.
std::vector<FstabEntry> parse_fstab(std::string_view text);

// What blkid(8) finds on a device; "" where it finds nothing.
struct DeviceTags {
  std::string device;
  std::string label;
  std::string uuid;
  std::string partition_label;
  std::string partition_uuid;
};

// `answer` is what guestfs_blkid() says of `device`: names and values in turn, with backslashes before what a shell
// would take apart.
DeviceTags tags_of_blkid(const std::string& device, const std::vector<std::string>& answer);

// Whether `spec` names a device by what is on it: LABEL=, UUID=, PARTLABEL=, PARTUUID=, /dev/disk/by-label/ and the
// like.
bool is_tag(std::string_view spec);
// The device that a tag means.
std::optional<std::string> device_of_tag(std::string_view spec, const std::vector<DeviceTags>& devices);

}  // namespace drydock
