// SPDX-License-Identifier: GPL-3.0-or-later

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>

#include "nbd/uri.h"
#include "src/error.h"
#include "tests/nbd/raw_client.h"
#include "tests/nbd/test_server.h"

namespace drydock::nbd {
namespace {

using testing::HasSubstr;

// A disk whose reads wait for permission, and whose flush can fail.
class SlowDisk final : public Disk {
 public:
  uint64_t size() const override { return 64 << 20; }
  bool writable() const override { return true; }
  void read(GuestOffset, std::span<std::byte> buffer) const override {
    std::unique_lock lock(mutex_);
    ++reading;
    changed_.wait(lock, [this] { return open_; });
    std::ranges::fill(buffer, std::byte{1});
  }
  void flush() override {
    if (broken) throw Error(ErrorKind::io, "the disk has fallen off");
  }
  std::vector<Extent> map(GuestRange range, size_t) const override {
    return {{.range = range, .present = true, .data = true}};
  }
  void open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }

  mutable std::atomic<int> reading = 0;
  std::atomic<bool> broken = false;

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  bool open_ = false;
};

Exports one_export(std::shared_ptr<Disk> disk) {
  Exports exports;
  exports.add({"disk", "", std::move(disk), false});
  return exports;
}

std::shared_ptr<Disk> memory_disk() {
  return std::make_shared<RawDisk>(std::make_shared<MemoryStorage>(std::vector<std::byte>(4096)), RawOrigin::given);
}

ServerOptions at(const std::string& path) {
  ServerOptions options;
  options.socket_path = path;
  return options;
}

TEST(nbd_exports, names_are_unique_and_fit_the_protocol) {
  Exports exports = one_export(memory_disk());
  EXPECT_THAT(test::error_of([&] { exports.add({"disk", "", memory_disk(), true}); }).what(), HasSubstr("'disk'"));
  EXPECT_EQ(test::error_of([&] {
              exports.add({std::string(4097, 'x'), "", memory_disk(), true});
            }).kind(),
            ErrorKind::usage);
  const std::string long_text(4097, 'x');
  EXPECT_THAT(test::error_of([&] {
                exports.add({"long", long_text, memory_disk(), true});
              }).what(),
              HasSubstr("too long"));
  EXPECT_EQ(exports.find(""), nullptr);
  exports.add({"", "of no name", memory_disk(), true});
  EXPECT_EQ(exports.find("")->description, "of no name");
}

TEST(nbd_uri, names_and_paths_are_encoded) {
  EXPECT_EQ(unix_uri("snapshots/a b", "/tmp/x y?&.sock"), "nbd+unix:///snapshots/a%20b?socket=/tmp/x%20y%3F%26.sock");
  EXPECT_EQ(tcp_uri("p1", "localhost", 10809), "nbd://localhost:10809/p1");
  EXPECT_EQ(tcp_uri("p1", "::1", 10809), "nbd://[::1]:10809/p1");
  EXPECT_EQ(vsock_uri("p1", 2, 10809), "nbd+vsock://2:10809/p1");
}

TEST(nbd_uri, tls_is_told_with_where_its_keys_are) {
  const UriTls key{.used = true, .user = "al ice", .psk_file = "/k/a.psk"};
  EXPECT_EQ(unix_uri("d", "/s", key), "nbds+unix://al%20ice@/d?socket=/s&tls-psk-file=/k/a.psk");
  EXPECT_EQ(tcp_uri("d", "h", 1, {.used = true, .certificates = "/c"}), "nbds://h:1/d?tls-certificates=/c");
  EXPECT_EQ(vsock_uri("d", 3, 1, {.used = true}), "nbds+vsock://3:1/d");
}

TEST(nbd_server, safety_14_the_socket_of_our_choice_is_for_its_owner_alone_and_goes_away) {
  std::string path;
  {
    const Server server(one_export(memory_disk()), {});
    path = server.socket_path();
    struct stat status {};
    ASSERT_EQ(::stat(path.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0600U);
    ASSERT_EQ(::stat(std::filesystem::path(path).parent_path().c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0700U);
  }
  EXPECT_FALSE(std::filesystem::exists(std::filesystem::path(path).parent_path()));
}

TEST(nbd_server, safety_14_a_port_is_opened_on_localhost_only) {
  ServerOptions options;
  options.port = 0;
  const Server server(one_export(memory_disk()), options);
  ASSERT_NE(server.port(), 0);
  EXPECT_EQ(server.uri("disk"), fmt::format("nbd://localhost:{}/disk", server.port()));
  const std::string sockets = test::run_ok({"ss", "-Hltn", fmt::format("sport = :{}", server.port())});
  EXPECT_THAT(sockets, HasSubstr("127.0.0.1:"));
  EXPECT_THAT(sockets, testing::Not(HasSubstr("0.0.0.0:" + std::to_string(server.port()))));
  options.port = server.port();
  EXPECT_EQ(test::error_of([&] { const Server second(one_export(memory_disk()), options); }).kind(), ErrorKind::busy);
}

TEST(nbd_server, a_live_socket_is_refused_a_dead_one_replaced_and_a_file_left_alone) {
  const test::TempDir dir;
  const std::string path = dir.file("socket");
  {
    const Server first(one_export(memory_disk()), at(path));
    const Error error = test::error_of([&] { const Server second(one_export(memory_disk()), at(path)); });
    EXPECT_EQ(error.kind(), ErrorKind::busy);
    EXPECT_THAT(error.what(), HasSubstr("another process is listening"));
    std::filesystem::create_hard_link(path, dir.file("dead"));
  }
  EXPECT_FALSE(std::filesystem::exists(path));
  { const Server second(one_export(memory_disk()), at(dir.file("dead"))); }
  test::write_file(path, "precious");
  const Error error = test::error_of([&] { const Server third(one_export(memory_disk()), at(path)); });
  EXPECT_THAT(error.what(), HasSubstr("no socket"));
  EXPECT_TRUE(std::filesystem::exists(path));
  EXPECT_THAT(test::error_of([&] {
                const Server long_path(one_export(memory_disk()), at("/" + std::string(200, 'x')));
              }).what(),
              HasSubstr("limited to 107 bytes"));
}

TEST(nbd_server, a_failed_last_flush_is_reported) {
  auto disk = std::make_shared<SlowDisk>();
  disk->broken = true;
  Server server(one_export(disk), {});
  server.start();
  server.stop();
  EXPECT_STREQ(test::error_of([&] { server.wait(); }).what(), "export 'disk': the disk has fallen off");
}

TEST(nbd_server, engine_errors_reach_the_client_with_their_text) {
  auto disk = std::make_shared<SlowDisk>();
  disk->broken = true;
  Server server(one_export(disk), {});
  server.start();
  RawClient client(server);
  client.go();
  const auto chunks = client.request(CommandType::flush, 0, 0);
  EXPECT_EQ(chunks[0].error(), static_cast<uint32_t>(WireError::io));
  EXPECT_EQ(chunks[0].message(), "the disk has fallen off");
}

TEST(nbd_server, requests_run_in_parallel) {
  auto disk = std::make_shared<SlowDisk>();
  ServerOptions options;
  options.threads = 4;
  Server server(one_export(disk), options);
  server.start();
  RawClient client(server);
  client.go();
  for (uint64_t i = 0; i < 3; ++i) client.send_request(CommandType::read, i * 4096, 4096, 0, i);
  EXPECT_TRUE(test::wait_until([&] { return disk->reading == 3; }));
  // One that need not wait for them overtakes them.
  client.send_request(CommandType::flush, 0, 0, 0, 99);
  EXPECT_EQ(client.receive_chunk().cookie, 99U);
  disk->open();
  for (int i = 0; i < 3; ++i) EXPECT_LT(client.receive_chunk().cookie, 3U);
}

TEST(nbd_server, safety_17a_a_disk_that_hangs_holds_up_nobody_who_does_not_use_it) {
  auto hung = std::make_shared<SlowDisk>();
  Exports exports = one_export(hung);
  exports.add({"other", "", memory_disk(), false});
  ServerOptions options;
  options.threads = 2;
  options.limits.handshake = std::chrono::milliseconds(1000);
  options.limits.shutdown = std::chrono::milliseconds(100);
  Server server(std::move(exports), options);
  server.start();
  std::deque<RawClient> waiting;
  for (int i = 0; i < 4; ++i) {
    RawClient& client = waiting.emplace_back(server);
    client.go();
    for (uint64_t n = 0; n < 8; ++n) client.send_request(CommandType::read, n * 4096, 4096, 0, n);
  }
  // All together as many as one image may have threads.
  ASSERT_TRUE(test::wait_until([&] { return hung->reading == 2; }));
  for (int i = 0; i < 4; ++i) {
    RawClient client(server);
    client.go("other");
    EXPECT_EQ(client.read(0, 512).size(), 512U);
  }
  RawClient silent(server, std::nullopt);
  EXPECT_EQ(silent.receive_rest().size(), Handshake::greeting().size());
  EXPECT_EQ(hung->reading, 2);
  // Whoever waits for it is cut off in time, though what the disk was asked for goes on.
  server.stop();
  for (RawClient& client : waiting) EXPECT_TRUE(client.is_closed());
  hung->open();
  server.wait();
}

TEST(nbd_server, every_disk_is_flushed_at_the_end_and_every_failure_told) {
  auto first = std::make_shared<SlowDisk>();
  auto second = std::make_shared<SlowDisk>();
  first->broken = second->broken = true;
  Exports exports = one_export(first);
  exports.add({"second", "", second, false});
  Server server(std::move(exports), {});
  server.start();
  server.stop();
  EXPECT_STREQ(test::error_of([&] { server.wait(); }).what(),
               "export 'disk': the disk has fallen off; export 'second': the disk has fallen off");
}

TEST(nbd_server, safety_16_requests_in_flight_are_capped) {
  auto disk = std::make_shared<SlowDisk>();
  ServerOptions options;
  options.threads = 8;
  options.limits.requests_per_connection = 2;
  Server server(one_export(disk), options);
  server.start();
  RawClient client(server);
  client.go();
  for (uint64_t i = 0; i < 20; ++i) client.send_request(CommandType::read, 0, 512, 0, i);
  EXPECT_TRUE(test::wait_until([&] { return disk->reading == 2; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(disk->reading, 2);
  disk->open();
  for (int i = 0; i < 20; ++i) client.receive_chunk();
}

TEST(nbd_server, safety_16_a_stalled_reader_is_bounded_and_holds_up_nobody) {
  auto disk = std::make_shared<SlowDisk>();
  disk->open();
  Server server(one_export(disk), {});
  server.start();
  std::vector<std::unique_ptr<RawClient>> stalled;
  const uint64_t before = resident_bytes();
  for (int i = 0; i < 20; ++i) {
    stalled.push_back(std::make_unique<RawClient>(server));
    stalled.back()->go();
    for (int n = 0; n < 50; ++n) stalled.back()->send_request(CommandType::read, 0, 4 << 20);
  }
  RawClient client(server);
  client.go();
  for (int i = 0; i < 20; ++i) EXPECT_EQ(client.read(0, 4096), Bytes(4096, std::byte{1}));
  // 8 MiB each is what may be in flight, not the 200 MiB that each asked for. Sanitizers keep some more.
  EXPECT_LT(resident_bytes() - before, uint64_t{1} << 30);
}

TEST(nbd_server, cve_2024_7409_shutdown_waits_for_no_client) {
  const auto begin = std::chrono::steady_clock::now();
  auto disk = std::make_shared<SlowDisk>();
  disk->open();
  ServerOptions options;
  options.limits.shutdown = std::chrono::milliseconds(200);
  options.limits.handshake = std::chrono::hours(1);
  Server server(one_export(disk), options);
  server.start();
  RawClient silent(server, std::nullopt);
  RawClient idle(server);
  idle.go();
  RawClient stalled(server);
  stalled.go();
  for (int n = 0; n < 50; ++n) stalled.send_request(CommandType::read, 0, 4 << 20);
  RawClient writing(server);
  writing.go();
  writing.send_request(CommandType::write, 0, 4096);  // whose data never comes
  server.stop();
  server.wait();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(15));
  EXPECT_TRUE(idle.is_closed());
}

TEST(nbd_server, safety_16_requests_in_flight_are_answered_when_the_server_stops) {
  auto disk = std::make_shared<SlowDisk>();
  Server server(one_export(disk), {});
  server.start();
  RawClient client(server);
  client.go();
  client.send_request(CommandType::read, 0, 4096);
  ASSERT_TRUE(test::wait_until([&] { return disk->reading == 1; }));
  server.stop();
  EXPECT_TRUE(test::wait_until([&] { return !std::filesystem::exists(server.socket_path()); }));
  disk->open();
  EXPECT_EQ(client.receive_chunk().data.size(), 4096U + 8);
  EXPECT_TRUE(client.is_closed());
  server.wait();
}

}  // namespace
}  // namespace drydock::nbd
