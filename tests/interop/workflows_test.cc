// SPDX-License-Identifier: GPL-3.0-or-later
//
// The work flows of drydock-workflows(7), from end to end: drydock does the work, QEMU's programs write as guests would
// and say whether each disk holds what it should.

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/support/in_process.h"
#include "tests/support/support.h"

namespace drydock {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using test::drydock;
using test::Outcome;
using test::run;
using test::run_ok;

class workflows : public testing::Test {
 protected:
  std::string path(const std::string& name) const { return dir_.file(name); }

  // A command of drydock's that must succeed; its standard output.
  static std::string done(const std::vector<std::string>& words) {
    const Outcome outcome = drydock(words);
    EXPECT_EQ(outcome.status, 0) << words.front() << ": " << outcome.err;
    EXPECT_EQ(outcome.err, "") << words.front();
    return outcome.out;
  }

  // As a guest would.
  void write(const std::string& name, int pattern, const std::string& range) const {
    run_ok({"qemu-io", "-f", format_of(name), "-c", fmt::format("write -P {} {}", pattern, range), path(name)});
  }

  void expect_holds(const std::string& name, int pattern, const std::string& range) const {
    const Outcome read =
        run({"qemu-io", "-r", "-f", format_of(name), "-c", fmt::format("read -P {} {}", pattern, range), path(name)});
    EXPECT_EQ(read.status, 0) << name << ": " << read.err;
    EXPECT_EQ(read.out.find("verification failed"), std::string::npos) << name << " at " << range << ": " << read.out;
  }

  void expect_same(const std::string& a, const std::string& b) const {
    const Outcome compared = run({"qemu-img", "compare", path(a), path(b)});
    EXPECT_EQ(compared.status, 0) << a << ", " << b << ": " << compared.out << compared.err;
  }

  void expect_clean(const std::string& name) const {
    const Outcome check = run({"qemu-img", "check", path(name)});
    EXPECT_EQ(check.status, 0) << name << ": " << check.out << check.err;
  }

  json info(const std::string& name) const { return json::parse(done({"info", "--output=json", path(name)})); }
  std::string hash(const std::string& name) const {
    return json::parse(done({"info", "--hash", "--output=json", path(name)})).at("content-hash");
  }
  uint64_t disk_use(const std::string& name) const { return info(name).at("actual-size"); }

  void overlay(const std::string& name, const std::string& below) const {
    done({"create", "-q", "-f", "qcow2", "-b", below, "-F", "qcow2", path(name)});
  }
  // What the disk holds, in an image that stands alone.
  void remember(const std::string& name, const std::string& as) const {
    run_ok({"qemu-img", "convert", "-O", "qcow2", path(name), path(as)});
  }

 private:
  static std::string format_of(const std::string& name) { return name.ends_with(".raw") ? "raw" : "qcow2"; }

