// SPDX-License-Identifier: GPL-3.0-or-later

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
#include "tests/nbd/test_server.h"

namespace drydock::nbd {
namespace {

using testing::HasSubstr;
using testing::StartsWith;
using namespace std::chrono_literals;

constexpr uint64_t mib = 1 << 20;
// Gives up at once, but for a moment.
const ClientOptions impatient{.first_pause = 1ms, .pauses = 3};

std::shared_ptr<NbdStorage> open(const std::string& uri, bool writable = false,
                                 const ClientOptions& options = impatient) {
  return NbdStorage::open(parse_address(uri), writable, options);
}

Bytes read(const Storage& storage, uint64_t offset, size_t count) {
  Bytes bytes(count);
  bytes.resize(storage.read(HostOffset(offset), bytes));
  return bytes;
}

// A server on a place of its own that can go away and come back, with a disk that stays.
class Harbour {
 public:
  explicit Harbour(uint64_t size = mib) { change_disk(size); }

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
  const auto storage = open(server.server->uri("disk"));
  EXPECT_EQ(storage->size(), server.content.size());
  EXPECT_FALSE(storage->can_grow());
  EXPECT_EQ(read(*storage, 0, server.content.size()), server.content);
  EXPECT_EQ(read(*storage, 12345, 7), Bytes(server.content.begin() + 12345, server.content.begin() + 12352));
  EXPECT_EQ(read(*storage, server.content.size() - 5, 100).size(), 5U);
  EXPECT_TRUE(read(*storage, server.content.size() + 5, 100).empty());
}

TEST(nbd_client, tells_the_extents_of_the_servers_disk) {
  const TestServer server;
  const auto image = Image::open(open(server.server->uri("disk")), {.format = Format::raw});
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
  const auto storage = open(harbour.uri(), true);
  const Bytes bytes = test::random_bytes(2, 300'000);
  storage->write(HostOffset(1001), bytes);
  storage->zero(HostOffset(2000), 100'000, false);
  storage->zero(HostOffset(200'000), 10, true);
  storage->discard(HostOffset(0), 512);
  storage->flush();
  Bytes expected = bytes;
  std::fill_n(expected.begin() + 999, 100'000, std::byte{0});
  std::fill_n(expected.begin() + 198'999, 10, std::byte{0});
  EXPECT_EQ(read(*storage, 1001, bytes.size()), expected);
  Bytes on_disk(bytes.size());
  harbour.disk->read(GuestOffset(1001), on_disk);
  EXPECT_EQ(on_disk, expected);
}

TEST(nbd_client, cannot_grow) {
  Harbour harbour;
  harbour.start();
  const auto storage = open(harbour.uri(), true);
  storage->truncate(mib - 1);
  for (const auto& change : std::initializer_list<std::function<void()>>{
           [&] { storage->truncate(mib + 1); },
           [&] { storage->write(HostOffset(mib - 1), Bytes(2)); },
           [&] { storage->zero(HostOffset(mib), 1, false); },
           [&] { storage->discard(HostOffset(UINT64_MAX), 2); },
       }) {
    const Error error = test::error_of(change);
    EXPECT_EQ(error.kind(), ErrorKind::no_space);
    EXPECT_THAT(error.what(), HasSubstr("Cannot grow NBD nodes"));
  }
}

TEST(nbd_client, refuses_to_write_what_is_read_only) {
  const TestServer server;
  const Error refused = test::error_of([&] { open(server.server->uri("disk"), true); });
  EXPECT_EQ(refused.kind(), ErrorKind::read_only);
  const auto storage = open(server.server->uri("scratch"));
  EXPECT_EQ(test::error_of([&] { storage->write(HostOffset(0), Bytes(1)); }).kind(), ErrorKind::read_only);
}

TEST(nbd_client, names_what_it_cannot_open) {
  const TestServer server;
  EXPECT_THAT(test::error_of([&] { open(server.server->uri("nothing")); }).what(),
              StartsWith("Requested export not available"));
  const Error nobody = test::error_of([&] { open("nbd+unix:///?socket=" + server.dir.file("nobody")); });
  EXPECT_THAT(nobody.what(), HasSubstr("nobody': No such file or directory"));
  EXPECT_EQ(nobody.kind(), ErrorKind::not_found);
}

TEST(nbd_client, many_threads_read_and_write_at_once) {
  constexpr size_t threads = 6;
  constexpr uint64_t part = 3 * mib / 2;
  Harbour harbour(threads * part);
  harbour.start();
  const auto storage = open(harbour.uri(), true);
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
      if (read(*storage, i * part, part) == bytes) ++right;
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
  const auto storage = open(harbour.uri());
  const Bytes before = read(*storage, 0, mib);
  harbour.restart();
  EXPECT_EQ(read(*storage, 0, mib), before);
  harbour.restart();
  EXPECT_EQ(storage->extent_at(HostOffset(0), mib).length, mib);
}

TEST(nbd_client, reads_wait_for_a_server_that_is_away) {
  Harbour harbour;
  harbour.start();
  const auto storage = open(harbour.uri(), false, {.first_pause = 20ms});
  const Bytes before = read(*storage, 0, mib);
  harbour.stop();
  Bytes after;
  std::thread reader([&] { after = read(*storage, 0, mib); });
  harbour.start();
  reader.join();
  EXPECT_EQ(after, before);
}

TEST(nbd_client, gives_up_a_server_that_does_not_come_back) {
  Harbour harbour;
  harbour.start();
  const auto storage = open(harbour.uri());
  harbour.stop();
  const Error error = test::error_of([&] { read(*storage, 0, 512); });
  EXPECT_EQ(error.kind(), ErrorKind::io);
  EXPECT_THAT(error.what(), StartsWith(storage->name()));
}

TEST(nbd_client, an_export_that_came_back_with_another_size_is_another) {
  Harbour harbour;
  harbour.start();
  const auto storage = open(harbour.uri());
  harbour.stop();
  harbour.change_disk(2 * mib);
  harbour.start();
  EXPECT_THAT(test::error_of([&] { read(*storage, 0, 512); }).what(), HasSubstr("the export has 2097152 bytes now"));
}

TEST(nbd_client, what_was_flushed_is_not_missed_when_the_server_comes_back) {
  Harbour harbour;
  harbour.start();
  const auto storage = open(harbour.uri(), true);
  storage->write(HostOffset(0), Bytes(512, std::byte{1}));
  storage->flush();
  harbour.restart();
  storage->write(HostOffset(512), Bytes(512, std::byte{2}));
  EXPECT_EQ(read(*storage, 0, 1), Bytes(1, std::byte{1}));
  EXPECT_EQ(read(*storage, 512, 1), Bytes(1, std::byte{2}));
}

TEST(nbd_client, reports_what_was_not_flushed_when_the_server_went_away) {
  for (const int first : {0, 1, 2}) {
    Harbour harbour;
    harbour.start();
    const auto storage = open(harbour.uri(), true);
    storage->write(HostOffset(0), Bytes(512, std::byte{1}));
    harbour.restart();
    const std::vector<std::function<void()>> uses{
        [&] { read(*storage, 0, 512); }, [&] { storage->write(HostOffset(0), Bytes(512)); }, [&] { storage->flush(); }};
    EXPECT_THAT(test::error_of(uses[static_cast<size_t>(first)]).what(),
                HasSubstr("what was written since the last flush may be lost"));
    for (const auto& use : uses) EXPECT_EQ(test::error_of(use).kind(), ErrorKind::io);
  }
}

// ---- Servers with limits

// Answers from memory, and holds every request against the blocks that were announced.
class BlockServer {
 public:
  explicit BlockServer(uint32_t min_block, uint32_t max_block, uint64_t size = mib)
      : bytes(test::random_bytes(5, size)),
        min(min_block),
        max(max_block),
        server({.size = size,
                .flags = transmission_has_flags | transmission_send_write_zeroes | transmission_send_trim,
                .min_block = min_block,
                .preferred_block = std::max<uint32_t>(min_block, 4096),
                .max_block = max_block},
               [this](const FakeRequest& request) { return answer(request); }) {}

  Bytes bytes;
  std::atomic<int> wrong = 0;
  std::atomic<int> requests = 0;
  uint32_t min;
  uint32_t max;
  std::mutex mutex;
  std::function<void()> before_read_is_answered;  // set while there are no requests
  FakeServer server;

 private:
  Bytes answer(const FakeRequest& request) {
    const std::lock_guard lock(mutex);
    ++requests;
    if (request.offset % min != 0 || request.length % min != 0) ++wrong;
    const bool has_data = request.type == CommandType::read || request.type == CommandType::write;
    if (has_data && request.length > max) ++wrong;
    const auto start = bytes.begin() + static_cast<std::ptrdiff_t>(request.offset);
    switch (request.type) {
      case CommandType::read:
        if (before_read_is_answered) before_read_is_answered();
        return data_chunk(request.cookie, reply_flag_done, request.offset, Bytes(start, start + request.length));
      case CommandType::write:
        std::ranges::copy(request.payload, start);
        break;
      case CommandType::write_zeroes:
        std::fill_n(start, request.length, std::byte{0});
        break;
      case CommandType::block_status:
        return status_chunk(request.cookie, {{min, 0}, {min, state_hole | state_zero}, {min, state_zero}});
      default:
        break;
    }
    return simple_reply(request.cookie);
  }
};

TEST(nbd_client, keeps_to_blocks_of_the_servers_least_size) {
  constexpr uint32_t block = 4096;
  BlockServer fake(block, 8 * block);
  Bytes expected = fake.bytes;
  const auto storage = open(fake.server.uri(), true);
  const Bytes bytes = test::random_bytes(6, 100'000);
  for (const auto& [offset, count] : std::vector<std::pair<uint64_t, size_t>>{
           {0, 1}, {4095, 2}, {block, block}, {5000, 100}, {10'000, 100'000}, {mib - 10, 10}}) {
    storage->write(HostOffset(offset), std::span(bytes).first(count));
    std::copy_n(bytes.begin(), count, expected.begin() + static_cast<std::ptrdiff_t>(offset));
    EXPECT_EQ(read(*storage, offset, count), Bytes(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(count)));
  }
  storage->zero(HostOffset(3), 20'000, false);
  std::fill_n(expected.begin() + 3, 20'000, std::byte{0});
  storage->zero(HostOffset(70'000), 5, true);
  std::fill_n(expected.begin() + 70'000, 5, std::byte{0});
  storage->discard(HostOffset(100), 50'000);
  EXPECT_EQ(read(*storage, 0, mib), expected);
  EXPECT_EQ(fake.bytes, expected);
  EXPECT_EQ(fake.wrong, 0);
}

TEST(nbd_client, a_write_of_a_block_while_a_part_of_it_is_changed_is_not_lost) {
  constexpr uint32_t block = 4096;
  BlockServer fake(block, 8 * block);
  const auto storage = open(fake.server.uri(), true);
  std::future<void> other;
  fake.before_read_is_answered = [&] {
    if (other.valid()) return;
    other = std::async(std::launch::async, [&] { storage->write(HostOffset(0), Bytes(block, std::byte{2})); });
    // If it can be sent now, it is given the time for that; it may as well have to wait.
    other.wait_for(50ms);
  };
  storage->write(HostOffset(block / 2), Bytes(block / 2, std::byte{1}));
  other.get();
  EXPECT_EQ(read(*storage, 0, block / 2), Bytes(block / 2, std::byte{2}));
}

TEST(nbd_client, extents_of_blocks_begin_and_end_where_they_are_asked_for) {
  BlockServer fake(4096, mib);
  const auto storage = open(fake.server.uri());
  const StorageExtent hole = storage->extent_at(HostOffset(4096 + 100), mib);
  EXPECT_EQ(hole.length, 3996U);  // what the server says of the block that was asked about
  EXPECT_FALSE(hole.hole);
  EXPECT_EQ(storage->extent_at(HostOffset(0), 10).length, 10U);
  EXPECT_EQ(fake.wrong, 0);
}

TEST(nbd_client, senseless_block_sizes_are_not_believed) {
  BlockServer fake(3, 4096);
  EXPECT_EQ(read(*open(fake.server.uri()), 1, 10), Bytes(fake.bytes.begin() + 1, fake.bytes.begin() + 11));
}

// ---- Extents

TEST(nbd_client, walks_many_extents_in_few_round_trips) {
  constexpr uint32_t extents = 256;
  std::atomic<int> asked = 0;
  const FakeServer fake({.size = mib}, [&](const FakeRequest& request) {
    ++asked;
    std::vector<std::pair<uint32_t, uint32_t>> told;
    for (uint32_t i = 0; i < extents; ++i) told.emplace_back(mib / extents, i % 2 == 0 ? 0 : state_hole | state_zero);
    return status_chunk(request.cookie, told);
  });
  const auto storage = open(fake.uri());
  unsigned seen = 0;
  for (uint64_t at = 0; at < mib; ++seen) {
    const StorageExtent extent = storage->extent_at(HostOffset(at), mib - at);
    EXPECT_EQ(extent.length, mib / extents);
    EXPECT_EQ(extent.hole, seen % 2 == 1);
    at += extent.length;
  }
  EXPECT_EQ(seen, extents);
  EXPECT_EQ(asked, 1);
}

TEST(nbd_client, takes_what_a_server_tells_beyond_and_short_of_the_question) {
  const FakeServer fake({.size = mib}, [](const FakeRequest& request) {
    if (request.offset == 0) return status_chunk(request.cookie, {{4096, state_zero}});  // one extent, of many
    return status_chunk(request.cookie, {{8192, state_hole}, {UINT32_MAX, state_hole | state_zero}, {5, 0}});
  });
  const auto storage = open(fake.uri());
  const StorageExtent zeros = storage->extent_at(HostOffset(0), mib);
  EXPECT_EQ(zeros.length, 4096U);
  EXPECT_TRUE(zeros.zero && !zeros.hole);
  const StorageExtent data = storage->extent_at(HostOffset(4096), mib - 4096);
  EXPECT_EQ(data.length, 8192U);
  EXPECT_FALSE(data.zero || data.hole) << "a hole that is not said to read as zeros has to be read";
  const StorageExtent hole = storage->extent_at(HostOffset(12'288), mib - 12'288);
  EXPECT_EQ(hole.length, mib - 12'288);
  EXPECT_TRUE(hole.hole);
}

TEST(nbd_client, forgets_extents_that_it_changes) {
  Harbour harbour;
  std::atomic<bool> written = false;
  const FakeServer fake({.size = mib}, [&](const FakeRequest& request) {
    if (request.type == CommandType::block_status) {
      return status_chunk(request.cookie, {{mib, written ? 0 : state_hole | state_zero}});
    }
    written = true;
    return simple_reply(request.cookie);
  });
  const auto storage = open(fake.uri(), true);
  EXPECT_TRUE(storage->extent_at(HostOffset(0), mib).hole);
  storage->write(HostOffset(0), Bytes(512));
  EXPECT_FALSE(storage->extent_at(HostOffset(0), mib).hole);
}

TEST(nbd_client, what_a_server_cannot_tell_is_data) {
  const FakeServer fake({.size = mib}, [](const FakeRequest& request) {
    return simple_reply(request.cookie, static_cast<uint32_t>(WireError::invalid));
  });
  const StorageExtent extent = open(fake.uri())->extent_at(HostOffset(0), mib);
  EXPECT_EQ(extent.length, mib);
  EXPECT_FALSE(extent.hole || extent.zero);
}

// ---- Servers that fall silent

// A server that reads requests, and says nothing to those of its first `connections` connections.
class Mute {
 public:
  explicit Mute(int connections)
      : server_({.size = mib, .flags = transmission_has_flags | transmission_send_flush},
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
    ClientOptions options = impatient;
    options.patience.silence = 100ms;
    return opened(options);
  }
  std::shared_ptr<NbdStorage> opened(const ClientOptions& options) const { return open(server_.uri(), true, options); }

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
    readers.emplace_back([&] { EXPECT_EQ(read(*storage, 0, 512), Bytes(512, std::byte{7})); });
  }
  for (std::thread& reader : readers) reader.join();
}

TEST(nbd_client, safety_16_a_server_that_says_nothing_is_given_up) {
  const Mute server(100);
  const Error reading = test::error_of([&] { read(*server.opened(), 0, 512); });
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
      return test::error_of(
          [&] { writing ? storage->write(HostOffset(0), Bytes(512)) : static_cast<void>(read(*storage, 0, 512)); });
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
  auto request = std::async(std::launch::async, [&] { return test::error_of([&] { read(*storage, 0, 512); }); });
  EXPECT_EQ(request.wait_for(200ms), std::future_status::timeout);
  interrupted = true;
  EXPECT_EQ(request.get().kind(), ErrorKind::interrupted);
}

TEST(nbd_client, a_flush_may_take_any_time) {
  const FakeServer slow({.size = mib, .flags = transmission_has_flags | transmission_send_flush},
                        [](const FakeRequest& request) {
                          if (request.type == CommandType::flush) std::this_thread::sleep_for(200ms);
                          return simple_reply(request.cookie);
                        });
  ClientOptions options = impatient;
  options.patience.silence = 20ms;
  const auto storage = open(slow.uri(), true, options);
  storage->write(HostOffset(0), Bytes(512));
  storage->flush();
}

TEST(nbd_client, safety_7a_a_flush_that_the_server_failed_once_fails_from_then_on) {
  std::atomic<unsigned> flushes = 0;
  const FakeServer forgetful({.size = mib, .flags = transmission_has_flags | transmission_send_flush},
                             [&](const FakeRequest& request) {
                               const bool fails = request.type == CommandType::flush && ++flushes == 1;
                               return simple_reply(request.cookie, fails ? EIO : 0);
                             });
  const auto storage = open(forgetful.uri(), true, impatient);
  for (int i = 0; i < 3; ++i) {
    storage->write(HostOffset(0), Bytes(512));
    EXPECT_EQ(test::error_of([&] { storage->flush(); }).errno_value(), EIO);
  }
  EXPECT_EQ(flushes, 1U);
  const auto anew = open(forgetful.uri(), true, impatient);
  anew->write(HostOffset(0), Bytes(512));
  anew->flush();
}

// ---- Servers that mean ill

TEST(nbd_client, safety_15_senseless_extents_are_an_error) {
  const FakeServer fake({.size = mib}, [](const FakeRequest& request) {
    return status_chunk(request.cookie, {{0, 0}, {4096, 0}});
  });
  const auto storage = open(fake.uri());
  EXPECT_THROW(storage->extent_at(HostOffset(0), mib), Error);
}

TEST(nbd_client, safety_15_bytes_left_out_are_an_error_and_not_what_was_in_memory) {
  for (const std::vector<std::pair<uint64_t, size_t>>& told : std::vector<std::vector<std::pair<uint64_t, size_t>>>{
           {{0, 100}}, {{412, 100}}, {{0, 256}, {257, 255}}, {{256, 256}, {300, 212}}, {}}) {
    const FakeServer fake({.size = mib}, [&](const FakeRequest& request) {
      Bytes answer;
      for (const auto& [offset, count] : told) {
        const Bytes piece = data_chunk(request.cookie, 0, request.offset + offset, Bytes(count));
        answer.insert(answer.end(), piece.begin(), piece.end());
      }
      const Bytes end = chunk(request.cookie, reply_flag_done, ChunkType::none, {});
      answer.insert(answer.end(), end.begin(), end.end());
      return answer;
    });
    const auto storage = open(fake.uri());
    EXPECT_THAT(test::error_of([&] { read(*storage, 0, 512); }).what(), HasSubstr("the server left some of them out"));
  }
}

TEST(nbd_client, chunks_out_of_order_are_put_together) {
  const FakeServer fake({.size = mib}, [](const FakeRequest& request) {
    Bytes answer = data_chunk(request.cookie, 0, request.offset + 256, Bytes(256, std::byte{2}));
    const Bytes first = data_chunk(request.cookie, reply_flag_done, request.offset, Bytes(256, std::byte{1}));
    answer.insert(answer.end(), first.begin(), first.end());
    return answer;
  });
  Bytes expected(512, std::byte{1});
  std::fill_n(expected.begin() + 256, 256, std::byte{2});
  EXPECT_EQ(read(*open(fake.uri()), 0, 512), expected);
}

TEST(nbd_client, safety_15_answers_that_break_the_protocol_end_the_connection) {
  const std::vector<std::function<Bytes(const FakeRequest&)>> answers{
      [](const FakeRequest& request) { return simple_reply(request.cookie + 1); },
      [](const FakeRequest&) { return Bytes(20, std::byte{0xA5}); },
      [](const FakeRequest& request) { return data_chunk(request.cookie, 1, request.offset + 512, Bytes(512)); },
      [](const FakeRequest& request) { return data_chunk(request.cookie, 1, request.offset - 1, Bytes(512)); },
      [](const FakeRequest& request) {
        return status_chunk(request.cookie, {{4096, 0}});
      },
      [](const FakeRequest&) { return Bytes(); },
  };
  for (const auto& answer : answers) {
    const FakeServer fake({.size = mib}, answer);
    const auto storage = open(fake.uri(), true);
    EXPECT_EQ(test::error_of([&] { read(*storage, 4096, 512); }).kind(), ErrorKind::io);
    EXPECT_EQ(test::error_of([&] { storage->write(HostOffset(4096), Bytes(512)); }).kind(), ErrorKind::io);
  }
}

TEST(nbd_client, tells_what_the_server_refused) {
  const FakeServer fake({.size = mib}, [](const FakeRequest& request) {
    return simple_reply(request.cookie, static_cast<uint32_t>(WireError::io));
  });
  const auto storage = open(fake.uri(), true);
  const Error reading = test::error_of([&] { storage->extent_at(HostOffset(0), mib); });
  EXPECT_EQ(reading.errno_value(), EIO);
  const Error writing = test::error_of([&] { storage->write(HostOffset(1024), Bytes(512)); });
  EXPECT_EQ(writing.errno_value(), EIO);
  EXPECT_THAT(writing.what(), HasSubstr("writing 512 bytes at offset 1024: Input/output error"));
}

TEST(nbd_client, without_the_command_zeros_are_written) {
  std::atomic<int> writes = 0;
  const FakeServer fake({.size = mib}, [&](const FakeRequest& request) {
    if (request.type == CommandType::write && request.payload == Bytes(request.length)) ++writes;
    return simple_reply(request.cookie);
  });
  const auto storage = open(fake.uri(), true);
  storage->zero(HostOffset(0), 1000, false);
  storage->discard(HostOffset(0), 1000);
  storage->flush();
  EXPECT_EQ(writes, 1);
}

}  // namespace
}  // namespace drydock::nbd
