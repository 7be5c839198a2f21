// SPDX-License-Identifier: GPL-3.0-or-later
//
// The NBD client: what it does with an export, and with servers that go away or fall silent.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <future>
#include <thread>

#include "nbd/client/nbd_storage.h"
#include "src/error.h"
#include "src/image.h"
#include "tests/nbd/fake_server.h"
#include "tests/nbd/opened_export.h"
#include "tests/nbd/test_server.h"

namespace drydock::nbd {
namespace {

using testing::HasSubstr;
using testing::StartsWith;
using namespace std::chrono_literals;

// A server on a place of its own that can go away and come back, with a disk that stays.
class Harbour {
 public:
  explicit Harbour(uint64_t size = test::mib) { change_disk(size); }

  void change_disk(uint64_t size) {
    disk = std::make_shared<RawDisk>(std::make_shared<MemoryStorage>(test::random_bytes(1, size)), RawOrigin::given);
  }
  void start() {
    Exports exports;
    exports.add({"disk", "", disk, false});
    ServerOptions options;
    options.socket_path = dir.file("socket");
    server = std::make_unique<Server>(std::move(exports), options);
    server->start();
  }
  void stop() { server.reset(); }
  void restart() {
    stop();
    start();
  }
  std::string uri() const { return "nbd+unix:///disk?socket=" + dir.file("socket"); }

