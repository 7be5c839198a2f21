// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/cli.h"

#include <gmock/gmock.h>

#include <set>
#include <sstream>

#include "src/error.h"
#include "tests/support/in_process.h"
#include "tests/support/support.h"
#include "tools/commands.h"
#include "version.h"

namespace drydock::cli {
namespace {

using test::drydock;
using test::drydock_as;
using test::error_of;
using test::Outcome;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

// A command that prints what it was given, one word a line, and fails when told to.
int run_echo(Invocation& invocation) {
  if (invocation.options.has("fail")) throw Error(ErrorKind::not_found, "disk.img: no such file");
  if (invocation.options.has("break")) throw std::runtime_error("a library broke");
  for (const auto& given : invocation.options.in_order()) {
    invocation.io.out << (given.spec->long_name.empty() ? std::string(1, given.spec->short_name)
                                                        : std::string(given.spec->long_name))
                      << '=' << given.value << '\n';
  }
  for (const std::string& argument : invocation.arguments) invocation.io.out << argument << '\n';
  return 3;
}

const Command& echo_command() {
  static const Command command{
      .name = "echo",
      .group = "tests",
      .summary = "print the words that it was given",
      .synopsis = "[OPTION...] WORD...",
      .incumbent = "",
      .options =
          {
              {'a', "add", "IMAGE", "add an image"},
              {'m', "", "DEVICE", "mount a device"},
              {'h', "human-readable", "", "sizes for people"},
              {0, "format", "FORMAT", "say the format"},
              {0, "fail", "", "fail with an Error"},
              {0, "break", "",
               "fail with an exception of another kind, and with a help text that is longer than others"},
          },
      .run = run_echo,
  };
  return command;
}

Outcome echo(const std::vector<std::string>& words) {
  std::istringstream in;
  std::ostringstream out;
  std::ostringstream err;
  Streams streams{in, out, err};
  const int status = run_command(echo_command(), words, "drydock echo", streams);
  return {status, out.str(), err.str()};
}

void expect_usage_error(const Outcome& outcome, const std::string& message) {
  EXPECT_EQ(outcome.status, 1);
  EXPECT_EQ(outcome.out, "");
  EXPECT_EQ(outcome.err, "drydock echo: " + message + "\nTry 'drydock echo --help' for more information.\n");
}

TEST(cli_options, arguments_and_options_may_come_in_any_order) {
  EXPECT_EQ(echo({"one", "-a", "x", "two", "--format=raw", "three"}).out, "add=x\nformat=raw\none\ntwo\nthree\n");
}

TEST(cli_options, a_double_dash_ends_the_options) {
  EXPECT_EQ(echo({"-a", "x", "--", "-a", "--format"}).out, "add=x\n-a\n--format\n");
}

TEST(cli_options, a_single_dash_is_an_argument) { EXPECT_EQ(echo({"-"}).out, "-\n"); }

TEST(cli_options, long_options_may_be_abbreviated) {
  EXPECT_EQ(echo({"--form", "raw", "--human"}).out, "format=raw\nhuman-readable=\n");
}

TEST(cli_options, values_may_be_joined_or_apart) {
  EXPECT_EQ(echo({"-ax", "-a", "y", "--add=z", "--add", "w", "-m/dev/sda1"}).out,
            "add=x\nadd=y\nadd=z\nadd=w\nm=/dev/sda1\n");
}

TEST(cli_options, short_options_may_be_bundled) { EXPECT_EQ(echo({"-haX"}).out, "human-readable=\nadd=X\n"); }

TEST(cli_options, an_empty_value_is_a_value) { EXPECT_EQ(echo({"--add=", "-a", ""}).out, "add=\nadd=\n"); }

TEST(cli_options, the_exit_status_is_the_commands_own) { EXPECT_EQ(echo({}).status, 3); }

TEST(cli_options, the_last_value_counts_and_all_are_kept_in_order) {
  const OptionSpec spec{'a', "add", "IMAGE", ""};
  ParsedOptions options;
  options.add(&spec, "one");
  options.add(&spec, "two");
  EXPECT_EQ(options.value("add"), "two");
  EXPECT_EQ(options.value("a"), "two");
  EXPECT_THAT(options.values("add"), testing::ElementsAre("one", "two"));
  EXPECT_FALSE(options.has("format"));
}

TEST(cli_errors, an_unknown_long_option_is_named) {
  expect_usage_error(echo({"--bogus=1", "x"}), "unknown option '--bogus'");
}

TEST(cli_errors, an_unknown_short_option_is_named_even_inside_a_bundle) {
  expect_usage_error(echo({"-hz"}), "unknown option '-z'");
}

TEST(cli_errors, an_ambiguous_abbreviation_lists_its_candidates) {
  expect_usage_error(echo({"--f"}), "option '--f' is ambiguous: --format --fail");
}

TEST(cli_errors, a_missing_value_is_told_apart_from_an_unknown_option) {
  expect_usage_error(echo({"x", "--format"}), "option '--format' needs a value");
  expect_usage_error(echo({"--form"}), "option '--format' needs a value");
  expect_usage_error(echo({"-ha"}), "option '-a' needs a value");
}

TEST(cli_errors, a_value_that_is_not_taken_is_refused) {
  expect_usage_error(echo({"--human-readable=yes"}), "option '--human-readable' takes no value");
}

TEST(cli_errors, safety_12_unknown_options_are_escaped_for_the_terminal) {
  expect_usage_error(echo({"--\033[2J"}), R"(unknown option '--\x1b[2J')");
  expect_usage_error(echo({"-\xff"}), R"(unknown option '-\xff')");
}

TEST(cli_errors, a_failure_is_one_line_and_status_1) {
  const Outcome failed = echo({"--fail"});
  EXPECT_EQ(failed.status, 1);
  EXPECT_EQ(failed.err, "drydock echo: disk.img: no such file\n");
  const Outcome broken = echo({"--break"});
  EXPECT_EQ(broken.status, 1);
  EXPECT_EQ(broken.err, "drydock echo: a library broke\n");
}

TEST(cli_errors, output_that_cannot_be_written_is_a_failure) {
  std::istringstream in;
  std::ostringstream out;
  std::ostringstream err;
  out.setstate(std::ios::badbit);
  Streams streams{in, out, err};
  EXPECT_EQ(run_command(echo_command(), {"x"}, "drydock echo", streams), 1);
  EXPECT_EQ(err.str(), "drydock echo: writing the output failed\n");
}

TEST(cli_help, shows_every_option_with_its_value) {
  const std::string text = echo({"--help"}).out;
  EXPECT_THAT(text, StartsWith("Usage: drydock echo [OPTION...] WORD...\n\nprint the words"));
  EXPECT_THAT(text, HasSubstr("\n  -a, --add IMAGE            add an image\n"));
  EXPECT_THAT(text, HasSubstr("\n  -m DEVICE                  mount a device\n"));
  EXPECT_THAT(text, HasSubstr("\n      --format FORMAT        say the format\n"));
}

TEST(cli_help, a_command_may_use_the_letter_h_for_itself) {
  EXPECT_EQ(echo({"-h"}).out, "human-readable=\n");
  EXPECT_THAT(echo({"--help"}).out, HasSubstr("\n      --help                 show this help and exit\n"));
}

TEST(cli_program, without_a_command_it_shows_help_and_fails) {
  const Outcome outcome = drydock({});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_EQ(outcome.out, "");
  EXPECT_THAT(outcome.err, StartsWith("Usage: drydock COMMAND"));
}

TEST(cli_program, an_unknown_command_is_named) {
  const Outcome outcome = drydock({"frob\nnicate", "x"});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_EQ(outcome.err, "drydock: unknown command 'frob\\x0anicate'; `drydock help` lists the commands\n");
}

TEST(cli_program, version_names_the_program) {
  EXPECT_EQ(drydock({"--version"}).out, std::string("drydock (drydock) ") + DRYDOCK_VERSION + "\n");
}

TEST(cli_program, help_lists_every_command_with_its_summary) {
  const Outcome outcome = drydock({"help"});
  EXPECT_EQ(outcome.status, 0);
  EXPECT_EQ(drydock({"--help"}).out, outcome.out);
  for (const Command* command : all_commands()) {
    EXPECT_THAT(outcome.out, HasSubstr(fmt::format("\n  {:<12} {}\n", command->name, command->summary)));
  }
}

TEST(cli_program, help_of_a_command_is_its_own_help) {
  EXPECT_EQ(drydock({"help", "info"}).out, drydock({"info", "--help"}).out);
}

TEST(cli_program, help_of_an_unknown_command_fails) {
  const Outcome outcome = drydock({"help", "frobnicate"});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.err, HasSubstr("unknown command 'frobnicate'"));
}

TEST(cli_commands, each_answers_help_and_version) {
  for (const Command* command : all_commands()) {
    const std::string name(command->name);
    const Outcome help = drydock({name, "--help"});
    EXPECT_EQ(help.status, 0) << name;
    EXPECT_THAT(help.out, StartsWith(fmt::format("Usage: drydock {} {}\n", name, command->synopsis)));
    EXPECT_EQ(help.err, "") << name;
    const Outcome version = drydock({name, "--version"});
    EXPECT_EQ(version.out, fmt::format("drydock {} (drydock) {}\n", name, DRYDOCK_VERSION));
  }
}

TEST(cli_commands, each_refuses_an_unknown_option) {
  for (const Command* command : all_commands()) {
    const std::string name(command->name);
    const Outcome outcome = drydock({name, "--no-such-option"});
    EXPECT_EQ(outcome.status, 1) << name;
    EXPECT_EQ(outcome.out, "") << name;
    EXPECT_THAT(outcome.err, EndsWith(fmt::format("Try 'drydock {} --help' for more information.\n", name)));
  }
}

TEST(cli_commands, names_and_options_are_unique_and_described) {
  std::set<std::string_view> names;
  for (const Command* command : all_commands()) {
    EXPECT_TRUE(names.insert(command->name).second) << command->name;
    if (!command->incumbent.empty()) {
      EXPECT_TRUE(names.insert(command->incumbent).second) << command->incumbent;
    }
    EXPECT_FALSE(command->summary.empty()) << command->name;
    std::set<std::string> options{"-V", "--help", "--version"};
    for (const OptionSpec& spec : command->options) {
      EXPECT_FALSE(spec.help.empty()) << command->name << ' ' << spec.long_name;
      EXPECT_TRUE(spec.short_name != 0 || !spec.long_name.empty()) << command->name;
      if (spec.short_name != 0) {
        EXPECT_TRUE(options.insert(fmt::format("-{}", spec.short_name)).second) << command->name << spec.short_name;
      }
      if (!spec.long_name.empty()) {
        EXPECT_TRUE(options.insert(fmt::format("--{}", spec.long_name)).second) << command->name << spec.long_name;
      }
    }
  }
}

TEST(cli_drop_in, answers_to_its_incumbents_name) {
  for (const Command* command : all_commands()) {
    if (command->incumbent.empty()) continue;
    const std::string name(command->incumbent);
    const Outcome outcome = drydock_as({"/usr/libexec/drydock/bin/" + name, "--help"});
    EXPECT_EQ(outcome.status, 0) << name;
    EXPECT_THAT(outcome.out, StartsWith(fmt::format("Usage: {} {}\n", name, command->synopsis)));
    EXPECT_EQ(drydock_as({name, "--version"}).out, fmt::format("{} (drydock) {}\n", name, DRYDOCK_VERSION));
    EXPECT_THAT(drydock_as({name, "--no-such-option"}).err, StartsWith(name + ": unknown option"));
  }
}

TEST(cli_drop_in, an_incumbents_name_is_no_command) {
  for (const Command* command : all_commands()) {
    if (command->incumbent.empty()) continue;
    EXPECT_EQ(drydock({std::string(command->incumbent)}).status, 1) << command->incumbent;
  }
}

TEST(cli_image_opts, errors_name_the_words_that_they_are_about) {
  EXPECT_EQ(drydock({"info", "--image-opts", "driver=raid,file.filename=a"}).err,
            "drydock info: driver=raid,file.filename=a: Unknown driver 'raid'\n");
  const test::TempDir dir;
  test::write_file(dir.file("a"), std::string(512, 'a'));
  EXPECT_EQ(drydock({"convert", "-n", "--target-image-opts", dir.file("a"), "read-only=on,file.filename=b"}).err,
            "drydock convert: read-only=on,file.filename=b: Block node is read-only\n");
  for (const std::string command : {"resize", "amend", "check"}) {
    std::vector<std::string> words{command, "--image-opts", "driver=qcow2,read-only=on,file.filename=b"};
    if (command == "resize") words.emplace_back("1M");
    if (command == "amend") words.insert(words.end() - 1, {"-o", "compat=1.1"});
    if (command == "check") words.insert(words.end() - 1, {"-r", "all"});
    const std::string said =
        "drydock " + command + ": driver=qcow2,read-only=on,file.filename=b: Block node is read-only\n";
    EXPECT_EQ(drydock(words).err, said);
  }
}

TEST(cli_sizes, read_as_qemu_reads_them) {
  EXPECT_EQ(parse_size("512", "--size"), 512U);
  EXPECT_EQ(parse_size("0", "--size"), 0U);
  EXPECT_EQ(parse_size("64k", "--size"), 65536U);
  EXPECT_EQ(parse_size("64K", "--size"), 65536U);
  EXPECT_EQ(parse_size("7b", "--size"), 7U);
  EXPECT_EQ(parse_size("1.5G", "--size"), 1610612736U);
  EXPECT_EQ(parse_size("0.3M", "--size"), 314573U) << "rounded";
  EXPECT_THROW(parse_size(".5M", "--size"), Error);
  EXPECT_EQ(parse_size("2T", "--size"), 2199023255552U);
  EXPECT_EQ(parse_size("0x10", "--size"), 16U);
  EXPECT_EQ(parse_size(" +1.0", "--size"), 1U);
  EXPECT_EQ(parse_size("1P", "--size"), 1125899906842624U);
  EXPECT_EQ(parse_size("1E", "--size"), 1152921504606846976U);
}

TEST(cli_sizes, whole_numbers_are_exact_to_the_last_byte) {
  EXPECT_EQ(parse_size("9007199254740993", "--size"), 9007199254740993U);
  EXPECT_EQ(parse_size("9223372036854775807", "--size"), 9223372036854775807U);
}

TEST(cli_sizes, what_is_no_size_is_a_usage_error) {
  for (const std::string text :
       {"", "k", "-1", "1x", "1kk", "0x", "0x1.5k", "1.5", "inf", "nan", "1k ", "1 k", "1e3"}) {
    const Error error = error_of([&] { parse_size(text, "--size"); });
    EXPECT_EQ(error.kind(), ErrorKind::usage) << text;
    EXPECT_EQ(error.what(), fmt::format("--size: '{}' is not a size: a number with an optional suffix k, M, G, T, P or "
                                        "E is expected",
                                        text));
  }
}

TEST(cli_sizes, what_no_file_can_hold_is_too_large) {
  for (const std::string text : {"8E", "9223372036854775808", "99999999999999999999", "1e30"}) {
    EXPECT_EQ(error_of([&] { parse_size(text, "--size"); }).kind(), ErrorKind::usage) << text;
  }
  EXPECT_STREQ(error_of([] { parse_size("8E", "--size"); }).what(), "--size: 8E is too large");
}

TEST(cli_formats, only_the_known_ones_are_taken) {
  EXPECT_EQ(parse_format("raw"), Format::raw);
  EXPECT_EQ(parse_format("qcow2"), Format::qcow2);
  const Error error = error_of([] { parse_format("vmdk"); });
  EXPECT_EQ(error.kind(), ErrorKind::usage);
  EXPECT_STREQ(error.what(), "Unknown format 'vmdk': raw and qcow2 are known");
}

TEST(cli_open_options, a_metadata_cache_below_the_minimum_is_refused) {
  const OptionSpec spec{0, "cache-size", "SIZE", ""};
  ParsedOptions options;
  options.add(&spec, "1");
  EXPECT_THAT(error_of([&] { parse_open_options(options); }).what(), HasSubstr("--cache-size 1: at least"));
}

}  // namespace
}  // namespace drydock::cli
