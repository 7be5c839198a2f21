// SPDX-License-Identifier: GPL-3.0-or-later
//
// `drydock serve` with a folder of images, and clients that other tests do not have.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/interop/served.h"

namespace drydock {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::Contains;
using testing::ElementsAreArray;
using testing::HasSubstr;

class nbd_folder : public testing::Test {
 protected:
  nbd_folder() {
    fs::create_directory(folder);
    test::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", folder + "/base.qcow2", "8M"});
    test::run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 1 0 8M", folder + "/base.qcow2"});
    test::run_ok(
        {"qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", folder + "/guest.qcow2"});
    test::run_ok({"qemu-img", "snapshot", "-c", "empty", folder + "/guest.qcow2"});
    test::run_ok({"qemu-io", "-f", "qcow2", "-c", "write -q -P 2 1M 64k", folder + "/guest.qcow2"});
  }

  std::string uri(const std::string& name) const { return "nbd+unix:///" + name + "?socket=" + socket; }
  std::vector<std::string> listed() const {
    std::vector<std::string> names;
    const json list = json::parse(test::run_ok({"nbdinfo", "--list", "--json", uri("")}));
    for (const auto& one : list["exports"]) {
      names.push_back(one["export-name"]);
    }
    return names;
  }
  void expect_bytes(const std::string& name, const std::string& read) const {
    EXPECT_THAT(test::run_ok({"qemu-io", "-r", "-f", "raw", "-c", read, uri(name)}), testing::Not(HasSubstr("failed")))
        << name;
  }

  test::TempDir dir;
  std::string folder = dir.file("images");
  std::string socket = dir.file("socket");
};

TEST_F(nbd_folder, every_disk_snapshot_and_layer_is_an_export) {
  const Served served({"--socket", socket, folder});
  EXPECT_THAT(listed(), ElementsAreArray({"base.qcow2", "base.qcow2/disk", "guest.qcow2", "guest.qcow2/disk",
                                          "guest.qcow2/snapshots/empty", "guest.qcow2/backing/1"}));
  expect_bytes("guest.qcow2", "read -P 2 1M 64k");
  expect_bytes("guest.qcow2/snapshots/empty", "read -P 1 1M 64k");
  expect_bytes("guest.qcow2/backing/1", "read -P 1 1M 64k");
  EXPECT_NE(test::run({"qemu-io", "-f", "raw", "-c", "write 0 64k", uri("guest.qcow2")}).status, 0);
  fs::copy(folder + "/base.qcow2", folder + "/new.qcow2");
  expect_bytes("new.qcow2", "read -P 1 0 64k");
  EXPECT_THAT(listed(), Contains("new.qcow2/disk"));
}

TEST_F(nbd_folder, with_scratch_files_everything_is_there_and_counts_as_without) {
  test::run_ok({"qemu-img", "bitmap", "-f", "qcow2", "--add", folder + "/guest.qcow2", "monday"});
  for (const std::string& source : {folder, folder + "/guest.qcow2"}) {
    const auto shown = [&](const std::vector<std::string>& more) {
      std::vector<std::string> words{"--socket", socket};
      words.insert(words.end(), more.begin(), more.end());
      words.push_back(source);
      const Served served(words);
      const std::string disk = uri(source == folder ? "guest.qcow2" : "disk");
      std::string text = test::run_ok({"nbdinfo", "--map=qemu:allocation-depth", disk});
      text += test::run_ok({"nbdinfo", "--map=qemu:dirty-bitmap:monday", disk});
      for (const std::string& each : served.uris()) text += each + "\n";
      return text;
    };
    EXPECT_EQ(shown({"--snapshot"}), shown({})) << source;
  }
  // What is written counts as the image's own.
  const Served served({"--snapshot", "--socket", socket, folder + "/guest.qcow2"});
  test::run_ok({"qemu-io", "-f", "raw", "-c", "write -q -P 7 4M 64k", "-c", "read -q -P 7 4M 64k", uri("disk")});
  expect_bytes("disk", "read -P 1 0 64k");
  EXPECT_THAT(test::run_ok({"nbdinfo", "--map=qemu:allocation-depth", uri("disk")}),
              testing::ContainsRegex(" 4194304 +65536 +1 "));
  expect_bytes("snapshots/empty", "read -P 1 4M 64k");
}

TEST_F(nbd_folder, what_is_written_is_in_the_image_when_the_server_ends) {
  Served served({"--rw", "--socket", socket, folder});
  test::run_ok({"qemu-io", "-f", "raw", "-c", "write -q -P 5 2M 64k", uri("guest.qcow2")});
  test::run_ok({"qemu-io", "-f", "raw", "-c", "write -q -P 6 3M 64k", uri("guest.qcow2/disk")});
  EXPECT_EQ(served.end(SIGTERM), 0);
  EXPECT_EQ(served.err(), "");
  test::run_ok(
      {"qemu-io", "-r", "-f", "qcow2", "-c", "read -P 5 2M 64k", "-c", "read -P 6 3M 64k", folder + "/guest.qcow2"});
  EXPECT_EQ(test::run({"qemu-img", "check", "-q", folder + "/guest.qcow2"}).status, 0);
}

TEST_F(nbd_folder, an_image_in_use_elsewhere_is_told_of_and_the_others_are_served) {
  const test::Process writer({"qemu-nbd", "-t", "-k", dir.file("writer"), folder + "/base.qcow2"});
  ASSERT_TRUE(answers(dir.file("writer")));
  test::run_ok({"truncate", "-s", "1M", folder + "/other.raw"});
  const Served served({"--socket", socket, folder});
  const auto outcome = test::run({"nbdinfo", uri("base.qcow2")});
  EXPECT_NE(outcome.status, 0);
  EXPECT_THAT(outcome.err, HasSubstr("base.qcow2"));
  EXPECT_EQ(test::run_ok({"nbdinfo", "--size", uri("other.raw")}), "1048576\n");
}

TEST_F(nbd_folder, nbdkit_in_front_and_nbdsh_get_the_same_bytes) {
  const Served served({"--rw", "--socket", socket, folder});
  const std::string copy = dir.file("copy.raw");
  test::run_ok({"nbdkit", "-U", "-", "nbd", "socket=" + socket, "export=guest.qcow2", "shared=true", "--run",
                "nbdcopy \"$uri\" " + copy});
  test::run_ok({"qemu-img", "compare", "-U", "-f", "raw", "-F", "qcow2", copy, folder + "/guest.qcow2"});
  const std::string script =
      "h.add_meta_context('base:allocation')\n"
      "h.connect_uri('" +
      uri("guest.qcow2") +
      "')\n"
      "h.pwrite(b'x' * 512, 512, nbd.CMD_FLAG_FUA)\n"
      "assert h.pread(512, 512) == bytearray(b'x' * 512)\n"
      "h.zero(65536, 0, nbd.CMD_FLAG_FAST_ZERO)\n"
      "assert h.pread(512, 512) == bytearray(512)\n"
      "h.cache(65536, 0)\n"
      "h.trim(65536, 65536)\n"
      "h.flush()\n"
      "found = []\n"
      "h.block_status(131072, 0, lambda context, offset, entries, error: found.append(entries))\n"
      "assert len(found) == 1, found\n"
      "try:\n"
      "  h.pread(512, h.get_size())\n"
      "  assert False\n"
      "except nbd.Error as error:\n"
      "  assert error.errno == 'EINVAL', error\n";
  test::run_ok({"/usr/bin/python3", "-m", "nbd", "-c", script});
}

}  // namespace
}  // namespace drydock
