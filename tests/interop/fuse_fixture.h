// SPDX-License-Identifier: GPL-3.0-or-later
//
// What tests of real FUSE mounts share: a folder with images and a mount point, which is left unmounted whatever fails.

#pragma once

#include <gtest/gtest.h>
#include <sys/mount.h>

#include <string>
#include <vector>

#include "fuse/mount_table.h"
#include "tests/support/support.h"

namespace drydock::test {

class FuseMount : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directory(point_); }
  void TearDown() override {
    while (is_mounted() && ::umount2(point_.c_str(), MNT_DETACH) == 0) {
    }
  }

  static Outcome drydock_run(std::vector<std::string> words) {
    words.insert(words.begin(), drydock_program());
    return run(words);
  }

  // Exports `image` on the mount point; a failed test where that fails.
  void mount(const std::string& image, std::vector<std::string> options = {}) const {
    std::vector<std::string> words{drydock_program(), "export", image, point_};
    words.insert(words.end(), options.begin(), options.end());
    run_ok(words);
  }
  void unmount() const { run_ok({drydock_program(), "unmount", point_}); }

  bool is_mounted() const { return fuse::find_mount(point_).has_value(); }
  std::string at(const std::string& name) const { return point_ + "/" + name; }

  // A raw image of `size` bytes that is all hole but for `data` of 64 KiB at each of `offsets`.
  std::string sparse_image(const std::string& name, uint64_t size, const std::vector<uint64_t>& offsets) const {
    std::string path = dir_.file(name);
    run_ok({"truncate", "-s", std::to_string(size), path});
    for (const uint64_t offset : offsets) {
      write_file(dir_.file("piece"), random_bytes(offset + 1, 64 << 10));
      run_ok({"dd", "if=" + dir_.file("piece"), "of=" + path, "bs=65536", "conv=notrunc", "oflag=seek_bytes",
              "seek=" + std::to_string(offset), "status=none"});
    }
    return path;
  }

  TempDir dir_;
  const std::string point_ = dir_.file("mnt");
};

}  // namespace drydock::test
