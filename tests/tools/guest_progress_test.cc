// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/guest_progress.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "src/unique_fd.h"
#include "tests/support/support.h"

namespace drydock::cli {
namespace {

TEST(GuestProgress, tells_programs_the_phase_and_how_it_ended) {
  const test::TempDir dir;
  const UniqueFd file(::open(dir.file("progress").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  std::istringstream in;
  std::ostringstream out;
  std::ostringstream err;
  Streams io{in, out, err};
  const OptionSpec option = guest_progress_options()[0];
  Invocation invocation{.io = io, .program = "drydock copy-out", .options = {}, .arguments = {}};
  invocation.options.add(&option, std::to_string(file.get()));
  {
    GuestProgress progress(invocation);
    progress.show({.launching = true});
    progress.show({.launching = true, .done = 6, .total = 12});  // too soon after the first
    progress.show({.launching = true, .done = 12, .total = 12});
    progress.show({.done = 5, .total = 20});
    progress.show({.done = 10, .total = 20});
    progress.end("failed");
  }
  std::vector<nlohmann::json> lines;
  std::ifstream told(dir.file("progress"));
  for (std::string line; std::getline(told, line);) lines.push_back(nlohmann::json::parse(line));
  ASSERT_EQ(lines.size(), 4U);
  EXPECT_EQ(lines[0]["phase"], "launching");
  EXPECT_EQ(lines[0]["total"], nullptr);
  EXPECT_EQ(lines[1]["percent"], 100.0);
  EXPECT_EQ(lines[2]["phase"], "copying");
  EXPECT_EQ(lines[2]["percent"], 25.0);
  EXPECT_EQ(lines[3]["state"], "failed");
  EXPECT_EQ(err.str(), "") << "a terminal alone gets the line";
}

}  // namespace
}  // namespace drydock::cli
