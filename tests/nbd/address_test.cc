// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/client/address.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/remote.h"
#include "tests/support/support.h"

namespace drydock::nbd {
namespace {

TEST(nbd_address, is_told_as_qemu_tells_it) {
  const std::vector<std::pair<std::string, std::string>> uris{
      {"nbd://localhost", "nbd://localhost:10809"},
      {"nbd://localhost/", "nbd://localhost:10809"},
      {"nbd://host:1/a/b", "nbd://host:1/a/b"},
      {"nbd+tcp://127.0.0.1:10999/", "nbd://127.0.0.1:10999"},
      {"nbd://[::1]:1234/x", "nbd://[::1]:1234/x"},
      {"nbds://alice@host/x?tls-certificates=/keys", "nbds://host:10809/x"},
      {"nbd+unix:///disk?socket=/run/s", "nbd+unix:///disk?socket=/run/s"},
      {"nbd+unix:///?socket=/run/s", "nbd+unix://?socket=/run/s"},
      {"nbds+unix:///a%20b?socket=%2Frun%2Fs", "nbds+unix:///a%20b?socket=/run/s"},
      {"nbd+vsock:///x", "nbd+vsock://2:10809/x"},
      {"nbd:unix:/run/s:exportname=disk", "nbd+unix:///disk?socket=/run/s"},
      {"nbd:unix:/run/s", "nbd+unix://?socket=/run/s"},
      {"nbd:host:10810:exportname=a b", "nbd://host:10810/a%20b"},
  };
  for (const auto& [given, told] : uris) {
    EXPECT_TRUE(is_remote_name(given)) << given;
    EXPECT_EQ(to_uri(parse_address(given)), told) << given;
    EXPECT_TRUE(same_server(parse_address(given), parse_address(told))) << given;
  }
}

TEST(nbd_address, parts_are_decoded) {
  const Address address = parse_address("nbds+unix://bob%40home@/a%2Fb%3f?socket=s%25&tls-psk-file=/k%20k#rest");
  EXPECT_TRUE(address.tls);
  EXPECT_EQ(address.transport, Transport::unix_socket);
  EXPECT_EQ(address.user, "bob@home");
  EXPECT_EQ(address.export_name, "a/b?");
  EXPECT_EQ(address.socket, "s%");
  EXPECT_EQ(address.tls_psk_file, "/k k");
}

TEST(nbd_address, what_makes_no_sense_is_refused) {
  for (const std::string uri :
       {"nbd+unix:///x", "nbd+unix://host/x?socket=s", "nbd://host/?socket=s", "nbd://host:0/", "nbd://host:65536/",
        "nbd://host:x/", "nbd://host/%zz", "nbd://host/%0", "nbd://host/%00", "nbd+foo://host/", "http://host/",
        "nbd://[::1/", "nbd://host/?tls-certificates=/keys", "nbd:unix:", "nbdx://host/"}) {
    EXPECT_EQ(test::error_of([&] { parse_address(uri); }).kind(), ErrorKind::invalid) << uri;
  }
  EXPECT_EQ(test::error_of([] { parse_address("nbd://host/" + std::string(5000, 'x')); }).kind(), ErrorKind::invalid);
}

TEST(nbd_address, servers_are_the_same_by_their_words_alone) {
  const Address server = parse_address("nbd://localhost:10809/a");
  EXPECT_TRUE(same_server(server, parse_address("nbd://localhost/b")));
  EXPECT_FALSE(same_server(server, parse_address("nbds://localhost/a")));
  EXPECT_FALSE(same_server(server, parse_address("nbd://127.0.0.1/a")));
  EXPECT_FALSE(same_server(server, parse_address("nbd://localhost:10810/a")));
  EXPECT_FALSE(same_server(server, parse_address("nbd+unix:///a?socket=localhost")));
}

}  // namespace
}  // namespace drydock::nbd
