// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/listener.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstring>

#include "nbd/socket_activation.h"
#include "tests/nbd/raw_client.h"
#include "tests/nbd/test_server.h"

namespace drydock::nbd {
namespace {

using testing::HasSubstr;
using testing::MatchesRegex;

std::shared_ptr<Exports> one_export() {
  auto exports = std::make_shared<Exports>();
  exports->add({.name = "disk",
                .description = "",
                .disk = std::make_shared<RawDisk>(std::make_shared<MemoryStorage>(std::vector<std::byte>(4096)),
                                                  RawOrigin::given)});
  return exports;
}

// A socket that somebody else listens on.
UniqueFd socket_at(const std::string& path) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  EXPECT_EQ(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  EXPECT_EQ(::listen(fd.get(), 8), 0);
  return fd;
}

TEST(nbd_listener, addresses_of_both_kinds_and_names_are_listened_on) {
  for (const char* host : {"::1", "127.0.0.1", "::", "0.0.0.0", "localhost"}) {
    const Listener listener = Listener::on_port(host, 0);
    EXPECT_NE(listener.port(), 0) << host;
  }
  EXPECT_THAT(Listener::on_port("::1", 0).uri("d", {}), MatchesRegex(R"(nbd://\[::1\]:[0-9]+/d)"));
  EXPECT_THAT(test::error_of([] { Listener::on_port("no such host.invalid", 0); }).what(),
              HasSubstr("Could not listen on 'no such host.invalid'"));
}

TEST(nbd_listener, vsock_is_listened_on_or_says_why_not) {
  try {
    const Listener listener = Listener::on_vsock({});
    EXPECT_THAT(listener.uri("d", {}), MatchesRegex("nbd\\+vsock://[0-9]+:[0-9]+/d"));
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::unsupported);
    EXPECT_THAT(error.what(), HasSubstr("the kernel has no vsock"));
  }
  EXPECT_THAT(test::error_of([] { Listener::on_vsock({.cid = 123456, .port = 10809}); }).what(),
              testing::AnyOf(HasSubstr("'123456:10809': this machine has no such CID"), HasSubstr("no vsock")));
}

TEST(nbd_listener, inherited_sockets_are_served_and_their_files_left_alone) {
  const test::TempDir dir;
  std::vector<UniqueFd> sockets;
  for (const char* name : {"one", "two"}) sockets.push_back(socket_at(dir.file(name)));
  {
    Server server(one_export(), {}, Listener::on_inherited(std::move(sockets)));
    EXPECT_EQ(server.uri("disk"), unix_uri("disk", dir.file("one")));
    server.start();
    for (const char* name : {"one", "two"}) RawClient(dir.file(name)).go();
  }
  EXPECT_TRUE(std::filesystem::exists(dir.file("one")));
}

TEST(nbd_listener, sockets_for_another_process_are_not_taken) {
  ::setenv("LISTEN_FDS", "1", 1);
  ::setenv("LISTEN_PID", "1", 1);
  ::setenv("LISTEN_FDNAMES", "nbd", 1);
  EXPECT_TRUE(take_activated_sockets().empty());
  for (const char* variable : {"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"}) EXPECT_EQ(std::getenv(variable), nullptr);
  ::setenv("LISTEN_FDS", "1000000000", 1);
  ::setenv("LISTEN_PID", std::to_string(::getpid()).c_str(), 1);
  EXPECT_THAT(test::error_of([] { take_activated_sockets(); }).what(), HasSubstr("at most 64 sockets"));
}

TEST(nbd_server, ends_with_the_last_client_that_used_an_export) {
  ServerOptions options;
  options.stop_with_last_client = true;
  Server server(one_export(), options);
  server.start();
  {
    RawClient only_looking(server);
    only_looking.ask(Option::list);
  }
  auto first = std::make_unique<RawClient>(server);
  first->go();
  auto second = std::make_unique<RawClient>(server);
  first.reset();
  second->go();
  EXPECT_EQ(second->read(0, 512).size(), 512U);
  second.reset();
  server.wait();
  EXPECT_FALSE(std::filesystem::exists(server.socket_path()));
}

}  // namespace
}  // namespace drydock::nbd