  test::TempDir dir_;
};

TEST_F(workflows, a_chain_is_committed_down_rebased_up_and_flattened) {
  done({"create", "-q", "-f", "qcow2", path("base.qcow2"), "64M"});
  write("base.qcow2", 1, "0 8M");
  overlay("middle.qcow2", "base.qcow2");
  write("middle.qcow2", 2, "4M 8M");
  overlay("top.qcow2", "middle.qcow2");
  write("top.qcow2", 3, "6M 1M");
  write("top.qcow2", 4, "40M 1M");
  remember("top.qcow2", "expected.qcow2");

  done({"commit", path("top.qcow2")});
  expect_same("middle.qcow2", "expected.qcow2");
  expect_same("top.qcow2", "expected.qcow2");
  for (const json& extent : json::parse(done({"map", "--output=json", path("top.qcow2")}))) {
    EXPECT_FALSE(extent.at("present") && extent.at("depth") == 0) << "top is empty: " << extent;
  }

  write("top.qcow2", 5, "50M 1M");
  remember("top.qcow2", "expected.qcow2");
  done({"rebase", "-b", "base.qcow2", "-F", "qcow2", path("top.qcow2")});
  fs::remove(path("middle.qcow2"));
  EXPECT_EQ(info("top.qcow2").at("backing-filename"), "base.qcow2");
  expect_same("top.qcow2", "expected.qcow2");
  expect_holds("top.qcow2", 2, "4M 2M");
  expect_clean("top.qcow2");

  done({"rebase", "-b", "", path("top.qcow2")});
  fs::remove(path("base.qcow2"));
  EXPECT_FALSE(info("top.qcow2").contains("backing-filename"));
  expect_same("top.qcow2", "expected.qcow2");
  expect_holds("top.qcow2", 1, "0 4M");
  expect_clean("top.qcow2");
}

TEST_F(workflows, the_layers_above_a_base_are_committed_into_it_at_once) {
  done({"create", "-q", "-f", "qcow2", path("base.qcow2"), "32M"});
  write("base.qcow2", 1, "0 8M");
  overlay("middle.qcow2", "base.qcow2");
  write("middle.qcow2", 2, "4M 8M");
  overlay("top.qcow2", "middle.qcow2");
  write("top.qcow2", 3, "6M 1M");
  remember("top.qcow2", "expected.qcow2");
  done({"commit", "-b", "base.qcow2", path("top.qcow2")});
  fs::remove(path("top.qcow2"));
  fs::remove(path("middle.qcow2"));
  expect_same("base.qcow2", "expected.qcow2");
  expect_clean("base.qcow2");
}

TEST_F(workflows, linked_clones_share_one_base) {
  done({"create", "-q", "-f", "qcow2", path("golden.qcow2"), "64M"});
  write("golden.qcow2", 1, "0 16M");
  fs::permissions(path("golden.qcow2"), fs::perms::owner_read);
  for (const int clone : {1, 2, 3}) {
    const std::string name = fmt::format("clone{}.qcow2", clone);
    overlay(name, "golden.qcow2");
    EXPECT_LT(disk_use(name), 1U << 20) << "a clone takes next to nothing";
    write(name, 10 + clone, "1M 64k");
  }
  for (const int clone : {1, 2, 3}) {
    const std::string name = fmt::format("clone{}.qcow2", clone);
    expect_holds(name, 10 + clone, "1M 64k");
    expect_holds(name, 1, "2M 14M");
    expect_clean(name);
  }
  expect_holds("golden.qcow2", 1, "0 16M");
}

TEST_F(workflows, snapshots_are_taken_listed_applied_and_deleted) {
  done({"create", "-q", "-f", "qcow2", path("guest.qcow2"), "32M"});
  write("guest.qcow2", 1, "0 4M");
  done({"snapshot", "-c", "installed", path("guest.qcow2")});
  write("guest.qcow2", 2, "0 4M");
  done({"snapshot", "-c", "updated", path("guest.qcow2")});
  write("guest.qcow2", 3, "0 4M");
  std::vector<std::string> names;
  for (const json& one : json::parse(done({"snapshot", "-l", "--output=json", path("guest.qcow2")}))) {
    names.push_back(one.at("name"));
  }
  EXPECT_EQ(names, (std::vector<std::string>{"installed", "updated"}));
  done({"snapshot", "-a", "installed", path("guest.qcow2")});
  expect_holds("guest.qcow2", 1, "0 4M");
  done({"snapshot", "-a", "updated", path("guest.qcow2")});
  expect_holds("guest.qcow2", 2, "0 4M");
  const uint64_t before = disk_use("guest.qcow2");
  done({"snapshot", "-d", "installed", path("guest.qcow2")});
  EXPECT_LT(disk_use("guest.qcow2"), before) << "its space is the host's again";
  done({"snapshot", "-d", "updated", path("guest.qcow2")});
  EXPECT_EQ(done({"snapshot", "-l", path("guest.qcow2")}), "");
  expect_holds("guest.qcow2", 2, "0 4M");
  expect_clean("guest.qcow2");
}

TEST_F(workflows, raw_becomes_qcow2_and_raw_again) {
  done({"create", "-q", path("disk.raw"), "32M"});
  write("disk.raw", 1, "1M 3M");
  write("disk.raw", 2, "30M 1M");
  done({"convert", "-f", "raw", "-O", "qcow2", path("disk.raw"), path("disk.qcow2")});
  expect_same("disk.raw", "disk.qcow2");
  expect_clean("disk.qcow2");
  done({"convert", "-O", "raw", path("disk.qcow2"), path("again.raw")});
  EXPECT_EQ(test::read_file(path("disk.raw")), test::read_file(path("again.raw")));
  EXPECT_LT(disk_use("again.raw"), 6U << 20) << "holes stay holes";
  EXPECT_EQ(hash("disk.raw"), hash("disk.qcow2"));
  EXPECT_EQ(hash("disk.raw"), hash("again.raw"));
}

TEST_F(workflows, preallocation_takes_the_space_that_it_says) {
  constexpr uint64_t size = 16 << 20;
  for (const std::string format : {"qcow2", "raw"}) {
    for (const std::string mode : {"off", "metadata", "falloc", "full"}) {
      if (format == "raw" && mode == "metadata") continue;
      const std::string name = fmt::format("{}.{}", mode, format);
      done({"create", "-q", "-f", format, "-o", "preallocation=" + mode, path(name), "16M"});
      const bool reserved = mode == "falloc" || mode == "full";
      EXPECT_EQ(disk_use(name) >= size, reserved) << name << ": " << disk_use(name);
      expect_holds(name, 0, "0 16M");
      const json map = json::parse(run_ok({"qemu-img", "map", "--output=json", path(name)}));
      const bool mapped = format == "raw" || mode != "off";
      EXPECT_EQ(map[0].at("present"), mapped) << name;
    }
  }
}

TEST_F(workflows, a_disk_grows_and_shrinks) {
  for (const std::string name : {"guest.qcow2", "guest.raw"}) {
    const std::string format = name.substr(name.find('.') + 1);
    done({"create", "-q", "-f", format, path(name), "16M"});
    write(name, 1, "0 16M");
    done({"resize", "-q", "-f", format, path(name), "+16M"});
    expect_holds(name, 1, "0 16M");
    expect_holds(name, 0, "16M 16M");
    write(name, 2, "30M 1M");
    done({"resize", "-q", "-f", format, "--preallocation=full", path(name), "48M"});
    EXPECT_GE(disk_use(name), 16U << 20);
    expect_holds(name, 0, "32M 16M");
    EXPECT_EQ(drydock({"resize", "-q", "-f", format, path(name), "-40M"}).status, 1) << "data would be lost";
    done({"resize", "-q", "-f", format, "--shrink", path(name), "-40M"});
    EXPECT_EQ(info(name).at("virtual-size"), 8 << 20);
    EXPECT_LE(disk_use(name), 9U << 20);
    expect_holds(name, 1, "0 8M");
    done({"resize", "-q", "-f", format, path(name), "16M"});
    expect_holds(name, 0, "8M 8M");
  }
  expect_clean("guest.qcow2");
}

TEST_F(workflows, a_disk_is_compressed) {
  done({"create", "-q", "-f", "qcow2", path("guest.qcow2"), "32M"});
  write("guest.qcow2", 1, "0 16M");
  for (const std::string type : {"zlib", "zstd"}) {
    const std::string name = type + ".qcow2";
    done({"convert", "-c", "-O", "qcow2", "-o", "compression_type=" + type, path("guest.qcow2"), path(name)});
    EXPECT_LT(disk_use(name), disk_use("guest.qcow2") / 8) << type;
    expect_same(name, "guest.qcow2");
    EXPECT_EQ(hash(name), hash("guest.qcow2"));
    write(name, 2, "1M 64k");
    expect_clean(name);
  }
}

TEST_F(workflows, a_base_moves_and_its_overlays_follow) {
  done({"create", "-q", "-f", "qcow2", path("base.qcow2"), "16M"});
  write("base.qcow2", 1, "0 4M");
  for (const std::string name : {"one.qcow2", "two.qcow2"}) {
    overlay(name, "base.qcow2");
    write(name, 2, "1M 64k");
  }
  remember("one.qcow2", "expected.qcow2");
  fs::create_directory(path("bases"));
  fs::rename(path("base.qcow2"), path("bases/base.qcow2"));
  EXPECT_EQ(drydock({"map", path("one.qcow2")}).status, 1) << "its base is gone";
  for (const std::string name : {"one.qcow2", "two.qcow2"}) {
    done({"rebase", "-u", "-b", "bases/base.qcow2", "-F", "qcow2", path(name)});
    expect_same(name, "expected.qcow2");
    expect_clean(name);
  }
}

}  // namespace
}  // namespace drydock
