// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/cli.h"

#include <getopt.h>
#include <poll.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <iostream>
#include <limits>

#include "src/error.h"
#include "tools/commands.h"
#include "tools/qemu_img.h"
#include "tools/remote.h"
#include "tools/size_argument.h"
#include "tools/worded_error.h"
#include "version.h"

namespace drydock::cli {

namespace {

// Long options without a short name get values from here on in getopt's answer.
constexpr int first_long_value = 256;

const OptionSpec help_option{'h', "help", "", "show this help and exit"};
const OptionSpec version_option{'V', "version", "", "show the version and exit"};

std::string short_label(const OptionSpec& spec) { return spec.short_name ? fmt::format("-{}", spec.short_name) : ""; }

std::string long_label(const OptionSpec& spec) {
  return spec.long_name.empty() ? "" : fmt::format("--{}", spec.long_name);
}

// An option that qemu-img would not take, in its words and in getopt's.
class WrongOption : public Error {
 public:
  WrongOption(const std::string& message, std::string to_getopt)
      : Error(ErrorKind::usage, message), to_getopt_(std::move(to_getopt)) {}
  const std::string& to_getopt() const { return to_getopt_; }

 private:
  std::string to_getopt_;
};

[[noreturn]] void refuse_as_qemu_img(int answer, std::string_view word) {
  const std::string typed = printable(word);
  const bool is_letter = optopt != 0 && optopt < first_long_value;
  const std::string letter = is_letter ? printable(std::string(1, static_cast<char>(optopt))) : "";
  if (answer == ':') {
    throw WrongOption(fmt::format("missing argument for option '{}'", typed),
                      is_letter ? fmt::format("option requires an argument -- '{}'", letter)
                                : fmt::format("option '{}' requires an argument", typed));
  }
  throw WrongOption(
      fmt::format("unrecognized option '{}'", typed),
      is_letter ? fmt::format("invalid option -- '{}'", letter) : fmt::format("unrecognized option '{}'", typed));
}

// getopt's answer to an option that it will not take, in words. `word` is the one before optind; it holds the option
// where that is a long one.
[[noreturn]] void refuse(const std::vector<OptionSpec>& specs, int answer, std::string_view word) {
  if (optopt >= first_long_value) {
    const std::string label = long_label(specs[static_cast<size_t>(optopt - first_long_value)]);
    usage_error(answer == ':' ? fmt::format("option '{}' needs a value", label)
                              : fmt::format("option '{}' takes no value", label));
  }
  if (optopt != 0) {
    const std::string label = fmt::format("-{}", printable(std::string(1, static_cast<char>(optopt))));
    usage_error(answer == ':' ? fmt::format("option '{}' needs a value", label)
                              : fmt::format("unknown option '{}'", label));
  }
  const std::string_view typed = word.substr(0, word.find('='));
  std::string candidates;
  for (const OptionSpec& spec : specs) {
    const std::string label = long_label(spec);
    if (!label.empty() && label.starts_with(typed)) candidates += fmt::format(" {}", label);
  }
  usage_error(candidates.empty() ? fmt::format("unknown option '{}'", printable(typed))
                                 : fmt::format("option '{}' is ambiguous:{}", typed, candidates));
}

struct Parsed {
  ParsedOptions options;
  std::vector<std::string> arguments;
};

// `verb` is the word before `words`.
Parsed parse_words(const std::string& verb, const std::vector<OptionSpec>& specs, const std::vector<std::string>& words,
                   bool as_qemu_img) {
  std::string letters = ":";  // a missing argument is told apart from an unknown option
  std::vector<option> longs;
  for (size_t i = 0; i < specs.size(); ++i) {
    const OptionSpec& spec = specs[i];
    const bool takes_value = !spec.argument.empty();
    if (spec.short_name) letters += spec.short_name;
    if (spec.short_name && takes_value) letters += ':';
    if (!spec.long_name.empty()) {
      const int form = spec.value_optional ? optional_argument : takes_value ? required_argument : no_argument;
      longs.push_back({spec.long_name.data(), form, nullptr, first_long_value + static_cast<int>(i)});
    }
  }
  longs.push_back({nullptr, 0, nullptr, 0});

  std::vector<std::string> copies{verb};
  copies.insert(copies.end(), words.begin(), words.end());
  std::vector<char*> argv;
  for (std::string& copy : copies) argv.push_back(copy.data());
  argv.push_back(nullptr);
  const int argc = static_cast<int>(copies.size());

  Parsed parsed;
  optind = 0;  // 0, not 1, makes glibc start afresh
  opterr = 0;
  for (;;) {
    const int answer = getopt_long(argc, argv.data(), letters.c_str(), longs.data(), nullptr);
    if (answer == -1) break;
    const char* const word = argv[static_cast<size_t>(optind - 1)];
    if ((answer == '?' || answer == ':') && as_qemu_img) refuse_as_qemu_img(answer, word);
    if (answer == '?' || answer == ':') refuse(specs, answer, word);
    for (size_t i = 0; i < specs.size(); ++i) {
      if (answer != specs[i].short_name && answer != first_long_value + static_cast<int>(i)) continue;
      parsed.options.add(&specs[i], optarg != nullptr ? optarg : "");
    }
  }
  for (int i = optind; i < argc; ++i) parsed.arguments.emplace_back(argv[static_cast<size_t>(i)]);
  return parsed;
}

// Takes the last word away before getopt sees it, where it is a number below zero.
std::optional<std::string> take_negative_word(const Command& command, std::vector<std::string>& words) {
  if (!command.last_word_may_be_negative || words.empty()) return std::nullopt;
  const std::string& last = words.back();
  if (last.size() < 2 || last[0] != '-' || (last[1] != '.' && (last[1] < '0' || last[1] > '9'))) return std::nullopt;
  std::string word = std::move(words.back());
  words.pop_back();
  return word;
}

// Prints an error as the program's user knows it.
void tell(const Invocation& invocation, const Error& error, bool as_qemu) {
  const auto* worded = dynamic_cast<const WordedError*>(&error);
  std::string message = error.what();
  if (worded != nullptr && !as_qemu) {
    for (const std::string& line : worded->more()) message += " " + line;
  }
  invocation.warn(message);
  if (worded != nullptr && as_qemu) {
    for (const std::string& line : worded->more()) {
      if (worded->named()) {
        invocation.warn(line);
      } else {
        invocation.io.err << printable(line) << '\n';
      }
    }
  }
  if (error.kind() == ErrorKind::usage) {
    invocation.io.err << fmt::format("Try '{} --help' for more information{}\n", invocation.program,
                                     as_qemu ? "" : ".");
  }
}

std::string version_line(std::string_view program) {
  return fmt::format("{} (drydock) {}\n", program, DRYDOCK_VERSION);
}

std::string program_help() {
  std::string text =
      "Usage: drydock COMMAND [OPTION...] [ARGUMENT...]\n\n"
      "Opens the disk of a virtual machine while the machine is off: serves it over NBD,\n"
      "shows it as files, reads and edits the guest inside.\n";
  std::string_view group;
  for (const Command* command : all_commands()) {
    if (command->group != group) text += fmt::format("\n{}:\n", command->group);
    group = command->group;
    text += fmt::format("  {:<12} {}\n", command->name, command->summary);
  }
  text += "\n`drydock COMMAND --help` shows a command's options, `man drydock-COMMAND` its manual.\n";
  return text;
}

int unknown_command(std::string_view word, Streams& io) {
  io.err << fmt::format("drydock: unknown command '{}'; `drydock help` lists the commands\n", printable(word));
  return 1;
}

int run_named(const std::vector<std::string>& argv, Streams& io) {
  if (argv.size() < 2) {
    io.err << program_help();
    return 1;
  }
  const std::string& word = argv[1];
  const std::vector<std::string> rest(argv.begin() + 2, argv.end());
  if (word == "--version" || word == "-V") {
    io.out << version_line("drydock");
    return delivered(io, "drydock", 0);
  }
  if (word == "help" || word == "--help" || word == "-h") {
    if (rest.empty()) {
      io.out << program_help();
      return delivered(io, "drydock", 0);
    }
    const Command* command = find_command(rest[0]);
    if (command == nullptr) return unknown_command(rest[0], io);
    io.out << help_text(*command, fmt::format("drydock {}", command->name));
    return delivered(io, "drydock", 0);
  }
  const Command* command = find_command(word);
  if (command == nullptr) return unknown_command(word, io);
  return run_command(*command, rest, fmt::format("drydock {}", command->name), io);
}

}  // namespace

bool ParsedOptions::Given::is(std::string_view name) const {
  return spec->long_name == name || (name.size() == 1 && spec->short_name == name[0]);
}

bool ParsedOptions::has(std::string_view name) const { return value(name).has_value(); }

std::optional<std::string> ParsedOptions::value(std::string_view name) const {
  std::optional<std::string> last;
  for (const Given& given : given_) {
    if (given.is(name)) last = given.value;
  }
  return last;
}

std::vector<std::string> ParsedOptions::values(std::string_view name) const {
  std::vector<std::string> all;
  for (const Given& given : given_) {
    if (given.is(name)) all.push_back(given.value);
  }
  return all;
}

void Invocation::warn(std::string_view message) const { io.err << program << ": " << printable(message) << '\n'; }

void usage_error(const std::string& message) { throw Error(ErrorKind::usage, message); }

std::string help_text(const Command& command, std::string_view program) {
  std::string text = fmt::format("Usage: {} {}\n\n{}\n\nOptions:\n", program, command.synopsis, command.summary);
  for (const OptionSpec& spec : all_options(command)) {
    const std::string separator = spec.short_name && !spec.long_name.empty() ? ", " : "";
    const std::string value = spec.argument.empty() ? ""
                              : spec.value_optional ? fmt::format("[={}]", spec.argument)
                                                    : fmt::format(" {}", spec.argument);
    const std::string indent = spec.short_name ? "" : "    ";
    const std::string label =
        fmt::format("  {}{}{}{}{}", indent, short_label(spec), separator, long_label(spec), value);
    text += label.size() < 28 ? fmt::format("{:<28} {}\n", label, spec.help)
                              : fmt::format("{}\n{:<28} {}\n", label, "", spec.help);
  }
  return text;
}

int run_command(const Command& command, const std::vector<std::string>& words, const std::string& program, Streams& io,
                bool as_incumbent) {
  Invocation invocation{.io = io, .program = program, .as_incumbent = as_incumbent, .options = {}, .arguments = {}};
  const std::vector<OptionSpec> specs = all_options(command);
  const bool as_qemu_img = as_incumbent && is_qemu_img_verb(command);
  const bool as_qemu = as_qemu_img || (as_incumbent && command.incumbent == "qemu-nbd");
  try {
    std::vector<std::string> plain_words = words;
    const auto negative = take_negative_word(command, plain_words);
    Parsed parsed = parse_words(std::string(command.name), specs, plain_words, as_qemu_img);
    invocation.options = std::move(parsed.options);
    invocation.arguments = std::move(parsed.arguments);
    if (negative) invocation.arguments.push_back(*negative);
    if (invocation.options.has("help")) {
      io.out << (as_qemu_img ? qemu_img_help() : help_text(command, program));
      return delivered(io, program, 0);
    }
    if (invocation.options.has("version")) {
      io.out << version_line(program);
      return delivered(io, program, 0);
    }
    const int status = command.run(invocation);
    return delivered(io, program, status);
  } catch (const WrongOption& wrong) {
    if (command.help_for_wrong_option) {
      io.err << fmt::format("{}: {}\n", command.name, wrong.to_getopt());
      io.out << qemu_img_help();
      return delivered(io, program, 0);
    }
    tell(invocation, wrong, as_qemu);
  } catch (const Error& error) {
    if (!io.out && reader_has_gone(io.out)) return status_without_reader;
    tell(invocation, error, as_qemu);
    if (error.kind() != ErrorKind::usage && error.kind() != ErrorKind::interrupted) return command.failure_status;
  } catch (const std::exception& error) {
    invocation.warn(error.what());
  }
  return 1;
}

int run_program(const std::vector<std::string>& argv, Streams& io) {
  const std::string called = std::filesystem::path(argv.empty() ? "drydock" : argv[0]).filename().string();
  if (called == qemu_img_name) return run_qemu_img({argv.begin() + 1, argv.end()}, io);
  if (const Command* command = find_incumbent(called)) {
    return run_command(*command, {argv.begin() + 1, argv.end()}, called, io, true);
  }
  return run_named(argv, io);
}

int delivered(Streams& io, std::string_view program, int status) {
  io.out.flush();
  if (io.out) return status;
  if (reader_has_gone(io.out)) return status_without_reader;
  io.err << program << ": writing the output failed\n";
  return EXIT_FAILURE;
}

bool reader_has_gone(const std::ostream& stream) {
  const int fd = &stream == &std::cout ? STDOUT_FILENO : &stream == &std::cerr ? STDERR_FILENO : -1;
  pollfd polled{fd, POLLOUT, 0};
  return fd >= 0 && ::poll(&polled, 1, 0) > 0 && (polled.revents & (POLLERR | POLLHUP)) != 0;
}

namespace {

// What ps(1) and pgrep(1) call the process, and messages of a lock that it holds: the name that it was called by, and
// not that of the program that took over.
void take_name(const std::vector<std::string>& argv) {
  const std::string called = std::filesystem::path(argv.empty() ? "drydock" : argv[0]).filename().string();
  ::prctl(PR_SET_NAME, called.c_str());
}

}  // namespace

int run_main(const std::vector<std::string>& argv) {
  take_name(argv);
  std::ios::sync_with_stdio(false);
  std::signal(SIGPIPE, SIG_IGN);  // a closed pipe is a failed write, reported like any other
  std::signal(SIGXFSZ, SIG_IGN);  // so is one that a file is too large for: EFBIG
  Streams streams{std::cin, std::cout, std::cerr};
  return run_program(argv, streams);
}

std::vector<OptionSpec> all_options(const Command& command) {
  std::vector<OptionSpec> options = command.options;
  for (OptionSpec common : {help_option, version_option}) {
    for (const OptionSpec& own : command.options) {
      if (own.short_name == common.short_name) common.short_name = 0;
    }
    options.push_back(common);
  }
  return options;
}

std::vector<OptionSpec> join(std::vector<OptionSpec> a, const std::vector<OptionSpec>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

std::vector<OptionSpec> open_options() {
  return {
      {'f', "format", "FORMAT", "format of the image: raw or qcow2 (default: found from its contents)"},
      {0, "backing-format", "FORMAT", "format of backing files whose overlay does not record it"},
      {0, "allow-dir", "DIR", "also open backing and data files that lie below DIR (may be repeated)"},
      allow_nbd_option(),
      {0, "cache-size", "SIZE", "memory for qcow2 metadata, per image (default: 32M)"},
  };
}

OpenOptions parse_open_options(const ParsedOptions& options) {
  OpenOptions result = parse_chain_options(options);
  if (const auto format = options.value("format")) result.format = parse_format(*format);
  return result;
}

OpenOptions parse_chain_options(const ParsedOptions& options) {
  OpenOptions result;
  if (const auto format = options.value("backing-format")) result.backing_format = parse_format(*format);
  if (const auto size = options.value("cache-size")) {
    result.metadata_cache_size = parse_size(*size, "--cache-size");
    if (result.metadata_cache_size < min_metadata_cache_size) {
      usage_error(fmt::format("--cache-size {}: at least {} bytes are needed", *size, min_metadata_cache_size));
    }
  }
  result.remote = make_remote_opener(options.values("allow-nbd"));
  result.gate = std::make_shared<LocalFilesGate>(options.values("allow-dir"), result.remote);
  return result;
}

Format parse_format(std::string_view text) {
  const std::optional<Format> format = format_by_name(text);
  if (!format) usage_error(fmt::format("Unknown format '{}': raw and qcow2 are known", printable(text)));
  return *format;
}

uint64_t parse_size(std::string_view text, std::string_view what) {
  const SizeArgument size = read_size(text);
  if (size.problem == SizeArgument::Problem::malformed) {
    usage_error(fmt::format("{}: '{}' is not a size: a number with an optional suffix k, M, G, T, P or E is expected",
                            what, printable(text)));
  }
  if (size.problem == SizeArgument::Problem::too_large || size.bytes > uint64_t{std::numeric_limits<int64_t>::max()}) {
    usage_error(fmt::format("{}: {} is too large", what, text));
  }
  return size.bytes;
}

}  // namespace drydock::cli
