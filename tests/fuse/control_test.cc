// SPDX-License-Identifier: GPL-3.0-or-later

#include "fuse/control.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>

#include "src/error.h"
#include "tests/support/support.h"

namespace drydock::fuse {
namespace {

using testing::HasSubstr;

std::string read_all(int fd) {
  std::string text;
  std::array<char, 256> buffer{};
  for (ssize_t got = 0; (got = ::read(fd, buffer.data(), buffer.size())) > 0;) {
    text.append(buffer.data(), static_cast<size_t>(got));
  }
  return text;
}

TEST(fuse_control, everybody_who_waits_hears_how_it_ended) {
  ControlServer server;
  const ControlConnection early = connect_to_server(server.address());
  server.accept_waiting();
  const ControlConnection late = connect_to_server(server.address());
  EXPECT_EQ(early.pid, ::getpid());
  EXPECT_TRUE(early.process);
  server.announce("");
  EXPECT_EQ(read_all(early.socket.get()), "ok\n");
  EXPECT_EQ(read_all(late.socket.get()), "ok\n");
}

TEST(fuse_control, a_failure_is_told_with_its_message) {
  ControlServer server;
  const ControlConnection client = connect_to_server(server.address());
  server.announce("flushing: No space left on device");
  EXPECT_EQ(read_all(client.socket.get()), "failed flushing: No space left on device\n");
}

TEST(fuse_control, safety_16_many_who_come_and_go_lock_nobody_out) {
  ControlServer server;
  for (int i = 0; i < 300; ++i) {
    const ControlConnection gone = connect_to_server(server.address());
    server.accept_waiting();
  }
  const ControlConnection client = connect_to_server(server.address());
  server.accept_waiting();
  server.announce("");
  EXPECT_EQ(read_all(client.socket.get()), "ok\n");
}

TEST(fuse_control, a_server_that_has_gone_or_never_was_is_an_error) {
  std::string address;
  {
    const ControlServer server;
    address = server.address();
  }
  EXPECT_THAT(test::error_of([&] { connect_to_server(address); }).what(), HasSubstr("cannot be reached"));
  EXPECT_THAT(test::error_of([] { connect_to_server("zz\x1b"); }).what(), HasSubstr("'zz\\x1b' is no control address"));
  EXPECT_THAT(test::error_of([] { connect_to_server(std::string(400, '0')); }).what(), HasSubstr("no control address"));
}

}  // namespace
}  // namespace drydock::fuse
