// SPDX-License-Identifier: GPL-3.0-or-later
//
// Manual pages say what --help says: the same commands, options and values, in both directions.

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <regex>
#include <sstream>

#include "tests/support/in_process.h"
#include "tests/support/support.h"
#include "tools/commands.h"

namespace drydock::cli {
namespace {

using test::drydock;

std::string manual(const std::string& name) {
  const auto bytes = test::read_file(std::string(DRYDOCK_MAN) + "/" + name);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Whether the page has these lines; EXPECT_THAT would print all of it.
bool has_lines(const std::string& page, const std::string& lines) {
  return page.find("\n" + lines + "\n") != std::string::npos;
}

std::string page_of(const Command& command) { return manual(fmt::format("drydock-{}.1", command.name)); }

// "-f" and "--format", each with the value that it takes ("" for none, "[=FORMAT]" for one that may be left out).
using Options = std::map<std::string, std::string>;

// The rows of --help: "  -f, --format FORMAT   what it does".
Options options_of_help(const std::string& text) {
  static const std::regex row(R"(^ {2,6}(?:(-\w)(?:, )?)?(--[\w-]+)?(?: ([^ ]+)|(\[=[^ ]+\]))?(?:$| ).*)");
  Options options;
  std::istringstream lines(text.substr(text.find("\nOptions:\n")));
  for (std::string line; std::getline(lines, line);) {
    std::smatch match;
    if (line.find_first_not_of(' ') > 6 || line.find('-') != line.find_first_not_of(' ')) continue;
    if (!std::regex_match(line, match, row)) throw std::runtime_error("--help has a row of another form: " + line);
    for (const size_t label : {1U, 2U}) {
      if (match[label].matched) options[match[label]] = match[3].str() + match[4].str();
    }
  }
  return options;
}

// The rows of a page's OPTIONS: ".It Fl f , -format Ar FORMAT", ".It Fl -format Ns Op = Ns Ar FORMAT".
Options options_of_page(const std::string& text) {
  static const std::regex row(R"(^\.It Fl ((?:\w|-[\w-]+)(?: , -[\w-]+)?)(?:( Ns Op = Ns)? Ar (\S+))?$)");
  static const std::regex label(R"([\w-]+)");
  const size_t start = text.find("\n.Sh OPTIONS\n") + 1;
  std::istringstream lines(text.substr(start, text.find("\n.Sh ", start) - start));
  Options options;
  for (std::string line; std::getline(lines, line);) {
    std::smatch match;
    if (!line.starts_with(".It Fl ")) continue;
    if (!std::regex_match(line, match, row)) throw std::runtime_error("OPTIONS has a row of another form: " + line);
    const std::string labels = match[1];
    for (std::sregex_iterator found(labels.begin(), labels.end(), label); found != std::sregex_iterator(); ++found) {
      options["-" + found->str()] = match[2].matched ? fmt::format("[={}]", match[3].str()) : match[3].str();
    }
  }
  return options;
}

TEST(manpages, list_the_options_of_help_and_no_others) {
  for (const Command* command : all_commands()) {
    const Options in_help = options_of_help(drydock({std::string(command->name), "--help"}).out);
    EXPECT_GE(in_help.size(), 2U) << command->name;
    EXPECT_EQ(options_of_page(page_of(*command)), in_help) << command->name;
  }
}

TEST(manpages, describe_a_command_by_its_summary) {
  for (const Command* command : all_commands()) {
    EXPECT_TRUE(has_lines(page_of(*command), fmt::format(".Nm drydock-{}\n.Nd {}", command->name, command->summary)))
        << command->name << ": " << command->summary;
  }
}

TEST(manpages, have_every_section_that_a_reader_looks_for) {
  for (const Command* command : all_commands()) {
    for (const std::string section : {"SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "EXAMPLES", "SEE ALSO"}) {
      EXPECT_TRUE(has_lines(page_of(*command), ".Sh " + section)) << command->name << ": " << section;
    }
  }
}

TEST(manpages, of_drop_ins_name_the_incumbent) {
  for (const Command* command : all_commands()) {
    if (command->incumbent.empty()) continue;
    EXPECT_TRUE(has_lines(page_of(*command), fmt::format(".Nm {}", command->incumbent))) << command->name;
  }
}

TEST(manpages, the_main_page_lists_every_command) {
  const std::string page = manual("drydock.1");
  for (const Command* command : all_commands()) {
    EXPECT_TRUE(has_lines(page, fmt::format(".It Xr drydock-{} 1", command->name))) << command->name;
  }
}

TEST(manpages, no_page_describes_a_command_that_is_not_there) {
  static const std::regex listed(R"(\n\.It Xr drydock-(\w[\w-]*) 1\n)");
  const std::string page = manual("drydock.1");
  for (std::sregex_iterator found(page.begin(), page.end(), listed); found != std::sregex_iterator(); ++found) {
    EXPECT_NE(find_command((*found)[1].str()), nullptr) << (*found)[1];
  }
  for (const auto& entry : std::filesystem::directory_iterator(DRYDOCK_MAN)) {
    const std::string name = entry.path().filename().string();
    if (!name.ends_with(".1") || name == "drydock.1") continue;
    EXPECT_NE(find_command(name.substr(8, name.size() - 10)), nullptr) << name;
  }
}

}  // namespace
}  // namespace drydock::cli
