// SPDX-License-Identifier: GPL-3.0-or-later
//
// How a server and its connections end: by signals, beside disks that do not answer, and without memory.

#include <gtest/gtest.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <array>
#include <atomic>
#include <boost/asio/post.hpp>
#include <csignal>
#include <functional>
#include <latch>
#include <mutex>
#include <new>
#include <string_view>
#include <thread>
#include <utility>

#include "nbd/reply_sender.h"
#include "nbd/stop_signals.h"
#include "src/null_storage.h"
#include "tests/nbd/raw_client.h"
#include "tests/nbd/test_server.h"
#include "tests/support/watched_storage.h"

namespace drydock::nbd {
namespace {

// The second of two signals may be on its way to its handler when the last client is gone and all is flushed: nothing
// waits for any disk then, and the server must not seem to.
TEST(nbd_stop_signals, safety_7_a_signal_that_is_heard_when_all_is_done_holds_nothing_up) {
  // So many steps of the strand lie between the signal and the end: with one of these numbers it is on its way just
  // then.
  for (int steps = 0; steps < 8; ++steps) {
    boost::asio::io_context control{1};
    const auto strand = boost::asio::make_strand(control);
    bool ceased = false;
    int late = 0;
    StopSignals signals(
        strand, {.stop = [] { return false; }, .hurry = [&] { late += ceased ? 1 : 0; }, .give_up = [&] { ++late; }},
        std::chrono::milliseconds(50));
    signals.listen();
    int left = steps;
    const std::function<void()> step = [&] {
      if (left-- > 0) return boost::asio::post(strand, step);
      ceased = true;
      signals.cease();
    };
    boost::asio::post(strand, [&] {
      ::raise(SIGTERM);
      boost::asio::post(strand, step);
    });
    control.run();
    EXPECT_EQ(late, 0) << steps;
  }
}

TEST(nbd_stop_signals, safety_7_who_goes_on_signalling_does_not_put_off_the_end) {
  boost::asio::io_context control{1};
  const auto strand = boost::asio::make_strand(control);
  int hurried = 0;
  boost::asio::steady_timer next(strand);
  std::unique_ptr<StopSignals> signals;
  const std::function<void()> go_on = [&] {
    ::raise(SIGTERM);
    next.expires_after(std::chrono::milliseconds(10));
    next.async_wait([&](const boost::system::error_code& cancelled) {
      if (!cancelled) go_on();
    });
  };
  signals = std::make_unique<StopSignals>(strand,
                                          StopSignals::Actions{.stop = [] { return false; },
                                                               .hurry = [&] { ++hurried; },
                                                               .give_up =
                                                                   [&] {
                                                                     next.cancel();
                                                                     signals->cease();
                                                                   }},
                                          std::chrono::milliseconds(100));
  signals->listen();
  boost::asio::post(strand, go_on);
  control.run();
  EXPECT_GT(hurried, 1);
}

// A server whose only disk does not answer, once it is told so: neither reads nor its last flush.
class HungServer {
 public:
  HungServer() {
    storage_->set_watcher([this](test::Operation, HostOffset, uint64_t) {
      if (hangs) wait_for_answer();
    });
    Exports exports;
    exports.add({"disk", "", std::make_shared<RawDisk>(storage_, RawOrigin::given), false});
    ServerOptions options;
    options.stop_on_signals = true;
    options.limits.patience = std::chrono::milliseconds(50);
    options.give_up = [this] {
      ++given_up;
      answer_.count_down();  // where the program ends, which a test must outlive
    };
    server = std::make_unique<Server>(std::move(exports), options);
    server->start();
  }

  void wait_for_answer() {
    ++waiting;
    answer_.wait();
  }
  void signal_while_waiting() {
    EXPECT_TRUE(test::wait_until([this] { return waiting > 0; }));
    ::raise(SIGTERM);
    ::raise(SIGTERM);
  }

  std::atomic<bool> hangs = false;
  std::atomic<int> waiting = 0;
  std::atomic<int> given_up = 0;
  std::unique_ptr<Server> server;

