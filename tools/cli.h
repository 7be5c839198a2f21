// SPDX-License-Identifier: GPL-3.0-or-later
//
// The command line: what a command is, and how its words are parsed.
//
// A command is one .cc file that defines a `Command` and is registered in commands.cc. Its option table is the only
// place where its options are written down: the parser, `--help`, shell completion and the test that compares man pages
// all read it. Parsing keeps getopt_long's habits: permuted arguments, abbreviated long options, `--`.
//
// Commands run in-process in tests: they print only to the streams of their Invocation, and never exit.

#pragma once

#include <istream>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "src/image.h"

namespace drydock::cli {

struct Streams {
  std::istream& in;
  std::ostream& out;
  std::ostream& err;
};

struct OptionSpec {
  char short_name = 0;          // 0: none
  std::string_view long_name;   // "": none
  std::string_view argument;    // what --help calls its value ("FORMAT"); "": takes none
  std::string_view help;        // one line
  bool value_optional = false;  // a long option that may stand without its value: --format or --format=raw
};

// The options that were given, in order.
class ParsedOptions {
 public:
  void add(const OptionSpec* spec, std::string value) { given_.push_back({spec, std::move(value)}); }

  // `name` is the long name, or the short one as "a" for options that have no long name.
  bool has(std::string_view name) const;
  std::optional<std::string> value(std::string_view name) const;  // the last one given
  std::vector<std::string> values(std::string_view name) const;   // all, in order

  struct Given {
    const OptionSpec* spec;
    std::string value;
    bool is(std::string_view name) const;
  };
  const std::vector<Given>& in_order() const { return given_; }

 private:
  std::vector<Given> given_;
};

struct Invocation {
  Streams& io;
  std::string program;  // what messages start with: "drydock cat", or "virt-cat" under that name
  bool as_incumbent = false;
  ParsedOptions options;
  std::vector<std::string> arguments;  // what is left after the options

  // "program: message" on a line of its own on the error stream.
  void warn(std::string_view message) const;
};

struct Command {
  std::string_view name;
  std::string_view group;     // heading in `drydock help`: "images", "exports", "guests", "trust and help"
  std::string_view summary;   // one line, for lists of commands
  std::string_view synopsis;  // "[OPTION...] -a IMAGE FILE..."
  std::string_view
      incumbent;  // the name of the tool whose words it speaks and which a symlink may call it by; "": none
  std::vector<OptionSpec> options;
  // Returns the exit status; throws Error, which becomes "program: message" and a status: failure_status, or 1 where
  // the words were wrong or a signal ended it.
  int (*run)(Invocation&);
  // The last word is an argument though it may look like an option: "-5G".
  bool last_word_may_be_negative = false;
  int failure_status = 1;
  // Under qemu-img's name a wrong option is told in getopt's words, and answered with the help and status 0.
  bool help_for_wrong_option = false;
};

// Runs `command` on the words behind its name. --help and --version are answered here for every command.
int run_command(const Command& command, const std::vector<std::string>& words, const std::string& program, Streams& io,
                bool as_incumbent = false);

// The whole program: argv[0] decides between `drydock COMMAND ...` and a drop-in. Never throws.
int run_program(const std::vector<std::string>& argv, Streams& io);

// The same on the process's own streams.
int run_main(const std::vector<std::string>& argv);

// Whether `stream` is standard output or error and leads to a pipe or socket whose reader has gone.
bool reader_has_gone(const std::ostream& stream);

// Status of a command that was cut short because nobody reads on: what shells tell of one that SIGPIPE ended.
inline constexpr int status_without_reader = 128 + 13;

// `status`, once what was printed is on its way; where it is not, that is told, and an error. A reader that has seen
// enough, head(1) say, is none to be told of.
int delivered(Streams& io, std::string_view program, int status);

// --help of one command.
std::string help_text(const Command& command, std::string_view program);

// Option rows that several commands share, and what they mean.
// Rows: -f/--format, --backing-format, --allow-dir, --allow-nbd, --cache-size.
std::vector<OptionSpec> open_options();
// The options of `command` with those that every command has: --help and --version. Their letters, -h and -V, go to
// the command where it has an own use for one (virt-df -h).
std::vector<OptionSpec> all_options(const Command& command);

// `a` followed by `b`: for tables that share rows.
std::vector<OptionSpec> join(std::vector<OptionSpec> a, const std::vector<OptionSpec>& b);
OpenOptions parse_open_options(const ParsedOptions& options);
// The same without the format.
OpenOptions parse_chain_options(const ParsedOptions& options);

// Throws usage unless `text` is one of the formats read.
Format parse_format(std::string_view text);

// "64k", "1.5G" as QEMU reads sizes: suffixes b k M G T P E in either case, powers of 1024; bytes without one.
uint64_t parse_size(std::string_view text, std::string_view what);

// For usage errors: an Error whose message ends with how to get help.
[[noreturn]] void usage_error(const std::string& message);

}  // namespace drydock::cli
