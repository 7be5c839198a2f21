// SPDX-License-Identifier: GPL-3.0-or-later
//
// `drydock serve` as a process: its memory under clients that do not read, and its sandbox.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <csignal>
#include <deque>
#include <filesystem>
#include <fstream>
#include <thread>

#include "tests/interop/served.h"
#include "tests/nbd/raw_client.h"

namespace drydock {
namespace {

namespace fs = std::filesystem;
using nbd::CommandType;
using nbd::RawClient;
using testing::HasSubstr;

constexpr uint64_t mib = 1 << 20;

class nbd_hardening : public testing::Test {
 protected:
  std::string uri(const std::string& name) const { return "nbd+unix:///" + name + "?socket=" + socket_; }

  // What it holds compresses to a third.
  std::string make_raw(const std::string& name, uint64_t size) {
    std::vector<std::byte> bytes(size);
    for (uint64_t at = 0; at < size; at += 3 << 10) {
      const auto some = test::random_bytes(at, std::min<uint64_t>(1 << 10, size - at));
      std::ranges::copy(some, bytes.begin() + static_cast<std::ptrdiff_t>(at));
    }
    test::write_file(dir_.file(name), bytes);
    return dir_.file(name);
  }

  std::string make_qcow2(const std::string& name, const std::string& from, const std::vector<std::string>& more = {}) {
    std::vector<std::string> words{"qemu-img", "convert", "-f", "raw", "-O", "qcow2"};
    words.insert(words.end(), more.begin(), more.end());
    words.insert(words.end(), {from, dir_.file(name)});
    test::run_ok(words);
    return dir_.file(name);
  }

  // Of "VmRSS:     123 kB" in `folder`/status the 123, of "CapEff:  0..." the 0...
  static std::string status(const fs::path& folder, const std::string& field) {
    std::ifstream file(folder / "status");
    for (std::string line; std::getline(file, line);) {
      if (!line.starts_with(field + ":")) continue;
      std::istringstream words(line.substr(field.size() + 1));
      std::string value;
      words >> value;
      return value;
    }
    return "";
  }

  static fs::path process(const Served& served) { return fs::path("/proc") / std::to_string(served.pid()); }