 private:
  std::latch answer_{1};
  std::shared_ptr<test::WatchedStorage> storage_ =
      std::make_shared<test::WatchedStorage>(std::make_shared<MemoryStorage>(std::vector<std::byte>(1 << 20)));
};

TEST(nbd_ending, safety_17a_two_signals_end_a_server_whose_disk_does_not_answer_a_client) {
  HungServer hung;
  RawClient client(*hung.server);
  client.go();
  hung.hangs = true;
  client.send_request(CommandType::read, 0, 512 << 10);
  hung.signal_while_waiting();
  hung.server->wait();
  EXPECT_EQ(hung.given_up, 1);
  EXPECT_TRUE(client.is_closed());
}

TEST(nbd_ending, safety_17a_two_signals_end_a_server_whose_last_flush_or_close_hangs) {
  for (const std::string_view what : {"flush", "close"}) {
    HungServer hung;
    hung.hangs = what == "flush";
    std::jthread signaller([&] { hung.signal_while_waiting(); });
    hung.server->stop();
    hung.server->wait([&] {
      if (what == "close") hung.wait_for_answer();
    });
    EXPECT_EQ(hung.given_up, 1) << what;
  }
}

// A server whose disk holds up the thread that comes to a given operation, until it is let go on.
class HeldServer {
 public:
  HeldServer(uint64_t size, test::Operation operation, int held) {
    const auto storage = std::make_shared<test::WatchedStorage>(std::make_shared<NullStorage>("null", size, true));
    storage->set_watcher([this, operation, held](test::Operation done, HostOffset offset, uint64_t length) {
      if (done != operation) return;
      {
        const std::lock_guard lock(mutex_);
        ranges.emplace_back(offset.value(), length);
      }
      if (++count == held) go_on_.wait();
    });
    Exports exports;
    exports.add({"disk", "", std::make_shared<RawDisk>(storage, RawOrigin::given), false});
    ServerOptions options;
    options.threads = 1;
    options.limits.shutdown = std::chrono::milliseconds(50);
    server = std::make_unique<Server>(std::move(exports), options);
    server->start();
  }
  ~HeldServer() { go_on(); }

  void go_on() {
    if (!std::exchange(going_on_, true)) go_on_.count_down();
  }
  // The client is cut off while the disk is held.
  void stop_beside(RawClient& client) {
    EXPECT_TRUE(test::wait_until([this] { return count > 0; }));
    server->stop();
    EXPECT_TRUE(client.is_closed());
    go_on();
    server->wait();
  }

  std::atomic<int> count = 0;
  std::vector<std::pair<uint64_t, uint64_t>> ranges;
  std::unique_ptr<Server> server;

