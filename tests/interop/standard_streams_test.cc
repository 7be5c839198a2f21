// SPDX-License-Identifier: GPL-3.0-or-later
//
// Started with descriptors 0, 1 or 2 closed, drydock prints into no image.

#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>

#include "tests/support/process.h"
#include "tests/support/support.h"

namespace drydock {
namespace {

namespace fs = std::filesystem;

class standard_streams : public testing::Test {
 protected:
  standard_streams() {
    test::write_file(raw, test::random_bytes(7, test::mib));
    test::run_ok({"qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, base});
    test::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", overlay});
    test::run_ok({"qemu-io", "-c", "write -P 5 128k 64k", overlay});
  }

  // A shell's command that starts drydock with `closed`, say ">&-".
  static std::vector<std::string> closing(const std::string& closed, const std::vector<std::string>& words) {
    std::vector<std::string> all{"sh", "-c", "exec \"$0\" \"$@\" " + closed, test::drydock_program()};
    all.insert(all.end(), words.begin(), words.end());
    return all;
  }

  // Status 124: it hung.
  static int status_of(const std::string& closed, const std::vector<std::string>& words) {
    std::vector<std::string> all{"timeout", "-k", "1", "20"};
    for (const std::string& word : closing(closed, words)) all.push_back(word);
    return test::run(all).status;
  }

  void serve(const std::string& closed, std::vector<std::string> words) const {
    words.insert(words.end(), {"--socket", socket, raw});
    test::Process server(closing(closed, words));
    ASSERT_TRUE(test::wait_until([this] { return fs::exists(socket); }));
    test::run_ok({"nbdinfo", "--size", "nbd+unix:///?socket=" + socket});
    server.signal(SIGTERM);
    EXPECT_EQ(server.wait(), 0);
  }

  test::TempDir dir;
  std::string raw = dir.file("guest.raw");
  std::string base = dir.file("base.qcow2");
  std::string overlay = dir.file("overlay.qcow2");
  std::string socket = dir.file("socket");
};

TEST_F(standard_streams, safety_7b_a_server_writes_neither_uris_nor_its_log_into_an_image) {
  const auto before = test::read_file(raw);
  serve(">&-", {"serve", "--rw", "-f", "raw"});
  EXPECT_EQ(test::read_file(raw), before);
  serve("2>&-", {"serve", "--rw", "-f", "raw", "-v"});
  EXPECT_EQ(test::read_file(raw), before);
  serve("<&- >&- 2>&-", {"serve", "--rw", "-f", "raw", "-v"});
  EXPECT_EQ(test::read_file(raw), before);
}

TEST_F(standard_streams, safety_7b_a_server_goes_to_the_background_with_all_of_them_closed) {
  const auto before = test::read_file(raw);
  EXPECT_EQ(status_of("<&- >&- 2>&-",
                      {"serve", "--rw", "--fork", "--exit-with-last-client", "-f", "raw", "--socket", socket, raw}),
            0);
  EXPECT_EQ(test::run({"nbdinfo", "--size", "nbd+unix:///?socket=" + socket}).out, "1048576\n");
  EXPECT_TRUE(test::wait_until([this] { return !fs::exists(socket); }));
  EXPECT_EQ(test::read_file(raw), before);
}

TEST_F(standard_streams, safety_7b_progress_is_not_written_into_an_image) {
  for (const auto& words :
       std::vector<std::vector<std::string>>{{"amend", "-p", "-f", "qcow2", "-o", "lazy_refcounts=on", base},
                                             {"rebase", "-p", "-f", "qcow2", "-b", "", overlay},
                                             {"rebase", "-p", "-u", "-f", "qcow2", "-b", base, "-F", "qcow2", overlay},
                                             {"commit", "-p", "-f", "qcow2", overlay},
                                             {"bench", "-w", "-c", "1", "-f", "qcow2", overlay}}) {
    for (const char* closed : {">&-", "2>&-", "<&- >&- 2>&-"}) {
      EXPECT_EQ(status_of(closed, words), 0) << words[0] << ' ' << closed;
      for (const std::string& image : {base, overlay}) {
        EXPECT_EQ(test::run({"qemu-img", "check", "-q", image}).status, 0) << words[0] << ' ' << closed;
      }
    }
  }
}

TEST_F(standard_streams, safety_7_what_cannot_be_printed_is_an_error) {
  for (const auto& words : std::vector<std::vector<std::string>>{
           {"help"}, {"help", "info"}, {"--version"}, {"info", "--help"}, {"info", "--version"}, {"info", base}}) {
    EXPECT_EQ(status_of(">/dev/full", words), 1) << words[0];
  }
  EXPECT_EQ(status_of(">/dev/full", {"serve", "--fork", "-f", "raw", "--socket", socket, raw}), 1);
  EXPECT_TRUE(test::wait_until([this] { return !fs::exists(socket); }));
}

TEST_F(standard_streams, a_reader_that_has_seen_enough_is_no_error_to_tell_of) {
  for (const auto& words : std::vector<std::vector<std::string>>{{"help"}, {"map", base}, {"info", base}}) {
    // The reader closes its end before the writer begins.
    std::vector<std::string> all{"bash", "-c", "exec 9> >(exec true); wait $!; exec \"$0\" \"$@\" >&9",
                                 test::drydock_program()};
    all.insert(all.end(), words.begin(), words.end());
    const auto outcome = test::run(all);
    EXPECT_EQ(outcome.status, 128 + SIGPIPE) << words[0];
    EXPECT_EQ(outcome.err, "") << words[0];
  }
}

}  // namespace
}  // namespace drydock
