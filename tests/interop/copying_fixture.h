// SPDX-License-Identifier: GPL-3.0-or-later
//
// A disk to copy, raw and as qcow2, and what tests of convert, compare, measure and dd ask of the copies.

#pragma once

#include <gmock/gmock.h>

#include <filesystem>
#include <string>
#include <vector>

#include "tests/support/support.h"

namespace drydock::test {

using Words = std::vector<std::string>;

class CopyingVerbs : public testing::Test {
 protected:
  // 12 MiB: data with zeros in it, pieces that begin and end within clusters, and holes.
  CopyingVerbs() {
    run_ok({"qemu-img", "create", "-q", "-f", "raw", raw_, "12M"});
    run_ok({"qemu-io", "-f", "raw", "-c", "write -P 1 0 700k", "-c", "write -P 0 100k 200k", "-c",
            "write -P 2 3000k 5k", "-c", "write -P 3 5M 2M", "-c", "write -P 4 12287k 1k", raw_});
    const auto noise = random_bytes(1, 1 << 20);
    write_file(dir_.file("noise"), noise);
    run_ok({"dd", "if=" + dir_.file("noise"), "of=" + raw_, "bs=1M", "seek=8", "conv=notrunc", "status=none"});
    run_ok({"qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw_, qcow2_});
  }

  static Outcome ours(const std::string& verb, const Words& words) {
    Words argv{drydock_program(), verb};
    argv.insert(argv.end(), words.begin(), words.end());
    return run(argv);
  }
  void expect_copy(const std::string& source, const std::string& target) {
    EXPECT_EQ(run({"qemu-img", "compare", source, target}).out, "Images are identical.\n") << target;
    EXPECT_EQ(ours("compare", {source, target}).out, "Images are identical.\n") << target;
    if (target.ends_with(".raw")) return;
    EXPECT_EQ(run({"qemu-img", "check", "-q", target}).status, 0) << target;
  }
  void convert(Words words, const std::string& target) {
    words.push_back(target);
    const Outcome outcome = ours("convert", words);
    EXPECT_EQ(outcome.status, 0) << outcome.err << fmt::format("{}", fmt::join(words, " "));
    EXPECT_EQ(outcome.out, "");
  }
  // What is in the folder besides what the tests put there.
  std::vector<std::string> unfinished_files() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(dir_.path())) {
      if (entry.path().extension() == ".part") names.push_back(entry.path().filename().string());
    }
    return names;
  }
  static uint64_t disk_usage(const std::string& path) { return std::stoull(run_ok({"stat", "-c", "%b", path})) * 512; }

  TempDir dir_;
  std::string raw_ = dir_.file("source.raw");
  std::string qcow2_ = dir_.file("source.qcow2");
};

}  // namespace drydock::test