 private:
  std::mutex mutex_;
  std::latch go_on_{1};
  bool going_on_ = false;
};

// What was sent has been taken.
void wait_until_read(const RawClient& client) {
  EXPECT_TRUE(test::wait_until([&] {
    int left = 0;
    return ::ioctl(client.descriptor(), SIOCOUTQ, &left) == 0 && left == 0;
  }));
}

TEST(nbd_ending, safety_17a_what_waits_behind_a_disk_is_dropped_with_its_connection) {
  HeldServer held(1 << 20, test::Operation::write, 1);
  RawClient client(*held.server);
  client.go();
  const Bytes data(64 << 10);
  for (uint64_t n = 0; n < 8; ++n) {
    client.send_request(CommandType::write, n * data.size(), data.size(), 0, n);
    client.send(data);
  }
  wait_until_read(client);
  held.stop_beside(client);
  EXPECT_EQ(held.count, 1);
}

constexpr uint64_t almost_4_gib = (uint64_t{4} << 30) - (64 << 10);

TEST(nbd_ending, safety_17a_zeroes_and_trims_that_take_long_end_with_their_connection) {
  for (const auto& [command, operation] : {std::pair(CommandType::write_zeroes, test::Operation::zero),
                                           std::pair(CommandType::trim, test::Operation::discard)}) {
    HeldServer held(uint64_t{1} << 40, operation, 3);
    RawClient client(*held.server);
    client.go();
    client.send_request(command, 4096, almost_4_gib);
    EXPECT_TRUE(test::wait_until([&] { return held.count == 3; }));
    held.stop_beside(client);
    EXPECT_EQ(held.count, 3);
  }
}

TEST(nbd_ending, zeroes_and_trims_that_are_done_in_pieces_leave_nothing_out) {
  for (const auto& [command, operation] : {std::pair(CommandType::write_zeroes, test::Operation::zero),
                                           std::pair(CommandType::trim, test::Operation::discard)}) {
    HeldServer held(uint64_t{1} << 40, operation, 0);
    RawClient client(*held.server);
    client.go();
    client.request(command, 4096, almost_4_gib);
    uint64_t done = 4096;
    for (const auto& [start, length] : held.ranges) {
      EXPECT_LE(start, done);
      done = start + length;
    }
    EXPECT_GT(held.ranges.size(), 1U);
    EXPECT_EQ(done, 4096 + almost_4_gib);
  }
}

// ---- without memory

class CatalogWithoutMemory final : public ExportCatalog {
 public:
  std::vector<Entry> list() const override { return {}; }
  std::shared_ptr<const Export> find(std::string_view) const override { throw std::bad_alloc(); }
  void flush() const override {}
};

TEST(nbd_ending, safety_16_a_handshake_that_runs_out_of_memory_leaves_nothing_behind) {
  Server server(std::make_shared<CatalogWithoutMemory>(), ServerOptions{});
  server.start();
  RawClient client(server);
  client.send_option(Option::go, info_data("disk"));
  EXPECT_TRUE(client.is_closed());
  server.stop();
  server.wait();
}

class CatalogThatCannotClose final : public ExportCatalog {
 public:
  std::vector<Entry> list() const override { return {}; }
  std::shared_ptr<const Export> find(std::string_view) const override { return nullptr; }
  void flush() const override {}
  void close_idle() const override {
    ++tried;
    throw std::bad_alloc();
  }
  mutable std::atomic<int> tried = 0;
};

TEST(nbd_ending, safety_16_what_fails_as_images_are_closed_meanwhile_is_tried_again) {
  const auto catalog = std::make_shared<CatalogThatCannotClose>();
  ServerOptions options;
  options.limits.housekeeping = std::chrono::milliseconds(5);
  Server server(catalog, options);
  server.start();
  EXPECT_TRUE(test::wait_until([&] { return catalog->tried > 1; }));
  server.stop();
  server.wait();
}

class DiskWithoutMemory final : public Disk {
 public:
  uint64_t size() const override { return 1 << 20; }
  bool writable() const override { return true; }
  void read(GuestOffset, std::span<std::byte>) const override { throw std::bad_alloc(); }
  void write(GuestOffset, std::span<const std::byte>) override {}
  void flush() override {}
  bool write_at_once(GuestOffset, std::span<const std::byte>) override { throw std::bad_alloc(); }
  std::vector<Extent> map(GuestRange range, size_t) const override {
    return {{.range = range, .present = true, .data = true}};
  }
};

TEST(nbd_ending, safety_16_requests_that_run_out_of_memory_leave_nothing_behind) {
  Exports exports;
  exports.add({"disk", "", std::make_shared<DiskWithoutMemory>(), false});
  Server server(std::move(exports), {});
  server.start();
  RawClient told(server);
  told.go();
  const auto chunks = told.request(CommandType::read, 0, 512 << 10);
  EXPECT_EQ(chunks.back().error(), static_cast<uint32_t>(WireError::no_memory));
  // Where it happens to the thread that reads requests, the connection ends.
  RawClient cut_off(server);
  cut_off.go();
  cut_off.send_request(CommandType::write, 0, 4096);
  cut_off.send(Bytes(4096));
  EXPECT_NO_THROW(cut_off.receive_rest());
  server.stop();
  server.wait();
}

class StreamWithoutMemory final : public Stream {
 public:
  using Stream::Stream;
  Moved receive(std::span<std::byte>) override { return {}; }
  bool holds_received() const override { return false; }
  Moved send(std::span<const iovec>, bool) override { throw std::bad_alloc(); }
  Moved send_file(int, uint64_t, size_t) override { throw std::bad_alloc(); }
  void say_goodbye() override {}
};

TEST(nbd_reply_sender, safety_16_one_that_runs_out_of_memory_gives_up_every_reply_and_the_role) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()), 0);
  const UniqueFd theirs(ends[1]);
  boost::asio::io_context loop;
  Readiness readiness(loop);
  const auto socket = std::make_shared<Socket>(readiness, UniqueFd(ends[0]));
  int done = 0;
  int failed = 0;
  const auto sender = std::make_shared<ReplySender>(
      std::make_shared<StreamWithoutMemory>(socket),
      ReplySender::Events{.done = [&](const Reply&) { ++done; }, .failed = [&] { ++failed; }});
  const auto reply = [] {
    Reply made;
    made.head = Bytes(16);
    made.add_head(0);
    return made;
  };
  sender->push(reply());
  EXPECT_EQ(done, 1);
  sender->enqueue(reply());
  sender->enqueue(reply());
  EXPECT_FALSE(sender->send_some());
  EXPECT_EQ(done, 3);
  sender->push(reply());
  EXPECT_EQ(done, 4);
  EXPECT_EQ(failed, 1);
}

}  // namespace
}  // namespace drydock::nbd
