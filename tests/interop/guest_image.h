// SPDX-License-Identifier: GPL-3.0-or-later
//
// Guests for tests, small but true enough to be taken for installed systems.

#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "tests/support/support.h"

namespace drydock::test {

// Fills `folder` with what makes libguestfs see a Debian: /etc/os-release, fstab and their like, and with what tells
// copying apart from good copying. `fstab` is that file's text.
void make_debian_tree(const std::filesystem::path& folder, const std::string& fstab);

// A raw image at `path`: GPT, an ESP, an ext4 root holding `tree`. Needs neither root nor an appliance. /etc/motd has
// mode 0640, owner 12:34, an xattr user.note and an SELinux label.
void make_partitioned_guest(const std::string& path, const std::filesystem::path& tree,
                            const std::filesystem::path& scratch);
inline constexpr uint64_t root_offset = 17 << 20;  // of its root filesystem
// For e2fsprogs: the root filesystem inside the image.
std::string root_filesystem(const std::string& image);

// A raw image at `path`: MBR, one LVM physical volume, root on /dev/vg_guest/lv_root, swap beside it. Launches an
// appliance, because making volumes takes a kernel with a device mapper.
void make_lvm_guest(const std::string& path, const std::filesystem::path& tree, const std::filesystem::path& scratch);

// A raw image at `path` whose only partition is a LUKS device with the passphrase "secret", and root on that. `tree`'s
// fstab should name it LABEL=cryptroot. Launches an appliance.
void make_encrypted_guest(const std::string& path, const std::filesystem::path& tree,
                          const std::filesystem::path& scratch);

// Runs a program of libguestfs-tools or guestfish with the settings that it needs where KVM does not work.
Outcome run_incumbent(const std::vector<std::string>& argv);

}  // namespace drydock::test
