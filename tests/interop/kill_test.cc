// SPDX-License-Identifier: GPL-3.0-or-later
//
// drydock is killed, not asked to stop. `serve --rw`, while clients write: what they were told is flushed is there.
// Commands that make files: nothing short stands under a final name, and what was there before is there still. (Of
// copy-out, which needs an appliance, tests/inspect/tree_extractor_test.cc shows the same.)

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <thread>

#include "src/file_storage.h"
#include "src/qcow2/check.h"
#include "src/slice_disk.h"
#include "tests/crash/configuration.h"
#include "tests/crash/guest_model.h"
#include "tests/crash/workload.h"
#include "tests/nbd/raw_client.h"
#include "tests/support/process.h"
#include "tests/support/support.h"

namespace drydock {
namespace {

namespace fs = std::filesystem;

using crash::Configuration;
using crash::DiskModel;
using crash::Random;
using crash::Step;
using nbd::CommandType;

constexpr size_t client_count = 3;
constexpr uint64_t part_size = (1 << 20) + 512;  // bytes of the disk that belong to one client; clusters are shared

// A client with a part of the disk to itself, and what may be found there.
class Client {
 public:
  Client(const std::string& socket, uint64_t start, uint64_t seed)
      : client_(socket), start_(start), random_(seed), model_(std::vector<std::byte>(part_size), {}) {
    client_.go("");
  }

  // Works until the server goes away.
  void work() {
    try {
      for (uint32_t number = 1;; ++number) step(number);
    } catch (const std::runtime_error&) {
      // killed
    }
  }

  uint64_t flushes() const { return flushes_; }
  uint64_t start() const { return start_; }
  const DiskModel& model() const { return model_; }

 private:
  void step(uint32_t number) {
    const auto choice = static_cast<unsigned>(random_.below(20));
    const uint64_t length = 512 * random_.between(1, 100);
    Step step{.number = number, .offset = 512 * random_.below((part_size - length) / 512), .length = length};
    if (choice == 0) return flush();
    if (choice == 1) return zero(step, CommandType::write_zeroes);
    if (choice == 2) return zero(step, CommandType::trim);
    write(step, choice == 3);
  }

  void write(const Step& step, bool fua) {
    const std::vector<std::byte> contents = step.contents();
    model_.write(step.offset, contents);
    request(CommandType::write, step, fua ? nbd::command_flag_fua : 0, contents);
    if (fua) model_.flushed(step.offset, step.length);
  }

  // A trim leaves zeros or what was there, and the zeroes behind it end the uncertainty.
  void zero(const Step& step, CommandType type) {
    model_.zero(step.offset, step.length);
    if (type == CommandType::trim) request(type, step, 0);
    request(CommandType::write_zeroes, step, random_.chance(50) ? nbd::command_flag_no_hole : 0);
  }

  void flush() {
    request(CommandType::flush, {}, 0);
    model_.flushed();
    ++flushes_;
  }

  void request(CommandType type, const Step& step, uint16_t flags, std::span<const std::byte> payload = {}) {
    const uint64_t offset = type == CommandType::flush ? 0 : start_ + step.offset;
    const auto chunks = client_.request(type, offset, static_cast<uint32_t>(step.length), flags, payload);
    if (chunks.back().is(nbd::ChunkType::error)) ADD_FAILURE() << chunks.back().message();
  }

