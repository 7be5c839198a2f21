// SPDX-License-Identifier: GPL-3.0-or-later
//
// `drydock serve` as a process, with other people's NBD clients.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/interop/served.h"
#include "tests/support/support.h"

namespace drydock {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::StartsWith;

constexpr uint64_t mib = 1 << 20;

class nbd_interop : public testing::Test {
 protected:
  // Data, hole, data; with an MBR that makes p1 of the hole and what follows.
  nbd_interop() {
    std::vector<std::byte> bytes = test::random_bytes(3, 8 * mib);
    std::fill_n(bytes.begin() + 2 * mib, 4 * mib, std::byte{0});
    test::write_file(dir.file("full.raw"), bytes);
    test::run_ok({"cp", "--sparse=always", dir.file("full.raw"), image});
    test::run_ok({"sh", "-c", "echo 'start=4096,type=83' | sfdisk -q " + image});
  }

  std::string socket_uri(const std::string& name) const { return "nbd+unix:///" + name + "?socket=" + socket; }

  test::TempDir dir;
  std::string image = dir.file("guest.raw");
  std::string socket = dir.file("socket");
};

TEST_F(nbd_interop, nbdinfo_lists_the_disk_and_its_partitions) {
  Served served({"--socket", socket, image});
  EXPECT_EQ(served.uris(), (std::vector{socket_uri("disk"), socket_uri("p1")}));
  const json listed = json::parse(test::run_ok({"nbdinfo", "--list", "--json", socket_uri("")}));
  ASSERT_EQ(listed["exports"].size(), 2U);
  EXPECT_EQ(listed["exports"][0]["export-name"], "disk");
  EXPECT_EQ(listed["exports"][0]["export-size"], 8 * mib);
  EXPECT_EQ(listed["exports"][0]["is_read_only"], true);
  EXPECT_EQ(listed["exports"][0]["can_multi_conn"], true);
  EXPECT_EQ(listed["exports"][1]["export-name"], "p1");
  EXPECT_EQ(listed["exports"][1]["export-size"], 6 * mib);
}

TEST_F(nbd_interop, nbdcopy_gets_the_same_bytes_over_one_connection_and_many) {
  Served served({"--socket", socket, image});
  for (const char* connections : {"--connections=1", "--connections=4"}) {
    for (const char* size : {"--request-size=65536", "--request-size=1048576"}) {
      test::run_ok({"nbdcopy", connections, size, socket_uri(""), dir.file("copy")});
      EXPECT_EQ(test::read_file(dir.file("copy")), test::read_file(image));
    }
  }
  test::run_ok({"nbdcopy", socket_uri("p1"), dir.file("part")});
  const auto all = test::read_file(image);
  EXPECT_EQ(test::read_file(dir.file("part")), std::vector(all.begin() + 2 * mib, all.end()));
}

TEST_F(nbd_interop, maps_equal_those_of_qemu_img) {
  Served served({"--socket", socket, image});
  const json map = json::parse(test::run_ok({"nbdinfo", "--map", "--json", socket_uri("")}));
  const json expected = json::parse(test::run_ok({"qemu-img", "map", "--output=json", "-f", "raw", image}));
  ASSERT_EQ(map.size(), expected.size());
  for (size_t i = 0; i < map.size(); ++i) {
    EXPECT_EQ(map[i]["offset"], expected[i]["start"]);
    EXPECT_EQ(map[i]["length"], expected[i]["length"]);
    EXPECT_EQ(map[i]["type"] == 0, expected[i]["data"] == true);
  }
}

TEST_F(nbd_interop, qemu_reads_compares_and_converts) {
  const std::string qcow2 = dir.file("guest.qcow2");
  test::run_ok({"qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", image, qcow2});
  test::run_ok({"qemu-img", "snapshot", "-c", "before", qcow2});
  test::run_ok({"qemu-io", "-f", "qcow2", "-c", "write -P 7 1M 1M", qcow2});
  Served served({"--socket", socket, qcow2});
  test::run_ok({"qemu-img", "compare", "-f", "raw", "-F", "qcow2", socket_uri(""), qcow2});
  test::run_ok({"qemu-img", "compare", "-f", "raw", "-F", "raw", socket_uri("snapshots/before"), image});
  test::run_ok({"qemu-img", "convert", "-f", "raw", "-O", "raw", socket_uri(""), dir.file("copy")});
  test::run_ok({"qemu-img", "compare", "-f", "raw", "-F", "qcow2", dir.file("copy"), qcow2});
}

TEST_F(nbd_interop, a_writable_raw_image_takes_what_clients_write) {
  Served served({"--rw", "-f", "raw", "--socket", socket, image});
  test::run_ok({"nbdcopy", dir.file("full.raw"), socket_uri("")});
  test::run_ok({"qemu-io", "-f", "raw", "-c", "write -P 5 64k 64k", "-c", "write -z 1M 1M", "-c", "discard 2M 64k",
                "-c", "flush", "-c", "read -P 5 64k 64k", "-c", "read -P 0 1M 1M", socket_uri("")});
  EXPECT_EQ(served.end(SIGTERM), 0);
  auto expected = test::read_file(dir.file("full.raw"));
  std::fill_n(expected.begin() + (64 << 10), 64 << 10, std::byte{5});
  std::fill_n(expected.begin() + mib, mib, std::byte{0});
  EXPECT_EQ(test::read_file(image), expected);
}

TEST_F(nbd_interop, a_writable_qcow2_image_takes_what_clients_write) {
  const std::string qcow2 = dir.file("guest.qcow2");
  test::run_ok({"qemu-img", "convert", "-f", "raw", "-O", "qcow2", dir.file("full.raw"), qcow2});
  Served served({"--rw", "--socket", socket, qcow2});
  test::run_ok({"qemu-io", "-f", "raw", "-c", "write -P 5 64k 64k", "-c", "write -z 1M 1M", "-c", "write -P 6 3M 5k",
                "-c", "flush", "-c", "read -P 5 64k 64k", "-c", "read -P 0 1M 1M", socket_uri("")});
  EXPECT_EQ(served.end(SIGTERM), 0);
  auto expected = test::read_file(dir.file("full.raw"));
  std::fill_n(expected.begin() + (64 << 10), 64 << 10, std::byte{5});
  std::fill_n(expected.begin() + mib, mib, std::byte{0});
  std::fill_n(expected.begin() + 3 * mib, 5 << 10, std::byte{6});
  test::run_ok({"qemu-img", "check", qcow2});
  test::run_ok({"qemu-img", "convert", "-O", "raw", qcow2, dir.file("read.raw")});
  EXPECT_EQ(test::read_file(dir.file("read.raw")), expected);
}

TEST_F(nbd_interop, fio_verifies_what_it_wrote) {
  Served served({"--rw", "-f", "raw", "--socket", socket, image});
  test::run_ok({"fio", "--name=verify", "--ioengine=nbd", "--uri=" + socket_uri("disk"), "--rw=randrw", "--bs=4k",
                "--size=4M", "--iodepth=32", "--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0",
                "--output=" + dir.file("fio")});
}

TEST_F(nbd_interop, many_clients_read_at_once) {
  Served served({"--socket", socket, image});
  std::vector<std::thread> clients;
  std::vector<int> statuses(8);
  for (int& status : statuses) {
    clients.emplace_back([&] {
      status = test::run({"qemu-img", "compare", "-f", "raw", "-F", "raw", socket_uri(""), image}).status;
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(statuses, std::vector<int>(8, 0));
}

TEST_F(nbd_interop, several_images_are_told_apart_by_their_file_names) {
  std::filesystem::create_directory(dir.file("other"));
  std::filesystem::copy(image, dir.file("other/guest.raw"));
  Served served({"--socket", socket, image, dir.file("full.raw"), dir.file("other/guest.raw")});
  EXPECT_EQ(served.uris(),
            (std::vector{socket_uri("guest.raw"), socket_uri("guest.raw/disk"), socket_uri("guest.raw/p1"),
                         socket_uri("full.raw"), socket_uri("full.raw/disk"), socket_uri("guest.raw~2"),
                         socket_uri("guest.raw~2/disk"), socket_uri("guest.raw~2/p1")}));
  EXPECT_NE(test::run({"nbdinfo", "--size", socket_uri("")}).status, 0);
  test::run_ok({"qemu-img", "compare", "-f", "raw", "-F", "raw", socket_uri("full.raw"), dir.file("full.raw")});
}

TEST_F(nbd_interop, a_port_and_a_private_socket_serve_too) {
  for (const std::vector<std::string>& words : {std::vector<std::string>{"--port", "0"}, std::vector<std::string>{}}) {
    std::vector<std::string> all = words;
    all.push_back(image);
    Served served(all);
    EXPECT_THAT(served.uris()[0], StartsWith(words.empty() ? "nbd+unix:///disk?socket=/" : "nbd://localhost:"));
    EXPECT_EQ(test::run_ok({"nbdinfo", "--size", served.uris()[0]}), "8388608\n");
    EXPECT_EQ(served.end(SIGINT), 0);
  }
}

TEST_F(nbd_interop, safety_7_signals_end_it_with_0_and_leave_nothing) {
  for (const int signal : {SIGTERM, SIGINT}) {
    Served served({"--socket", socket, image});
    EXPECT_EQ(served.end(signal), 0);
    EXPECT_EQ(served.err(), "");
    EXPECT_FALSE(std::filesystem::exists(socket));
  }
  std::string folder;
  {
    Served served({image});
    const std::string uri = served.uris()[0];
    folder = std::filesystem::path(uri.substr(uri.find("socket=") + 7)).parent_path();
    ASSERT_TRUE(std::filesystem::exists(folder));
    EXPECT_EQ(served.end(SIGTERM), 0);
  }
  EXPECT_FALSE(std::filesystem::exists(folder));
}

TEST_F(nbd_interop, a_second_instance_is_refused_and_a_killed_ones_socket_replaced) {
  Served first({"--socket", socket, image});
  const auto second = test::run({test::drydock_program(), "serve", "--socket", socket, image});
  EXPECT_EQ(second.status, 1);
  EXPECT_EQ(second.err, "drydock serve: Could not listen on '" + socket + "': another process is listening there\n");
  EXPECT_EQ(test::run_ok({"nbdinfo", "--size", socket_uri("")}), "8388608\n");
  first.end(SIGKILL);
  EXPECT_TRUE(std::filesystem::exists(socket));
  Served third({"--socket", socket, image});
  EXPECT_EQ(test::run_ok({"nbdinfo", "--size", socket_uri("")}), "8388608\n");
}

TEST_F(nbd_interop, safety_1_serving_and_reading_writes_no_byte) {
  const auto before = test::read_file(image);
  const auto time = std::filesystem::last_write_time(image);
  {
    Served served({"--socket", socket, image});
    test::run_ok({"nbdcopy", socket_uri(""), "null:"});
    EXPECT_NE(test::run({"qemu-io", "-f", "raw", "-c", "write 0 512", socket_uri("")}).status, 0);
    EXPECT_EQ(served.end(SIGTERM), 0);
  }
  EXPECT_EQ(test::read_file(image), before);
  EXPECT_EQ(std::filesystem::last_write_time(image), time);
}

TEST_F(nbd_interop, an_unprivileged_user_serves_what_he_can_read) {
  std::filesystem::permissions(dir.path(), std::filesystem::perms(0755));
  std::filesystem::permissions(image, std::filesystem::perms(0644));
  const std::string command = "S=/tmp/drydock-nobody-$$; '" + test::drydock_program() + "' serve --socket $S '" +
                              image +
                              "' >/dev/null & P=$!; while ! test -S $S; do kill -0 $P || exit 1; sleep 0.1; done; "
                              "nbdinfo --size \"nbd+unix:///?socket=$S\"; kill -TERM $P; wait $P";
  EXPECT_EQ(test::run_ok({"su", "nobody", "-s", "/bin/sh", "-c", command}), "8388608\n");
}

struct BadInput {
  std::vector<std::string> words;
  std::string message;
};

TEST_F(nbd_interop, bad_input_is_one_clear_line_and_nothing_listens) {
  test::write_file(dir.file("truncated.qcow2"), std::string("QFI\xfb\0\0\0\3", 8));
  const std::vector<BadInput> cases{
      {{dir.file("gone")}, "No such file"},
      {{dir.file("truncated.qcow2")}, "truncated"},
      {{"-f", "qcow2", image}, "guest.raw"},
      {{image, dir.file("gone")}, "No such file"},
      {{"--port", "70000", image}, "--port 70000"},
      {{"--port", "1", "--socket", socket, image}, "exclude each other"},
      {{"--bind", "::", image}, "--bind goes with --port"},
      {{}, "at least one image"},
  };
  for (const BadInput& bad : cases) {
    std::vector<std::string> words{test::drydock_program(), "serve"};
    const bool own_socket = std::ranges::count(bad.words, "--port") == 0;
    if (own_socket) words.insert(words.end(), {"--socket", socket});
    words.insert(words.end(), bad.words.begin(), bad.words.end());
    const auto outcome = test::run(words);
    EXPECT_EQ(outcome.status, 1) << bad.message;
    EXPECT_EQ(outcome.out, "");
    EXPECT_THAT(outcome.err, StartsWith("drydock serve: "));
    EXPECT_THAT(outcome.err, HasSubstr(bad.message));
    EXPECT_FALSE(std::filesystem::exists(socket));
  }
}

}  // namespace
}  // namespace drydock
