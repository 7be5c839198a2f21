// SPDX-License-Identifier: GPL-3.0-or-later
//
// Images on other people's NBD servers: qemu-nbd and nbdkit, with qemu-img beside us on the same URIs.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstdlib>
#include <cstring>
#include <optional>

#include "src/unique_fd.h"
#include "tests/support/in_process.h"
#include "tests/support/process.h"

namespace drydock {
namespace {

using test::drydock;
using test::Outcome;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr uint64_t mib = 1 << 20;

bool answers(const std::string& path) {
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  std::memcpy(address.sun_path, path.c_str(), path.size());
  const UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  return ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

class nbd_client_interop : public testing::Test {
 protected:
  nbd_client_interop() {
    content = test::random_bytes(3, 8 * mib);
    std::fill_n(content.begin() + 2 * mib, 3 * mib, std::byte{0});
    test::write_file(dir.file("full.raw"), content);
    test::run_ok({"cp", "--sparse=always", dir.file("full.raw"), raw});
    test::run_ok({"qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, qcow2});
  }

  void start(const std::vector<std::string>& words) {
    server.emplace(words);
    ASSERT_TRUE(test::wait_until([this] { return answers(socket); })) << words[0];
  }
  void stop() {
    server.reset();
    std::filesystem::remove(socket);
  }
  // Its options before the file's name.
  void qemu_nbd(std::vector<std::string> options, const std::string& file) {
    std::vector<std::string> words{"qemu-nbd", "-t", "-e", "8", "-k", socket};
    words.insert(words.end(), options.begin(), options.end());
    words.push_back(file);
    start(words);
  }
  void nbdkit(const std::vector<std::string>& plugin_and_filters) {
    std::vector<std::string> words{"nbdkit", "-f", "-U", socket};
    words.insert(words.end(), plugin_and_filters.begin(), plugin_and_filters.end());
    start(words);
  }

  static void expect_ok(const std::vector<std::string>& words) {
    const Outcome outcome = drydock(words);
    EXPECT_EQ(outcome.status, 0) << words[0] << ": " << outcome.err;
  }
  static std::string error_of(const std::vector<std::string>& words) {
    const Outcome outcome = drydock(words);
    EXPECT_NE(outcome.status, 0) << words[0];
    return outcome.err;
  }
  // qemu-img, and drydock under that name.
  static void expect_the_same(std::vector<std::string> words) {
    words.insert(words.begin(), "qemu-img");
    const Outcome theirs = test::run(words);
    const Outcome ours = test::drydock_as(words);
    EXPECT_EQ(ours.status, theirs.status) << words[1] << ' ' << words.back();
    EXPECT_EQ(ours.out, theirs.out) << words[1] << ' ' << words.back();
    EXPECT_EQ(ours.err, theirs.err) << words[1] << ' ' << words.back();
  }
  // Their words, and more behind them.
  static void expect_the_same_cause(std::vector<std::string> words) {
    words.insert(words.begin(), "qemu-img");
    const Outcome theirs = test::run(words);
    const Outcome ours = test::drydock_as(words);
    EXPECT_EQ(ours.status, theirs.status) << words.back();
    EXPECT_THAT(ours.err, StartsWith(theirs.err.substr(0, theirs.err.find('\n')))) << words.back();
  }

  test::TempDir dir;
  const std::string raw = dir.file("disk.raw");
  const std::string qcow2 = dir.file("disk.qcow2");
  const std::string socket = dir.file("socket");
  const std::string uri = "nbd+unix:///?socket=" + socket;
  std::vector<std::byte> content;
  std::optional<test::Process> server;
};

TEST_F(nbd_client_interop, looks_as_it_does_to_qemu_img) {
  for (const auto& file : {raw, qcow2}) {
    qemu_nbd({"-r", "-f", "raw", "-x", "disk"}, file);
    const std::string named = "nbd+unix:///disk?socket=" + socket;
    for (const auto& word : {named, "nbd:unix:" + socket + ":exportname=disk"}) {
      expect_the_same({"info", word});
      expect_the_same({"info", "--output=json", word});
      expect_the_same({"info", "--output=json", "--backing-chain", word});
      expect_the_same({"map", word});
      expect_the_same({"map", "--output=json", word});
      expect_the_same({"check", word});
      expect_the_same({"measure", "-O", "qcow2", word});
      expect_the_same({"compare", word, raw});
      expect_the_same({"snapshot", "-l", word});
    }
    expect_the_same_cause({"info", "nbd+unix:///other?socket=" + socket});
    stop();
  }
  expect_the_same({"info", "nbd://localhost:1"});
  expect_the_same({"info", uri});
  expect_the_same_cause({"info", "nbd+unix:///disk"});
  expect_the_same_cause({"info", "nbd://localhost/?socket=" + socket});
}

TEST_F(nbd_client_interop, image_opts_are_qemus) {
  qemu_nbd({"-r", "-f", "raw", "-x", "disk"}, qcow2);
  const std::string place = "server.type=unix,server.path=" + socket + ",export=disk";
  std::string below = "file." + place;
  for (size_t at = 0; (at = below.find(',', at)) != std::string::npos; at += 6) below.insert(at + 1, "file.");
  expect_the_same({"map", "--output=json", "--image-opts", "driver=nbd," + place});
  expect_the_same({"info", "--image-opts", "driver=qcow2,file.driver=nbd," + below});
  expect_the_same({"info", "--image-opts", "driver=raw,file.driver=nbd," + below});
  expect_the_same({"map", "--image-opts", "driver=nbd,path=" + socket + ",export=disk"});
  for (const char* wrong : {"driver=nbd", "driver=nbd,server.type=inet,server.host=localhost",
                            "driver=nbd,path=/none,host=localhost", "driver=nbd,path=/none"}) {
    expect_the_same({"info", "--image-opts", wrong});
  }
}

TEST_F(nbd_client_interop, copies_from_and_to_an_export_are_equal) {
  qemu_nbd({"-f", "raw"}, raw);
  expect_ok({"convert", "-f", "raw", "-O", "qcow2", "--verify", uri, dir.file("copy.qcow2")});
  test::run_ok({"qemu-img", "compare", "-f", "raw", raw, dir.file("copy.qcow2")});
  expect_ok({"dd", "-f", "raw", "if=" + uri, "of=" + dir.file("copy.raw"), "bs=1M"});
  EXPECT_EQ(test::read_file(dir.file("copy.raw")), content);
  stop();
  test::write_file(raw, std::vector<std::byte>(content.size(), std::byte{0xFF}));
  qemu_nbd({"-f", "raw"}, raw);
  expect_ok({"convert", "-n", "-O", "raw", dir.file("copy.qcow2"), uri});
  EXPECT_EQ(test::read_file(raw), content);
  test::write_file(dir.file("ones"), std::vector<std::byte>(mib, std::byte{1}));
  expect_ok({"convert", "-f", "raw", "-O", "raw", "--verify", dir.file("ones"), uri});
  std::vector<std::byte> expected = content;
  std::fill_n(expected.begin(), mib, std::byte{1});
  EXPECT_EQ(test::read_file(raw), expected) << "what lies behind the copy stays";
  expect_ok({"convert", "-O", "raw", "--verify", dir.file("copy.qcow2"), uri});
  EXPECT_EQ(test::read_file(raw), content);
  EXPECT_THAT(error_of({"convert", "-f", "raw", uri, uri}), HasSubstr("the target is also a source"));
}

TEST_F(nbd_client_interop, an_export_holds_a_qcow2_image) {
  test::run_ok({"truncate", "-s", "16M", dir.file("container")});
  qemu_nbd({"-f", "raw"}, dir.file("container"));
  expect_ok({"convert", "-f", "raw", "-O", "qcow2", "--verify", raw, uri});
  test::run_ok({"qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, uri});
  expect_ok({"snapshot", "-c", "one", uri});
  expect_ok({"resize", uri, "12M"});
  expect_ok({"amend", "-o", "lazy_refcounts=on", uri});
  expect_ok({"bitmap", "--add", uri, "changes"});
  expect_ok({"check", uri});
  test::run_ok({"qemu-img", "check", uri});
  expect_ok({"create", "-f", "qcow2", uri, "64M"});
  EXPECT_THAT(test::run_ok({"qemu-img", "info", uri}), HasSubstr("64 MiB"));
  for (const auto& [words, error] : std::vector<std::pair<std::vector<std::string>, std::string>>{
           {{"create", "-f", "raw", uri, "32M"}, "Cannot grow NBD nodes"},
           {{"convert", "-f", "raw", "-O", "qcow2", "-o", "preallocation=full", dir.file("full.raw"), uri}, ""},
           {{"resize", "-f", "raw", uri, "32M"}, "Cannot resize NBD nodes"},
           {{"create", "-f", "qcow2", "-b", "base.raw", "-F", "raw", uri}, "has nothing beside it"},
       }) {
    if (!error.empty()) {
      EXPECT_THAT(error_of(words), HasSubstr(error));
    } else {
      expect_ok(words);
    }
  }
}

TEST_F(nbd_client_interop, safety_9_a_base_on_a_server_is_opened_where_it_is_allowed) {
  qemu_nbd({"-r", "-f", "raw", "-x", "base"}, raw);
  const std::string base = "nbd+unix:///base?socket=" + socket;
  const std::string overlay = dir.file("overlay.qcow2");
  expect_ok({"create", "-f", "qcow2", "-b", base, "-F", "raw", overlay});
  EXPECT_THAT(drydock({"info", overlay}).out, HasSubstr("backing file: " + base));
  const std::string refused = "it is on a server; if you trust the image, allow that server with --allow-nbd";
  EXPECT_THAT(error_of({"map", overlay}), HasSubstr(refused));
  EXPECT_THAT(error_of({"map", "--allow-dir", "/", overlay}), HasSubstr(refused));
  EXPECT_THAT(error_of({"map", "--allow-nbd", "nbd://localhost", overlay}), HasSubstr(refused));
  EXPECT_THAT(test::drydock_as({"qemu-img", "map", overlay}).err, HasSubstr(refused));
  EXPECT_THAT(test::run({test::drydock_program(), "map", overlay}).err, HasSubstr(refused));

  const std::string server_alone = "nbd+unix:///whatever?socket=" + socket;
  expect_ok({"compare", "--allow-nbd", server_alone, "-f", "qcow2", "-F", "raw", overlay, raw});
  EXPECT_EQ(drydock({"map", "--output=json", "--allow-nbd", base, overlay}).out,
            test::run_ok({"qemu-img", "map", "--output=json", overlay}));
  ::setenv("DRYDOCK_ALLOW_NBD", ("nbd://localhost " + server_alone).c_str(), 1);
  const Outcome standing = test::drydock_as({"qemu-img", "map", "--output=json", overlay});
  const Outcome handed_over = test::run({test::drydock_program(), "map", "--output=json", overlay});
  ::unsetenv("DRYDOCK_ALLOW_NBD");
  EXPECT_EQ(standing.out, test::run_ok({"qemu-img", "map", "--output=json", overlay}));
  EXPECT_EQ(handed_over.out, standing.out) << handed_over.err;
  expect_ok({"convert", "-f", "raw", "-O", "qcow2", "-B", base, "-F", "raw", raw, dir.file("thin.qcow2")});
  expect_ok({"rebase", "--allow-nbd", base, "-b", raw, "-F", "raw", overlay});
  expect_ok({"compare", "-f", "qcow2", "-F", "raw", overlay, raw});
}

TEST_F(nbd_client_interop, an_overlay_is_committed_into_its_base_on_a_server) {
  qemu_nbd({"-f", "raw"}, raw);
  const std::string overlay = dir.file("overlay.qcow2");
  expect_ok({"create", "-f", "qcow2", "-b", uri, "-F", "raw", overlay});
  test::run_ok({"qemu-io", "-f", "qcow2", "-c", "write -P 9 3M 64k", overlay});
  expect_ok({"commit", "--allow-nbd", uri, overlay});
  std::fill_n(content.begin() + 3 * mib, 64 << 10, std::byte{9});
  EXPECT_EQ(test::read_file(raw), content);
}

TEST_F(nbd_client_interop, filters_of_nbdkit_change_nothing) {
  const std::vector<std::vector<std::string>> servers{
      {"file", raw},
      {"--filter=noextents", "file", raw},
      {"--filter=nozero", "file", raw},
      {"--filter=noparallel", "file", raw, "serialize=all-requests"},
      {"--filter=multi-conn", "file", raw, "multi-conn-mode=disable"},
      {"--filter=blocksize-policy", "file", raw, "blocksize-minimum=4096", "blocksize-preferred=64k",
       "blocksize-maximum=128k", "blocksize-error-policy=error"},
      {"--filter=delay", "file", raw, "rdelay=1ms", "wdelay=1ms"},
      {"--no-sr", "file", raw},
      {"memory", "8M"},
  };
  for (const auto& words : servers) {
    test::run_ok({"truncate", "-s", "0", raw});
    test::run_ok({"truncate", "-s", "8M", raw});
    nbdkit(words);
    expect_ok({"convert", "-n", "-f", "raw", "-O", "raw", dir.file("full.raw"), uri});
    expect_ok({"compare", "-f", "raw", "-F", "raw", dir.file("full.raw"), uri});
    expect_ok({"convert", "-f", "raw", "-O", "raw", uri, dir.file("copy.raw")});
    EXPECT_EQ(test::read_file(dir.file("copy.raw")), content) << words[0];
    EXPECT_EQ(drydock({"map", "-f", "raw", "--output=json", uri}).out,
              test::run_ok({"qemu-img", "map", "-f", "raw", "--output=json", uri}))
        << words[0];
    stop();
  }
}

TEST_F(nbd_client_interop, sparse_servers_are_copied_whole) {
  nbdkit({"sparse-random", "64M", "seed=7", "percent=20"});
  expect_ok({"convert", "-f", "raw", "-O", "qcow2", uri, dir.file("copy.qcow2")});
  test::run_ok({"qemu-img", "compare", "-f", "raw", "-F", "qcow2", uri, dir.file("copy.qcow2")});
  EXPECT_EQ(drydock({"info", "--hash", "-f", "raw", uri}).out.substr(drydock({"info", "-f", "raw", uri}).out.size()),
            drydock({"info", "--hash", dir.file("copy.qcow2")})
                .out.substr(drydock({"info", dir.file("copy.qcow2")}).out.size()));
}

TEST_F(nbd_client_interop, errors_of_the_server_are_told) {
  nbdkit({"--filter=error", "file", raw, "error-pread=EIO", "error-pread-rate=100%",
          "error-pread-file=" + dir.file("fail")});
  test::write_file(dir.file("fail"), "");
  const std::string error = error_of({"convert", "-f", "raw", "-O", "raw", uri, dir.file("copy.raw")});
  EXPECT_THAT(error, HasSubstr("Input/output error"));
  EXPECT_FALSE(std::filesystem::exists(dir.file("copy.raw")));
}

TEST_F(nbd_client_interop, an_interrupted_copy_leaves_nothing_though_the_server_is_silent) {
  std::filesystem::create_directory(dir.file("target"));
  for (const std::string format : {"raw", "qcow2"}) {
    nbdkit({"--filter=delay", "file", raw, "rdelay=3600"});
    const std::string target = dir.file("target") + "/copy";
    test::Process copy({test::drydock_program(), "convert", "-p", "-f", "raw", "-O", format, uri, target});
    ASSERT_TRUE(copy.wait_for_output("(37.50/100%)")) << format;  // the zeros, which are not read
    copy.signal(SIGTERM);
    EXPECT_EQ(copy.wait(), 128 + SIGTERM) << format;
    EXPECT_THAT(copy.errors(), HasSubstr("interrupted at 37.50%: nothing is left of the conversion")) << format;
    EXPECT_TRUE(std::filesystem::is_empty(dir.file("target"))) << format;
    stop();
  }
}

TEST_F(nbd_client_interop, is_served_and_shown_again) {
  qemu_nbd({"-f", "raw"}, raw);
  test::Process again({test::drydock_program(), "serve", "-f", "raw", "--socket", dir.file("again"), uri});
  ASSERT_TRUE(again.wait_for_output("\n"));
  test::run_ok({"qemu-img", "compare", "-f", "raw", "-F", "raw", "nbd+unix:///?socket=" + dir.file("again"), raw});
}

// Loading libnbd and what it brings along would take longer than most commands do.
TEST_F(nbd_client_interop, the_program_that_users_call_has_no_libnbd) {
  EXPECT_THAT(test::run_ok({"ldd", test::drydock_program()}), Not(HasSubstr("libnbd")));
  qemu_nbd({"-r", "-f", "raw"}, raw);
  EXPECT_THAT(test::run_ok({test::drydock_program(), "info", uri}), HasSubstr("disk size: unavailable"));
  EXPECT_THAT(test::run_ok({test::drydock_program(), "info", "--image-opts", "driver=nbd,path=" + socket}),
              HasSubstr("8 MiB"));
}

}  // namespace
}  // namespace drydock
