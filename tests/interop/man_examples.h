// SPDX-License-Identifier: GPL-3.0-or-later
//
// The examples of the manual pages, as their readers see them: each display of a page (.Bd -literal, .Dl) that has a
// line with a prompt, rendered by mandoc, so that what a macro swallows is missing here as it is on the terminal.
//
// A comment in the page, on a line before the display, says what a test cannot do with it, and why:
//
//     .\" Example not run: needs root
//     .\" Example's output varies: sizes and names of the machine
//     .\" Example's status: 3
//
// The first leaves the display out, for one of the reasons that man_examples_test.cc knows. The second runs it and
// compares no output. The third is the exit status of its commands where it is not 0.

#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace drydock::test {

struct Example {
  std::string command;  // without its prompt; further lines behind line ends
  std::string output;   // the lines that the page shows below it
};

struct Display {
  std::string page;  // "drydock-cat.1"
  int line = 0;      // where it begins
  std::vector<Example> examples;
  std::string not_run;  // the reason; empty: it is run
  std::string varies;   // the reason why no output is compared
  int status = 0;       // exit status of its commands

  std::string where() const;
  // Whether one of its commands launches an appliance.
  bool needs_appliance() const;
};

// Of all pages in `folder`, in the order of pages and lines.
std::vector<Display> displays_of_manuals(const std::filesystem::path& folder);

// The words of a command as a shell takes them apart, of one that has no more to it than single quotes.
std::vector<std::string> words_of(const std::string& command);

// Digits, hexadecimal numbers and runs of blanks made equal: what remains is the same on every machine.
std::string without_figures(const std::string& text);

}  // namespace drydock::test