  test::TempDir dir_;
  std::string socket_ = dir_.file("socket");
};

// 64 connections with 32 requests of 1 MiB each on their way, none of whose replies is taken.
TEST_F(nbd_hardening, safety_16_memory_stays_under_256_mib) {
  constexpr int connections = 64;
  constexpr int requests = 32;
  const std::string raw = make_raw("raw", 40 * mib);
  for (const bool writable : {false, true}) {
    const std::string image =
        make_qcow2("qcow2", raw, writable ? std::vector<std::string>{} : std::vector<std::string>{"-c"});
    std::vector<std::string> words{"--socket", socket_, image};
    if (writable) words.insert(words.begin(), "--rw");
    Served served(words);
    const auto resident = [&](const char* field) { return std::stoull(status(process(served), field)) << 10; };
    const uint64_t before = resident("VmRSS");
    std::deque<RawClient> clients;
    for (int c = 0; c < connections; ++c) {
      RawClient& client = clients.emplace_back(socket_);
      client.go("", nbd::Framing::structured, {});
      for (int r = 0; r < requests; ++r) {
        client.send_request(CommandType::read, static_cast<uint64_t>(r) * mib, mib, nbd::command_flag_df);
      }
      if (!writable) continue;
      client.send_request(CommandType::write, 0, mib);
      client.send(nbd::Bytes(1000));
    }
    // Everybody is being answered, and the server has done what it can.
    for (const RawClient& client : clients) {
      EXPECT_TRUE(test::wait_until([&] {
        int waiting = 0;
        return ::ioctl(client.descriptor(), FIONREAD, &waiting) == 0 && waiting > 0;
      }));
    }
    EXPECT_TRUE(test::wait_until([&] {
      const std::string now = status(process(served), "VmRSS");
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
      return now == status(process(served), "VmRSS");
    }));
    for (RawClient& client : clients) {
      uint64_t bytes = 0;
      for (int done = 0; done < requests;) {
        const nbd::Chunk chunk = client.receive_chunk();
        if (chunk.is(nbd::ChunkType::offset_data)) bytes += chunk.data.size() - 8;
        done += chunk.done() ? 1 : 0;
      }
      EXPECT_EQ(bytes, requests * mib);
    }
    const uint64_t peak = resident("VmHWM");
    EXPECT_LT(peak - before, 256 * mib) << (writable ? "writable" : "compressed");
    RecordProperty(writable ? "peak_writable" : "peak_compressed", std::to_string(peak - before));
    clients.clear();
    EXPECT_EQ(served.end(SIGTERM), 0);
  }
}

TEST_F(nbd_hardening, safety_16_five_hundred_connections_where_that_many_are_allowed) {
  Served served({"--shared", "500", "--socket", socket_, make_raw("raw", mib)});
  const auto expected = test::read_file(dir_.file("raw"));
  std::deque<RawClient> clients;
  for (int i = 0; i < 500; ++i) clients.emplace_back(socket_).go("");
  RawClient beyond(socket_, std::nullopt);
  EXPECT_TRUE(beyond.is_closed());
  for (RawClient& client : clients) {
    EXPECT_EQ(client.read(0, 4096), nbd::Bytes(expected.begin(), expected.begin() + 4096));
  }
  EXPECT_EQ(served.end(SIGTERM), 0);
}

TEST_F(nbd_hardening, safety_16_no_descriptor_or_thread_is_left_of_thousands_of_clients) {
  Served served({"--socket", socket_, make_raw("raw", mib)});
  const auto count = [&](const char* what) {
    return std::distance(fs::directory_iterator(process(served) / what), {});
  };
  const auto threads = count("task");
  const auto descriptors = count("fd");
  std::string resident;
  for (int i = 0; i < 5000; ++i) {
    // The places of those that are gone may not be free yet.
    ASSERT_TRUE(test::wait_until([&] {
      try {
        RawClient client(socket_);
        client.go("");
        if (i % 2 == 0) client.read(0, 4096);
        return true;
      } catch (const std::runtime_error&) {
        return false;
      }
    }));
    if (i == 1000) resident = status(process(served), "VmRSS");
  }
  EXPECT_TRUE(test::wait_until([&] { return count("fd") == descriptors; }));
  EXPECT_EQ(count("task"), threads);
  EXPECT_LT(std::stoull(status(process(served), "VmRSS")), std::stoull(resident) + 4096);
}

// Everything that serving takes still works under it: the other tests of `serve` run in the sandbox, too.
TEST_F(nbd_hardening, sandbox_holds_for_every_thread_and_takes_every_capability) {
  const std::string image = make_qcow2("qcow2", make_raw("raw", 4 * mib));
  Served served({"--rw", "--socket", socket_, image});
  for (const auto& thread : fs::directory_iterator(process(served) / "task")) {
    EXPECT_EQ(status(thread.path(), "NoNewPrivs"), "1");
    EXPECT_EQ(status(thread.path(), "Seccomp"), "2");
    for (const char* set : {"CapEff", "CapPrm", "CapInh", "CapAmb"}) {
      EXPECT_EQ(status(thread.path(), set), "0000000000000000") << set;
    }
  }
  test::run_ok({"qemu-io", "-f", "raw", "-c", "write -P 5 1M 64k", "-c", "discard 2M 64k", "-c", "write -z 3M 64k",
                "-c", "flush", uri("")});
  test::run_ok({"nbdcopy", uri(""), dir_.file("copy")});
  EXPECT_EQ(served.end(SIGTERM), 0);
  EXPECT_EQ(served.err(), "");
  EXPECT_FALSE(fs::exists(socket_));
  test::run_ok({"qemu-img", "compare", "-f", "raw", "-F", "qcow2", dir_.file("copy"), image});
}

TEST_F(nbd_hardening, sandbox_is_left_out_on_request) {
  Served served({"--no-sandbox", "--socket", socket_, make_raw("raw", mib)});
  EXPECT_EQ(status(process(served), "NoNewPrivs"), status("/proc/self", "NoNewPrivs"));
  EXPECT_EQ(status(process(served), "Seccomp"), status("/proc/self", "Seccomp"));
  EXPECT_EQ(status(process(served), "CapEff"), status("/proc/self", "CapEff"));
}

TEST_F(nbd_hardening, safety_17b_a_source_on_a_unix_socket_is_reached_again_from_the_sandbox) {
  const std::string raw = make_raw("raw", mib);
  const std::string source = dir_.file("source");
  const auto start = [&] {
    auto server = std::make_unique<test::Process>(
        std::vector<std::string>{"qemu-nbd", "-t", "-r", "-f", "raw", "-k", source, raw});
    EXPECT_TRUE(test::wait_until([&] { return test::run({"nbdinfo", "nbd+unix:///?socket=" + source}).status == 0; }));
    return server;
  };
  auto server = start();
  const Served served({"--socket", socket_, "-f", "raw", "nbd+unix:///?socket=" + source});
  test::run_ok({"qemu-img", "compare", "-f", "raw", "-F", "raw", uri(""), raw});
  server.reset();
  fs::remove(source);
  server = start();
  test::run_ok({"qemu-img", "compare", "-f", "raw", "-F", "raw", uri(""), raw});
}

class nbd_sandboxed_folder : public nbd_hardening {
 protected:
  nbd_sandboxed_folder() {
    for (const char* name : {"images", "bases", "secret"}) fs::create_directory(dir_.path() / name);
    raw_ = make_raw("images/plain.raw", mib);
    fs::copy(raw_, dir_.file("bases/base.raw"));
    fs::copy(raw_, dir_.file("secret/base.raw"));
    fs::create_directory_symlink(dir_.path() / "bases", dir_.path() / "allowed");
    test::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", dir_.file("allowed/base.raw"), "-F", "raw",
                  dir_.file("images/overlay.qcow2")});
    test::run_ok(
        {"qemu-img", "create", "-q", "-f", "qcow2", "-b", "plain.raw", "-F", "raw", dir_.file("images/inside.qcow2")});
  }

