// SPDX-License-Identifier: GPL-3.0-or-later
//
// Every example of every manual page is run, but for those that launch an appliance (guest_test.cc) and those whose
// page says why not. The examples of a page run one after the other in a folder of their own; example-session makes the
// files that they name.

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "tests/interop/man_examples.h"
#include "tests/support/support.h"

namespace drydock {
namespace {

namespace fs = std::filesystem;
using test::Display;
using test::Outcome;

// What an example may need that this machine is not given.
const std::set<std::string>& allowed_reasons() {
  static const std::set<std::string> reasons{
      "needs root",
      "needs another machine",
      "needs a source tree",
      "names files of the reader's",
      "takes more space than a test has",
  };
  return reasons;
}

class ManExamples : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    shared_ = std::make_unique<test::TempDir>();
    test::run_ok({std::string(DRYDOCK_SUPPORT) + "/make-sample-guest", shared_->file("sample.qcow2")});
  }
  static void TearDownTestSuite() { shared_.reset(); }

  // Each page's displays that are run here, in their order.
  static std::map<std::string, std::vector<Display>> pages() {
    std::map<std::string, std::vector<Display>> pages;
    for (Display& display : test::displays_of_manuals(DRYDOCK_MAN)) {
      if (display.not_run.empty() && !display.needs_appliance()) pages[display.page].push_back(std::move(display));
    }
    return pages;
  }

  // A session at a terminal, which ends where a command ends otherwise than it should. The output of example E of
  // display D goes to output.D.E.
  static std::string script_of(const std::vector<Display>& displays) {
    std::string script = "set -eo pipefail\n";
    for (size_t i = 0; i < displays.size(); ++i) {
      script += fmt::format("echo 'at {}' >&2\n", displays[i].where());
      for (size_t j = 0; j < displays[i].examples.size(); ++j) {
        const std::string& command = displays[i].examples[j].command;
        script += fmt::format(
            "need {0}\nstatus=0\n{{ {1}\n}} >output.{2}.{3} 2>&1 || status=$?\n"
            "if [[ $status != {4} ]]; then cat output.{2}.{3} >&2; exit 1; fi\n",
            in_quotes(command), command, i, j, displays[i].status);
      }
    }
    return script;
  }

  static std::string in_quotes(const std::string& text) {
    std::string quoted = "'";
    for (const char letter : text) quoted += letter == '\'' ? "'\\''" : std::string(1, letter);
    return quoted + "'";
  }

  static Outcome run_page(const std::vector<Display>& displays, const fs::path& folder) {
    const std::string programs = fs::path(test::drydock_program()).parent_path().string();
    const std::string start =
        fmt::format("cd {} && PATH={}:$PATH:/usr/sbin:/sbin && . {}/example-session {}\n", in_quotes(folder.string()),
                    in_quotes(programs), in_quotes(DRYDOCK_INTEROP), in_quotes(shared_->file("sample.qcow2")));
    return test::run({"timeout", "60", "bash", "-c", start + script_of(displays)});
  }

  static std::unique_ptr<test::TempDir> shared_;
};

std::unique_ptr<test::TempDir> ManExamples::shared_;

TEST_F(ManExamples, what_is_not_run_has_a_reason_that_is_known) {
  const std::vector<Display> displays = test::displays_of_manuals(DRYDOCK_MAN);
  EXPECT_GT(displays.size(), 50U);
  for (const Display& display : displays) {
    EXPECT_TRUE(display.not_run.empty() || allowed_reasons().contains(display.not_run))
        << display.where() << ": " << display.not_run;
    EXPECT_FALSE(display.needs_appliance() && !display.not_run.empty()) << display.where();
  }
}

TEST_F(ManExamples, do_what_they_say) {
  for (const auto& [page, displays] : pages()) {
    const test::TempDir dir;
    const Outcome outcome = run_page(displays, dir.path());
    EXPECT_EQ(outcome.status, 0) << page << "\n" << outcome.out << outcome.err;
    for (size_t i = 0; outcome.status == 0 && i < displays.size(); ++i) {
      if (!displays[i].varies.empty()) continue;
      for (size_t j = 0; j < displays[i].examples.size(); ++j) {
        const std::string& shown = displays[i].examples[j].output;
        if (shown.empty()) continue;  // a page need not show it
        const auto bytes = test::read_file(dir.file(fmt::format("output.{}.{}", i, j)));
        std::string output(reinterpret_cast<const char*>(bytes.data()), bytes.size());
        // The pages' reader is at home.
        const std::string folder = dir.path().string();
        while (output.find(folder) != std::string::npos) output.replace(output.find(folder), folder.size(), "/home/me");
        EXPECT_EQ(test::without_figures(output), test::without_figures(shown)) << displays[i].where();
      }
    }
  }
}

}  // namespace
}  // namespace drydock