  test::TempDir dir;
  std::shared_ptr<Disk> disk;
  std::unique_ptr<Server> server;
};

TEST(nbd_client, reads_what_the_server_has) {
  const TestServer server;
  const auto storage = open_export(server.server->uri("disk"));
  EXPECT_EQ(storage->size(), server.content.size());
  EXPECT_FALSE(storage->can_grow());
  EXPECT_EQ(read_export(*storage, 0, server.content.size()), server.content);
  EXPECT_EQ(read_export(*storage, 12345, 7), Bytes(server.content.begin() + 12345, server.content.begin() + 12352));
  EXPECT_EQ(read_export(*storage, server.content.size() - 5, 100).size(), 5U);
  EXPECT_TRUE(read_export(*storage, server.content.size() + 5, 100).empty());
}

TEST(nbd_client, tells_the_extents_of_the_servers_disk) {
  const TestServer server;
  const auto image = Image::open(open_export(server.server->uri("disk")), {.format = Format::raw});
  const auto extents = image->disk()->map(whole(*image->disk()), 100);
  ASSERT_EQ(extents.size(), 3U);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(extents[i].range.start.value(), i * test_disk_part);
    EXPECT_EQ(extents[i].range.length, test_disk_part);
    EXPECT_EQ(extents[i].zero, i == 1);
    EXPECT_EQ(extents[i].data, i != 1);
  }
}

TEST(nbd_client, writes_zeroes_and_discards) {
  Harbour harbour;
  harbour.start();
  const auto storage = open_export(harbour.uri(), true);
  const Bytes bytes = test::random_bytes(2, 300'000);
  storage->write(HostOffset(1001), bytes);
  storage->zero(HostOffset(2000), 100'000, false);
  storage->zero(HostOffset(200'000), 10, true);
  storage->discard(HostOffset(0), 512);
  storage->flush();
  Bytes expected = bytes;
  std::fill_n(expected.begin() + 999, 100'000, std::byte{0});
  std::fill_n(expected.begin() + 198'999, 10, std::byte{0});
  EXPECT_EQ(read_export(*storage, 1001, bytes.size()), expected);
  Bytes on_disk(bytes.size());
  harbour.disk->read(GuestOffset(1001), on_disk);
  EXPECT_EQ(on_disk, expected);
}

TEST(nbd_client, cannot_grow) {
  Harbour harbour;
  harbour.start();
  const auto storage = open_export(harbour.uri(), true);
  storage->truncate(test::mib - 1);
  for (const auto& change : std::initializer_list<std::function<void()>>{
           [&] { storage->truncate(test::mib + 1); },
           [&] { storage->write(HostOffset(test::mib - 1), Bytes(2)); },
           [&] { storage->zero(HostOffset(test::mib), 1, false); },
           [&] { storage->discard(HostOffset(UINT64_MAX), 2); },
       }) {
    const Error error = test::error_of(change);
    EXPECT_EQ(error.kind(), ErrorKind::no_space);
    EXPECT_THAT(error.what(), HasSubstr("Cannot grow NBD nodes"));
  }
}

TEST(nbd_client, refuses_to_write_what_is_read_only) {
  const TestServer server;
  const Error refused = test::error_of([&] { open_export(server.server->uri("disk"), true); });
  EXPECT_EQ(refused.kind(), ErrorKind::read_only);
  const auto storage = open_export(server.server->uri("scratch"));
  EXPECT_EQ(test::error_of([&] { storage->write(HostOffset(0), Bytes(1)); }).kind(), ErrorKind::read_only);
}

TEST(nbd_client, names_what_it_cannot_open) {
  const TestServer server;
  EXPECT_THAT(test::error_of([&] { open_export(server.server->uri("nothing")); }).what(),
              StartsWith("Requested export not available"));
  const Error nobody = test::error_of([&] { open_export("nbd+unix:///?socket=" + server.dir.file("nobody")); });
  EXPECT_THAT(nobody.what(), HasSubstr("nobody': No such file or directory"));
  EXPECT_EQ(nobody.kind(), ErrorKind::not_found);
}

TEST(nbd_client, many_threads_read_and_write_at_once) {
  constexpr size_t threads = 6;
  constexpr uint64_t part = 3 * test::mib / 2;
  Harbour harbour(threads * part);
  harbour.start();
  const auto storage = open_export(harbour.uri(), true);
  std::vector<std::thread> workers;
  std::atomic<size_t> right = 0;
  for (size_t i = 0; i < threads; ++i) {
    workers.emplace_back([&, i] {
      const Bytes bytes = test::random_bytes(100 + i, part);
      for (uint64_t at = 0; at < part; at += part / 8) {
        storage->write(HostOffset(i * part + at), std::span(bytes).subspan(at, part / 8));
        if (at % (part / 4) == 0) storage->flush();
        storage->extent_at(HostOffset(i * part), part);
      }
      if (read_export(*storage, i * part, part) == bytes) ++right;
    });
  }
  for (std::thread& worker : workers) worker.join();
  EXPECT_EQ(right, threads);
  storage->flush();
  for (size_t i = 0; i < threads; ++i) {
    Bytes on_disk(part);
    harbour.disk->read(GuestOffset(i * part), on_disk);
    EXPECT_EQ(on_disk, test::random_bytes(100 + i, part));
  }
}

// ---- A server that goes away

TEST(nbd_client, reads_go_on_when_the_server_comes_back) {
  Harbour harbour;
  harbour.start();
  const auto storage = open_export(harbour.uri());
  const Bytes before = read_export(*storage, 0, test::mib);
  harbour.restart();
  EXPECT_EQ(read_export(*storage, 0, test::mib), before);
  harbour.restart();
  EXPECT_EQ(storage->extent_at(HostOffset(0), test::mib).length, test::mib);
}

TEST(nbd_client, reads_wait_for_a_server_that_is_away) {
  Harbour harbour;
  harbour.start();
  const auto storage = open_export(harbour.uri(), false, {.first_pause = 20ms});
  const Bytes before = read_export(*storage, 0, test::mib);
  harbour.stop();
  Bytes after;
  std::thread reader([&] { after = read_export(*storage, 0, test::mib); });
  harbour.start();
  reader.join();
  EXPECT_EQ(after, before);
}

TEST(nbd_client, gives_up_a_server_that_does_not_come_back) {
  Harbour harbour;
  harbour.start();
  const auto storage = open_export(harbour.uri());
  harbour.stop();
  const Error error = test::error_of([&] { read_export(*storage, 0, 512); });
  EXPECT_EQ(error.kind(), ErrorKind::io);
  EXPECT_THAT(error.what(), StartsWith(storage->name()));
}

TEST(nbd_client, an_export_that_came_back_with_another_size_is_another) {
  Harbour harbour;
  harbour.start();
  const auto storage = open_export(harbour.uri());
  harbour.stop();
  harbour.change_disk(2 * test::mib);
  harbour.start();
  EXPECT_THAT(test::error_of([&] { read_export(*storage, 0, 512); }).what(),
              HasSubstr("the export has 2097152 bytes now"));
}

TEST(nbd_client, what_was_flushed_is_not_missed_when_the_server_comes_back) {
  Harbour harbour;
  harbour.start();
  const auto storage = open_export(harbour.uri(), true);
  storage->write(HostOffset(0), Bytes(512, std::byte{1}));
  storage->flush();
  harbour.restart();
  storage->write(HostOffset(512), Bytes(512, std::byte{2}));
  EXPECT_EQ(read_export(*storage, 0, 1), Bytes(1, std::byte{1}));
  EXPECT_EQ(read_export(*storage, 512, 1), Bytes(1, std::byte{2}));
}

TEST(nbd_client, reports_what_was_not_flushed_when_the_server_went_away) {
  for (const int first : {0, 1, 2}) {
    Harbour harbour;
    harbour.start();
    const auto storage = open_export(harbour.uri(), true);
    storage->write(HostOffset(0), Bytes(512, std::byte{1}));
    harbour.restart();
    const std::vector<std::function<void()>> uses{[&] { read_export(*storage, 0, 512); },
                                                  [&] { storage->write(HostOffset(0), Bytes(512)); },
                                                  [&] { storage->flush(); }};
    EXPECT_THAT(test::error_of(uses[static_cast<size_t>(first)]).what(),
                HasSubstr("what was written since the last flush may be lost"));
    for (const auto& use : uses) EXPECT_EQ(test::error_of(use).kind(), ErrorKind::io);
  }
}

// ---- Servers that fall silent

// A server that reads requests, and says nothing to those of its first `connections` connections.
class Mute {
 public:
  explicit Mute(int connections)
      : server_({.size = test::mib, .flags = transmission_has_flags | transmission_send_flush},
                [this, connections](const FakeRequest& request) {
                  const thread_local int number = ++connections_;
                  if (number <= connections) end_.wait();
                  if (request.type == CommandType::read) {
                    return data_chunk(request.cookie, reply_flag_done, request.offset,
                                      Bytes(request.length, std::byte{7}));
                  }
                  return simple_reply(request.cookie);
                }) {}
  Mute(const Mute&) = delete;
  Mute& operator=(const Mute&) = delete;
  ~Mute() { ended_.set_value(); }

  std::shared_ptr<NbdStorage> opened() const {
    ClientOptions options = impatient_client();
    options.patience.silence = 100ms;
    return opened(options);
  }
  std::shared_ptr<NbdStorage> opened(const ClientOptions& options) const {
    return open_export(server_.uri(), true, options);
  }

 private:
  std::promise<void> ended_;
  std::shared_future<void> end_ = ended_.get_future();
  std::atomic<int> connections_ = 0;
  FakeServer server_;  // the first to go
};

TEST(nbd_client, reads_leave_a_connection_that_fell_silent) {
  const Mute server(1);
  const auto storage = server.opened();
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&] { EXPECT_EQ(read_export(*storage, 0, 512), Bytes(512, std::byte{7})); });
  }
  for (std::thread& reader : readers) reader.join();
}

TEST(nbd_client, safety_16_a_server_that_says_nothing_is_given_up) {
  const Mute server(100);
  const Error reading = test::error_of([&] { read_export(*server.opened(), 0, 512); });
  EXPECT_EQ(reading.errno_value(), ETIMEDOUT);
  EXPECT_THAT(reading.what(), HasSubstr("has not answered, nor said anything, for 0.1 seconds"));
  const auto storage = server.opened();
  const Error writing = test::error_of([&] { storage->write(HostOffset(0), Bytes(512)); });
  EXPECT_EQ(writing.errno_value(), ETIMEDOUT);
  EXPECT_THAT(writing.what(), HasSubstr("what was written since the last flush may be lost"));
}

TEST(nbd_client, a_server_that_says_nothing_holds_up_no_user_who_wants_it_ended) {
  const Mute server(100);
  std::atomic<bool> interrupted = false;
  ClientOptions options;
  options.patience.silence = 1h;
  options.patience.interrupted = [&] { return interrupted.load(); };
  options.patience.silence_at_end = 100ms;
  for (const bool writing : {false, true}) {
    interrupted = false;
    const auto storage = server.opened(options);
    auto request = std::async(std::launch::async, [&] {
      return test::error_of([&] {
        writing ? storage->write(HostOffset(0), Bytes(512)) : static_cast<void>(read_export(*storage, 0, 512));
      });
    });
    EXPECT_EQ(request.wait_for(200ms), std::future_status::timeout);
    interrupted = true;
    EXPECT_EQ(request.get().kind(), ErrorKind::interrupted);
  }
}

TEST(nbd_client, nobody_waits_for_a_server_to_come_back_who_wants_it_ended) {
  std::atomic<bool> interrupted = false;
  ClientOptions options;
  options.first_pause = 1h;
  options.patience.interrupted = [&] { return interrupted.load(); };
  auto server = std::make_unique<Mute>(0);
  const auto storage = server->opened(options);
  server.reset();
  auto request = std::async(std::launch::async, [&] { return test::error_of([&] { read_export(*storage, 0, 512); }); });
  EXPECT_EQ(request.wait_for(200ms), std::future_status::timeout);
  interrupted = true;
  EXPECT_EQ(request.get().kind(), ErrorKind::interrupted);
}

TEST(nbd_client, a_flush_may_take_any_time) {
  const FakeServer slow({.size = test::mib, .flags = transmission_has_flags | transmission_send_flush},
                        [](const FakeRequest& request) {
                          if (request.type == CommandType::flush) std::this_thread::sleep_for(200ms);
                          return simple_reply(request.cookie);
                        });
  ClientOptions options = impatient_client();
  options.patience.silence = 20ms;
  const auto storage = open_export(slow.uri(), true, options);
  storage->write(HostOffset(0), Bytes(512));
  storage->flush();
}

TEST(nbd_client, safety_7a_a_flush_that_the_server_failed_once_fails_from_then_on) {
  std::atomic<unsigned> flushes = 0;
  const FakeServer forgetful({.size = test::mib, .flags = transmission_has_flags | transmission_send_flush},
                             [&](const FakeRequest& request) {
                               const bool fails = request.type == CommandType::flush && ++flushes == 1;
                               return simple_reply(request.cookie, fails ? EIO : 0);
                             });
  const auto storage = open_export(forgetful.uri(), true, impatient_client());
  for (int i = 0; i < 3; ++i) {
    storage->write(HostOffset(0), Bytes(512));
    EXPECT_EQ(test::error_of([&] { storage->flush(); }).errno_value(), EIO);
  }
  EXPECT_EQ(flushes, 1U);
  const auto anew = open_export(forgetful.uri(), true, impatient_client());
  anew->write(HostOffset(0), Bytes(512));
  anew->flush();
}

}  // namespace
}  // namespace drydock::nbd