  std::vector<std::string> words(const std::vector<std::string>& more) const {
    std::vector<std::string> all{"--socket", socket_, "--allow-dir", dir_.file("allowed")};
    all.insert(all.end(), more.begin(), more.end());
    all.push_back(dir_.file("images"));
    return all;
  }

  // Another folder takes the name of one that the user has allowed.
  void swap_allowed() const {
    fs::remove(dir_.path() / "allowed");
    fs::create_directory_symlink(dir_.path() / "secret", dir_.path() / "allowed");
  }

  test::Outcome size_of(const std::string& name) const { return test::run({"nbdinfo", "--size", uri(name)}); }

  std::string raw_;
};

TEST_F(nbd_sandboxed_folder, opens_images_and_their_chains_on_demand) {
  Served served(words({}));
  const bool root = ::geteuid() == 0;
  EXPECT_EQ(status(process(served), "CapEff"), root ? "0000000000000004" : "0000000000000000");
  for (const char* name : {"plain.raw", "inside.qcow2", "overlay.qcow2"}) {
    EXPECT_EQ(size_of(name).out, "1048576\n") << name;
  }
  fs::copy(raw_, dir_.file("images/later.raw"));
  test::run_ok({"qemu-img", "compare", "-f", "raw", "-F", "raw", uri("later.raw"), raw_});
}

TEST_F(nbd_sandboxed_folder, safety_17b_its_log_and_pid_file_are_no_exports) {
  const std::string log = dir_.file("images/serve.log");
  const std::string pid_file = dir_.file("images/serve.pid");
  Served served(words({"--rw", "--log", log, "--pid-file", pid_file}));
  for (const std::string& line : served.uris()) EXPECT_THAT(line, testing::Not(HasSubstr("serve."))) << line;
  for (const char* name : {"serve.log", "serve.pid"}) EXPECT_NE(size_of(name).status, 0) << name;
  EXPECT_EQ(size_of("plain.raw").out, "1048576\n");
  EXPECT_EQ(served.end(SIGTERM), 0);
  EXPECT_FALSE(fs::exists(pid_file));
}

TEST_F(nbd_sandboxed_folder, writes_on_demand_where_that_is_asked_for) {
  for (const char* option : {"--rw", "--snapshot"}) {
    const auto before = test::read_file(raw_);
    // One after the other: who writes to an image shuts out whoever reads it as a base.
    for (const char* name : {"plain.raw", "inside.qcow2"}) {
      Served served(words({option}));
      test::run_ok({"qemu-io", "-f", "raw", "-c", "write -P 5 64k 64k", "-c", "read -P 5 64k 64k", uri(name)});
      EXPECT_EQ(served.end(SIGTERM), 0);
      EXPECT_EQ(served.err(), "");
    }
    EXPECT_EQ(test::read_file(raw_) == before, option == std::string("--snapshot"));
  }
}

// As QEMU does with two processes; and from the sandbox, where /proc tells nothing, the server still knows that it is
// itself.
TEST_F(nbd_sandboxed_folder, safety_7b_an_overlay_is_refused_while_its_base_is_open_for_writing_and_the_other_way) {
  const auto refusal_of = [&](const std::string& name) {
    return RawClient(socket_).ask(nbd::Option::info, nbd::info_data(name)).back().text();
  };
  for (const auto& [first, second] :
       std::vector<std::pair<std::string, std::string>>{{"plain.raw", "inside.qcow2"}, {"inside.qcow2", "plain.raw"}}) {
    const Served served(words({"--rw"}));
    RawClient client(socket_);
    client.go(first);
    EXPECT_THAT(refusal_of(second),
                HasSubstr(fmt::format("in use by this process itself, which has '{}' open for {}",
                                      dir_.file("images/" + first), first == "plain.raw" ? "writing" : "reading")));
  }
}

TEST_F(nbd_sandboxed_folder, with_snapshot_an_overlay_and_its_base_are_there_at_once) {
  const Served served(words({"--snapshot"}));
  for (const char* first : {"plain.raw", "inside.qcow2"}) {
    RawClient client(socket_);
    client.go(first);
    for (const char* second : {"plain.raw", "inside.qcow2"}) EXPECT_EQ(size_of(second).out, "1048576\n");
  }
}

TEST_F(nbd_sandboxed_folder, what_takes_an_allowed_name_later_stays_out_of_reach) {
  {
    Served served(words({}));
    swap_allowed();
    const auto refusal = RawClient(socket_).ask(nbd::Option::info, nbd::info_data("overlay.qcow2")).back();
    EXPECT_EQ(refusal.type, nbd::OptionReply::error_unknown);
    EXPECT_THAT(refusal.text(), HasSubstr("Permission denied"));
    EXPECT_EQ(size_of("inside.qcow2").out, "1048576\n");
  }
  // It is the sandbox that does it.
  Served served(words({"--no-sandbox"}));
  EXPECT_EQ(size_of("overlay.qcow2").out, "1048576\n");
}

}  // namespace
}  // namespace drydock
