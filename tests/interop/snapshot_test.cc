// SPDX-License-Identifier: GPL-3.0-or-later

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/support/in_process.h"
#include "tests/support/support.h"

namespace drydock {
namespace {

using test::drydock;
using test::Outcome;
using test::run;
using test::run_ok;

struct Guest {
  test::TempDir dir;
  std::string path = dir.file("guest.qcow2");

  explicit Guest(const std::string& options = "cluster_size=64k") {
    run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, "16M"});
  }
  void write(int pattern, const std::string& range) const {
    run_ok({"qemu-io", "-c", fmt::format("write -P {} {}", pattern, range), path});
  }
  bool holds(int pattern, const std::string& range) const {
    return run_ok({"qemu-io", "-c", fmt::format("read -P {} {}", pattern, range), path}).find("verification failed") ==
           std::string::npos;
  }
  void expect_clean() const {
    const Outcome outcome = run({"qemu-img", "check", path});
    EXPECT_EQ(outcome.status, 0) << outcome.out << outcome.err;
  }
};

TEST(snapshot_command, takes_applies_and_deletes_what_qemu_reads) {
  for (const char* options : {"cluster_size=512", "cluster_size=64k", "cluster_size=2M", "extended_l2=on",
                              "refcount_bits=4", "refcount_bits=64", "lazy_refcounts=on", "compat=0.10"}) {
    const Guest guest(options);
    guest.write(1, "0 3M");
    EXPECT_EQ(drydock({"snapshot", "-c", "one", guest.path}).err, "") << options;
    guest.write(2, "1M 3M");
    EXPECT_EQ(drydock({"snapshot", "-c", "two", guest.path}).status, 0) << options;
    guest.write(3, "0 1M");
    guest.expect_clean();
    EXPECT_EQ(drydock({"snapshot", "-a", "one", guest.path}).status, 0) << options;
    EXPECT_TRUE(guest.holds(1, "0 3M")) << options;
    EXPECT_TRUE(guest.holds(0, "3M 13M")) << options;
    guest.expect_clean();
    run_ok({"qemu-img", "snapshot", "-a", "two", guest.path});
    EXPECT_TRUE(guest.holds(1, "0 1M")) << options;
    EXPECT_TRUE(guest.holds(2, "1M 3M")) << options;
    EXPECT_EQ(drydock({"snapshot", "-d", "two", guest.path}).status, 0) << options;
    EXPECT_EQ(drydock({"snapshot", "-d", "one", guest.path}).status, 0) << options;
    EXPECT_TRUE(guest.holds(2, "1M 3M")) << options;
    EXPECT_EQ(run_ok({"qemu-img", "snapshot", "-l", guest.path}), "") << options;
    guest.expect_clean();
  }
}

TEST(snapshot_command, handles_snapshots_that_qemu_took) {
  const Guest guest;
  guest.write(1, "0 2M");
  run_ok({"qemu-img", "snapshot", "-c", "one", guest.path});
  guest.write(2, "0 2M");
  run_ok({"qemu-img", "snapshot", "-c", "two", guest.path});
  EXPECT_EQ(drydock({"snapshot", "-l", guest.path}).out, run_ok({"qemu-img", "snapshot", "-l", guest.path}));
  EXPECT_EQ(drydock({"snapshot", "-a", "1", guest.path}).status, 0);
  EXPECT_TRUE(guest.holds(1, "0 2M"));
  guest.expect_clean();
  EXPECT_EQ(drydock({"snapshot", "-d", "one", guest.path}).status, 0);
  guest.expect_clean();
  EXPECT_TRUE(guest.holds(1, "0 2M"));
}

TEST(snapshot_command, names_what_is_not_there_as_qemu_img_does) {
  const Guest guest;
  const Outcome apply = drydock({"snapshot", "-a", "none", guest.path});
  EXPECT_EQ(apply.status, 1);
  EXPECT_EQ(apply.err,
            "drydock snapshot: Could not apply snapshot 'none': Failed to load snapshot: No such file or directory\n");
  const Outcome remove = drydock({"snapshot", "-d", "none", guest.path});
  EXPECT_EQ(remove.status, 1);
  EXPECT_EQ(remove.err, "drydock snapshot: Could not delete snapshot 'none': snapshot not found\n");
  EXPECT_EQ(drydock({"snapshot", "-c", "a", "-d", "b", guest.path}).status, 1);
}

TEST(resize_command, grows_and_shrinks_what_qemu_reads) {
  for (const char* options : {"cluster_size=512", "cluster_size=64k", "extended_l2=on", "compat=0.10"}) {
    const Guest guest(options);
    guest.write(1, "0 16M");
    EXPECT_EQ(drydock({"resize", guest.path, "+16M"}).out, "Image resized.\n") << options;
    EXPECT_TRUE(guest.holds(0, "16M 16M")) << options;
    EXPECT_EQ(drydock({"resize", guest.path, "5M"}).status, 1) << options;
    EXPECT_EQ(drydock({"resize", "--shrink", guest.path, "5M"}).status, 0) << options;
    EXPECT_EQ(drydock({"resize", "-q", "--preallocation=full", guest.path, "8M"}).out, "") << options;
    EXPECT_TRUE(guest.holds(1, "0 5M")) << options;
    EXPECT_TRUE(guest.holds(0, "5M 3M")) << options;
    guest.expect_clean();
  }
}

TEST(bench_command, writes_what_it_says) {
  const Guest guest;
  const Outcome outcome = drydock(
      {"bench", "-w", "-c", "256", "-s", "64k", "-d", "8", "--pattern", "9", "--flush-interval", "64", guest.path});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_TRUE(outcome.out.starts_with(
      "Sending 256 write requests, 65536 bytes each, 8 in parallel (starting at offset 0, step size 65536)\n"))
      << outcome.out;
  EXPECT_TRUE(guest.holds(9, "0 15M"));
  guest.expect_clean();
  const Outcome json = drydock({"bench", "-c", "10", "--output=json", guest.path});
  EXPECT_EQ(nlohmann::json::parse(json.out).at("requests"), 10);
}

}  // namespace
}  // namespace drydock
