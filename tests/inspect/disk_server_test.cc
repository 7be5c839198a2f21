// SPDX-License-Identifier: GPL-3.0-or-later
//
// The process that serves a guest's disks to libguestfs.

#include "inspect/disk_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <filesystem>

#include "inspect/interruption.h"
#include "src/image.h"
#include "src/raw_disk.h"
#include "tests/nbd/raw_client.h"
#include "tests/support/sandbox_probe.h"
#include "tests/support/support.h"

namespace drydock {
namespace {

using nbd::RawClient;
using testing::HasSubstr;

ServedDisks probe_in(const std::string& folder) {
  return {.disks = {{.disk = std::make_shared<test::SandboxProbe>(folder)}}, .warnings = {}};
}

class disk_server : public testing::Test {
 protected:
  disk_server() { test::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", image_, "1M"}); }

  ServedDisks open_image(bool writable) const {
    const std::shared_ptr<Image> image = Image::open(image_, {.format = Format::qcow2, .writable = writable});
    return {.disks = {{.disk = image->disk(), .sector_size = 4096}}, .warnings = {"one", "two"}, .close = [image] {
              image->close();
            }};
  }

  DiskOpener opener(bool writable) const {
    return [this, writable](Confinement&) { return open_image(writable); };
  }

  void write_and_leave(const DiskServer& server) const {
    RawClient client(server.socket_path());
    client.go("disk0");
    const auto chunks = client.request(nbd::CommandType::write, 0, 4096, 0, nbd::Bytes(4096, std::byte{7}));
    EXPECT_EQ(chunks.back().type, static_cast<uint16_t>(nbd::ChunkType::none));
  }

  void expect_written() const {
    test::run_ok({"qemu-img", "check", "-q", image_});
    EXPECT_THAT(test::run_ok({"qemu-io", "-r", "-f", "qcow2", "-c", "read -P 7 0 4096", image_}),
                testing::Not(HasSubstr("failed")));
  }

  // Whether `process` has ended; one that nobody waits for may still be listed.
  static bool has_ended(pid_t process) {
    return !std::filesystem::exists(fmt::format("/proc/{}/exe", process)) || ::kill(process, 0) != 0;
  }

  test::TempDir dir_;
  const std::string image_ = dir_.file("disk.qcow2");
};

TEST_F(disk_server, safety_17b_from_inside_nothing_but_the_disks_is_reached_or_changed) {
  const test::TempDir attacked;
  DiskServer server([&](Confinement&) { return probe_in(attacked.path().string()); }, false);
  RawClient client(server.socket_path());
  client.go("disk0");
  const auto results = test::SandboxProbe::results(client.read(0, test::SandboxProbe::bytes));
  EXPECT_EQ(results.size(), 13U);
  EXPECT_EQ(test::possible(results), test::possible_in_sandbox());
  EXPECT_NO_THROW(server.finish());
}

TEST_F(disk_server, safety_7_what_was_written_is_in_the_image_and_unlocked_at_its_end) {
  DiskServer server(opener(true), true);
  EXPECT_THAT(server.sector_sizes(), testing::ElementsAre(4096));
  EXPECT_THAT(server.warnings(), testing::ElementsAre("one", "two"));
  write_and_leave(server);
  server.finish();
  expect_written();
}

TEST_F(disk_server, writes_nothing_to_what_is_read) {
  DiskServer server(opener(false), false);
  RawClient client(server.socket_path());
  client.go("disk0");
  const auto chunks = client.request(nbd::CommandType::write, 0, 4096, 0, nbd::Bytes(4096));
  EXPECT_EQ(chunks.back().error(), static_cast<uint32_t>(EPERM));
}

// As one that an image has taken over might: all its sockets say that an endless text follows.
TEST_F(disk_server, safety_15_what_it_says_of_lengths_is_not_believed) {
  const auto lie = [](Confinement&) -> ServedDisks {
    const std::string head(24, '\x7f');
    for (int fd = 3; fd < 256; ++fd) ::send(fd, head.data(), head.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    ::_exit(0);
  };
  EXPECT_THAT(test::error_of([&] { DiskServer(lie, false); }).what(), HasSubstr("talks nonsense"));
  const auto go_on_and_on = [](Confinement&) -> ServedDisks {
    throw Error(ErrorKind::busy, EBUSY, std::string(2 << 20, 'x'));
  };
  EXPECT_EQ(std::string(test::error_of([&] { DiskServer(go_on_and_on, false); }).what()).size(), size_t{1} << 20);
}

TEST_F(disk_server, errors_of_opening_and_of_the_end_are_told_where_it_was_made) {
  const auto refuse = [](Confinement&) -> ServedDisks { throw Error(ErrorKind::busy, ENOTTY, "in use by nobody"); };
  const Error refused = test::error_of([&] { DiskServer server(refuse, false); });
  EXPECT_EQ(refused.kind(), ErrorKind::busy);
  EXPECT_EQ(refused.errno_value(), ENOTTY);
  EXPECT_STREQ(refused.what(), "in use by nobody");

  const auto lose = [this](Confinement&) {
    ServedDisks served = open_image(true);
    served.close = [] { throw Error(ErrorKind::io, ENODATA, std::string(100'000, 'x')); };
    return served;
  };
  DiskServer server(lose, true);
  const Error lost = test::error_of([&] { server.finish(); });
  EXPECT_EQ(lost.errno_value(), ENODATA);
  EXPECT_EQ(std::string(lost.what()), std::string(100'000, 'x'));
}

TEST_F(disk_server, one_that_dies_is_told_of) {
  DiskServer server(opener(true), true);
  ::kill(server.process(), SIGKILL);
  EXPECT_THAT(test::error_of([&] { server.finish(); }).what(), HasSubstr("has died"));
}

TEST_F(disk_server, goes_with_its_object_and_leaves_no_socket) {
  std::string socket;
  pid_t process = -1;
  {
    const DiskServer server(opener(true), true);
    socket = server.socket_path();
    process = server.process();
    write_and_leave(server);
    EXPECT_TRUE(std::filesystem::exists(socket));
  }
  EXPECT_NE(::kill(process, 0), 0);
  EXPECT_FALSE(std::filesystem::exists(socket));
  expect_written();
}

// Runs `action` in a process of its own, and returns how waitpid() has its end.
int status_of(const std::function<void()>& action) {
  const pid_t child = ::fork();
  if (child == 0) {
    action();
    ::_exit(1);  // a signal was to end it
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  return status;
}

TEST_F(disk_server, closes_the_images_also_when_its_maker_is_killed) {
  const int status = status_of([&] {
    const DiskServer server(opener(true), true);
    write_and_leave(server);
    test::write_file(dir_.file("pid"), std::to_string(server.process()));
    ::kill(::getpid(), SIGKILL);
  });
  EXPECT_TRUE(WIFSIGNALED(status));
  const auto text = test::read_file(dir_.file("pid"));
  const pid_t process = std::stoi(std::string(reinterpret_cast<const char*>(text.data()), text.size()));
  EXPECT_TRUE(test::wait_until([&] { return has_ended(process); }));
  expect_written();
}

TEST_F(disk_server, ctrl_c_kills_other_children_and_leaves_it_to_close_the_images) {
  const int status = status_of([&] {
    const InterruptionGuard guard;
    DiskServer server(opener(true), true);
    write_and_leave(server);
    std::string program = "sleep";
    std::string time = "60";
    char* argv[] = {program.data(), time.data(), nullptr};
    pid_t other = 0;
    ASSERT_EQ(::posix_spawnp(&other, "sleep", nullptr, nullptr, argv, nullptr), 0);
    ::kill(::getpid(), SIGINT);
    int killed = 0;
    EXPECT_EQ(::waitpid(other, &killed, 0), other);
    EXPECT_EQ(WTERMSIG(killed), SIGKILL);
    EXPECT_NO_THROW(server.finish());
    if (!HasFailure()) test::write_file(dir_.file("done"), "");
  });
  EXPECT_TRUE(std::filesystem::exists(dir_.file("done")));
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT) << status;
  expect_written();
}

}  // namespace
}  // namespace drydock