  nbd::RawClient client_;
  uint64_t start_;
  Random random_;
  DiskModel model_;
  uint64_t flushes_ = 0;
};

class Kill : public testing::TestWithParam<uint64_t> {};

Configuration random_kind(Random& random) {
  Configuration configuration = random_configuration(random);
  configuration.backing = crash::BackingKind::none;  // what a trim leaves is then zeros or what was there
  configuration.disk_size = client_count * part_size;
  return configuration;
}

// Serves until it is killed, some time after each client had a flush answered.
std::vector<std::unique_ptr<Client>> serve_and_kill(const test::TempDir& dir, Random& random) {
  test::Process server({test::drydock_program(), "serve", "--rw", "--format=qcow2", "--socket=" + dir.file("socket"),
                        dir.file("image")});
  if (!server.wait_for_output("socket")) {
    server.wait();
    throw std::runtime_error("serve: " + server.errors());
  }
  std::vector<std::unique_ptr<Client>> clients;
  std::vector<std::thread> threads;
  for (size_t i = 0; i < client_count; ++i) {
    clients.push_back(std::make_unique<Client>(dir.file("socket"), i * part_size, random.next()));
    threads.emplace_back(&Client::work, clients.back().get());
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(random.between(150, 600)));
  server.signal(SIGKILL);
  server.wait();
  for (std::thread& thread : threads) thread.join();
  return clients;
}

TEST_P(Kill, safety_3_a_killed_server_loses_nothing_that_was_flushed) {
  Random random(GetParam());
  const Configuration configuration = random_kind(random);
  SCOPED_TRACE(configuration.describe());
  const test::TempDir dir;
  make_files(configuration, dir);
  const auto clients = serve_and_kill(dir, random);

  for (const bool writable : {false, true}) {  // opening to write recovers an image with lazy refcounts
    const auto image = Image::open(dir.file("image"), {.format = Format::qcow2, .writable = writable});
    for (const auto& client : clients) {
      EXPECT_GT(client->flushes(), 0U);
      EXPECT_NO_THROW(
          client->model().expect_possible(SliceDisk(image->disk(), {GuestOffset(client->start()), part_size})));
    }
    if (writable) image->close();
  }
  const qcow2::CheckResult result = qcow2::check(*FileStorage::open(dir.file("image"), false));
  EXPECT_EQ(result.corruptions, 0U) << result.findings.front().message;
  EXPECT_EQ(result.check_errors, 0U);
  const test::Outcome outcome = test::run({"qemu-img", "check", "-f", "qcow2", dir.file("image")});
  EXPECT_TRUE(outcome.status == 0 || outcome.status == 3) << outcome.out << outcome.err;
}

INSTANTIATE_TEST_SUITE_P(seed, Kill, testing::Range<uint64_t>(1, 13));

class KilledMaker : public testing::Test {
 protected:
  // The files that are being made, when `count` of them have something in them.
  bool wait_for_parts(size_t count) const {
    return test::wait_until([&] {
      size_t found = 0;
      for (const auto& entry : fs::directory_iterator(dir_.path())) {
        std::error_code gone;
        const bool part = entry.path().extension() == ".part";
        if (part && fs::file_size(entry.path(), gone) > 0 && !gone) ++found;
      }
      return found >= count;
    });
  }

  void kill_when_parts_grow(std::vector<std::string> words, size_t count) const {
    words.insert(words.begin(), test::drydock_program());
    test::Process maker(words);
    ASSERT_TRUE(wait_for_parts(count)) << maker.errors();
    maker.signal(SIGKILL);
    EXPECT_EQ(maker.wait(), 128 + SIGKILL) << maker.errors();
  }

  void expect_untouched(const std::string& name) const { EXPECT_EQ(text(name), "what was there"); }
  std::string text(const std::string& name) const {
    const auto bytes = test::read_file(dir_.file(name));
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  test::TempDir dir_;
  const std::string image_ = dir_.file("image");
  const std::string data_ = dir_.file("data");
};

// As much as takes a second to write, and no more than memory has room for.
TEST_F(KilledMaker, safety_7_a_killed_create_leaves_what_was_there) {
  kill_when_parts_grow({"create", "-f", "raw", "-o", "preallocation=full", image_, "4G"}, 1);
  EXPECT_FALSE(fs::exists(image_));
  test::write_file(image_, "what was there");
  test::write_file(data_, "what was there");
  kill_when_parts_grow({"create", "-f", "raw", "-o", "preallocation=full", image_, "4G"}, 1);
  kill_when_parts_grow({"create", "-f", "qcow2", "-o", "preallocation=full,data_file=data", image_, "4G"}, 1);
  expect_untouched("image");
  expect_untouched("data");
}

TEST_F(KilledMaker, safety_7_a_killed_convert_leaves_what_was_there_its_data_file_too) {
  const std::string source = dir_.file("source");
  test::write_file(source, test::random_bytes(5, 4 << 20));
  const std::vector<std::string> slow{"convert", "-r", "1M", "-f", "raw", "-O", "qcow2"};
  const auto into = [&](std::vector<std::string> words, const std::vector<std::string>& more) {
    words.insert(words.end(), more.begin(), more.end());
    words.insert(words.end(), {source, image_});
    return words;
  };
  kill_when_parts_grow(into(slow, {"-o", "data_file=data"}), 2);
  EXPECT_FALSE(fs::exists(image_));
  EXPECT_FALSE(fs::exists(data_));
  test::write_file(image_, "what was there");
  test::write_file(data_, "what was there");
  kill_when_parts_grow(into(slow, {"-o", "data_file=data"}), 2);
  kill_when_parts_grow(into(slow, {}), 1);
  expect_untouched("image");
  expect_untouched("data");
  // The locks went with the process.
  test::run_ok({test::drydock_program(), "convert", "--verify", "-f", "raw", "-O", "qcow2", "-o", "data_file=" + data_,
                source, image_});
  EXPECT_EQ(test::run({"qemu-img", "compare", "-f", "raw", "-F", "qcow2", source, image_}).status, 0);
  EXPECT_EQ(fs::file_size(data_), 4 << 20);
}

}  // namespace
}  // namespace drydock
