// SPDX-License-Identifier: GPL-3.0-or-later

#include "tests/interop/man_examples.h"

#include <algorithm>
#include <fstream>
#include <regex>
#include <sstream>
#include <utility>

#include "tests/support/support.h"

namespace drydock::test {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view not_run_mark = ".\\\" Example not run: ";
constexpr std::string_view varies_mark = ".\\\" Example's output varies: ";

constexpr std::string_view status_mark = ".\\\" Example's status: ";

struct Source {
  Display display;
  std::string mdoc;
};

// The displays as they are written.
std::vector<Source> sources_of(const fs::path& page) {
  std::vector<Source> found;
  std::ifstream file(page);
  Source next;
  bool inside = false;
  int number = 0;
  for (std::string line; std::getline(file, line);) {
    ++number;
    if (inside) {
      next.mdoc += line + '\n';
      inside = !line.starts_with(".Ed");
      if (!inside) found.push_back(std::exchange(next, {}));
      continue;
    }
    if (line.starts_with(not_run_mark)) next.display.not_run = line.substr(not_run_mark.size());
    if (line.starts_with(varies_mark)) next.display.varies = line.substr(varies_mark.size());
    if (line.starts_with(status_mark)) next.display.status = std::stoi(line.substr(status_mark.size()));
    if (!line.starts_with(".Bd -literal") && !line.starts_with(".Dl ")) continue;
    next.display.page = page.filename().string();
    next.display.line = number;
    next.mdoc = line + '\n';
    inside = line.starts_with(".Bd");
    if (!inside) found.push_back(std::exchange(next, {}));
  }
  return found;
}

std::string marker_of(size_t index) { return fmt::format("@@{}@@", index); }

// Without the overstriking of bold and underlined letters.
std::string plain(const std::string& rendered) {
  std::string text;
  for (const char letter : rendered) {
    if (letter == '\b' && !text.empty()) {
      text.pop_back();
    } else {
      text += letter;
    }
  }
  return text;
}

// All displays through one run of mandoc, on a page of their own, wide enough that no line is broken.
std::string render(const std::vector<Source>& sources) {
  std::string page = ".Dd January 1, 2026\n.Dt EXAMPLES 7\n.Os\n.Sh NAME\n.Nm examples\n.Nd examples\n.Sh EXAMPLES\n";
  for (size_t i = 0; i < sources.size(); ++i) page += ".Pp\n" + marker_of(i) + "\n.Pp\n" + sources[i].mdoc;
  page += ".Pp\n" + marker_of(sources.size()) + "\n";
  const TempDir dir;
  write_file(dir.file("examples.7"), page);
  return plain(run_ok({"mandoc", "-T", "ascii", "-O", "width=1000", dir.file("examples.7")}));
}

std::vector<Example> examples_of(const std::string& text) {
  std::vector<Example> examples;
  std::istringstream lines(text);
  size_t indent = 0;
  for (std::string line; std::getline(lines, line);) {
    const size_t start = line.find_first_not_of(' ');
    const std::string word = start == std::string::npos ? "" : line.substr(start, 2);
    if (word == "$ " || word == "# ") {
      indent = start;
      examples.push_back({line.substr(start + 2), ""});
    } else if (examples.empty()) {
      continue;
    } else if (word == "> " && examples.back().output.empty()) {
      examples.back().command += '\n' + line.substr(start + 2);
    } else {
      examples.back().output += (line.size() > indent ? line.substr(indent) : "") + '\n';
    }
  }
  for (Example& example : examples) {
    while (example.output.ends_with("\n\n") || example.output == "\n") example.output.pop_back();
  }
  return examples;
}

}  // namespace

std::string Display::where() const { return fmt::format("{}:{}", page, line); }

bool Display::needs_appliance() const {
  static const std::regex guest_command(R"(\bdrydock (cat|copy-in|copy-out|df|edit|filesystems|ls)\b)");
  return std::ranges::any_of(examples,
                             [](const Example& example) { return std::regex_search(example.command, guest_command); });
}

std::vector<Display> displays_of_manuals(const fs::path& folder) {
  std::vector<fs::path> pages;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".1" || entry.path().extension() == ".7") pages.push_back(entry.path());
  }
  std::ranges::sort(pages);
  std::vector<Source> sources;
  for (const fs::path& page : pages) std::ranges::move(sources_of(page), std::back_inserter(sources));
  const std::string text = render(sources);
  std::vector<Display> displays;
  for (size_t i = 0; i < sources.size(); ++i) {
    const size_t start = text.find(marker_of(i)) + marker_of(i).size();
    Display display = std::move(sources[i].display);
    display.examples = examples_of(text.substr(start, text.find(marker_of(i + 1)) - start));
    if (!display.examples.empty()) displays.push_back(std::move(display));
  }
  return displays;
}

std::vector<std::string> words_of(const std::string& command) {
  std::vector<std::string> words;
  bool quoted = false;
  bool begun = false;
  for (const char letter : command) {
    if (letter == '\'') {
      quoted = !quoted;
    } else if (letter == ' ' && !quoted) {
      begun = false;
      continue;
    }
    if (!begun) words.emplace_back();
    begun = true;
    if (letter != '\'') words.back() += letter;
  }
  return words;
}

std::string without_figures(const std::string& text) {
  static const std::regex hexadecimal(R"(0x[0-9a-f]+)");
  static const std::regex number(R"([0-9]+(\.[0-9]+)?)");
  static const std::regex unit(R"(# (B|[KMGT]iB)\b)");
  static const std::regex month(R"(\b(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) #)");
  static const std::regex blanks(R"([ \t]+)");
  std::string result = std::regex_replace(text, hexadecimal, "#");
  result = std::regex_replace(result, number, "#");
  result = std::regex_replace(result, unit, "# B");
  result = std::regex_replace(result, month, "month #");
  return std::regex_replace(result, blanks, " ");
}

}  // namespace drydock::test
