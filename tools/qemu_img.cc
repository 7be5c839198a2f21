// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/qemu_img.h"

#include <algorithm>
#include <map>

#include "src/error.h"
#include "tools/commands.h"
#include "version.h"

namespace drydock::cli {

namespace {

constexpr std::string_view hint = "Try 'qemu-img --help' for more information\n";

int refuse(Streams& io, const std::string& message) {
  io.err << fmt::format("qemu-img: {}\n{}", message, hint);
  return 1;
}

std::string option_syntax(const OptionSpec& spec) {
  const std::string label =
      spec.short_name != 0 ? fmt::format("-{}", spec.short_name) : fmt::format("--{}", spec.long_name);
  if (spec.argument.empty()) return fmt::format(" [{}]", label);
  return fmt::format(" [{}{}{}]", label, spec.short_name != 0 ? " " : "=", spec.argument);
}

std::string version_text() {
  return fmt::format("qemu-img version {} (drydock {})\n", qemu_img_version, DRYDOCK_VERSION);
}

const Command* find_verb(std::string_view name) {
  const Command* command = find_command(name);
  return command != nullptr && is_qemu_img_verb(*command) && command->name == name ? command : nullptr;
}

// qemu-img's own long options: an abbreviation of one means it, whatever drydock has added beside it.
const std::vector<std::string_view>& own_long_options(std::string_view verb) {
  static const std::map<std::string_view, std::vector<std::string_view>> own{
      {"amend", {"help", "object", "image-opts", "force"}},
      {"bench", {"help", "flush-interval", "pattern", "image-opts", "force-share", "no-drain"}},
      {"bitmap",
       {"help", "object", "image-opts", "add", "remove", "clear", "enable", "disable", "merge", "granularity",
        "source-file", "source-format"}},
      {"check", {"help", "format", "repair", "output", "object", "image-opts", "force-share"}},
      {"commit", {"help", "object", "image-opts"}},
      {"compare", {"help", "object", "image-opts", "force-share"}},
      {"convert",
       {"help", "object", "image-opts", "force-share", "target-image-opts", "salvage", "target-is-zero", "bitmaps",
        "skip-broken-bitmaps"}},
      {"create", {"help", "object"}},
      {"dd", {"help", "object", "image-opts", "force-share"}},
      {"info", {"help", "format", "output", "backing-chain", "object", "image-opts", "force-share"}},
      {"map", {"help", "format", "output", "object", "image-opts", "force-share", "start-offset", "max-length"}},
      {"measure", {"help", "image-opts", "object", "output", "size", "force-share"}},
      {"rebase", {"help", "object", "image-opts", "force-share"}},
      {"resize", {"help", "object", "image-opts", "preallocation", "shrink"}},
      {"snapshot", {"help", "object", "image-opts", "force-share"}},
      {"", {"help", "version", "trace"}},
  };
  return own.at(verb);
}

// The word, with an option of `own` that it abbreviates, and no other of them, spelt out.
std::string spelt_out(const std::string& word, const std::vector<std::string_view>& own) {
  if (word.size() <= 2 || !word.starts_with("--")) return word;
  const size_t equals = std::min(word.find('='), word.size());
  const std::string typed = word.substr(2, equals - 2);
  const auto abbreviated = [&](std::string_view option) { return option.starts_with(typed); };
  if (std::ranges::count_if(own, abbreviated) != 1) return word;
  return fmt::format("--{}{}", *std::ranges::find_if(own, abbreviated), word.substr(equals));
}

// Whether the word is an option whose value is the next one.
bool takes_next_word(const Command& command, std::string_view word) {
  const std::vector<OptionSpec> specs = all_options(command);
  if (word.starts_with("--")) {
    const auto found = std::ranges::find(specs, word.substr(2), &OptionSpec::long_name);
    return found != specs.end() && !found->argument.empty() && !found->value_optional;
  }
  if (!word.starts_with('-')) return false;
  for (size_t i = 1; i < word.size(); ++i) {
    const auto found = std::ranges::find(specs, word[i], &OptionSpec::short_name);
    if (found != specs.end() && !found->argument.empty()) return i + 1 == word.size();
  }
  return false;
}

// Up to a "--", behind which there are no options.
std::vector<std::string> spelt_out(std::vector<std::string> words, const Command& verb) {
  for (size_t i = 0; i < words.size() && words[i] != "--"; ++i) {
    words[i] = spelt_out(words[i], own_long_options(verb.name));
    if (takes_next_word(verb, words[i])) ++i;
  }
  return words;
}

// Options before the verb. Returns how many words they are; nothing where they have been answered, with `status`.
std::optional<size_t> read_standard_options(const std::vector<std::string>& words, Streams& io, int& status) {
  size_t next = 0;
  for (; next < words.size() && words[next].starts_with('-'); ++next) {
    const std::string word = spelt_out(words[next], own_long_options(""));
    if (word == "-h" || word == "--help" || word == "-V" || word == "--version") {
      io.out << (word.ends_with('h') || word == "--help" ? qemu_img_help() : version_text());
      status = 0;
      return std::nullopt;
    }
    const bool apart = word == "-T" || word == "--trace";
    if (!apart && !word.starts_with("-T") && !word.starts_with("--trace=")) {
      status = refuse(io, fmt::format("unrecognized option '{}'", printable(word)));
      return std::nullopt;
    }
    if (apart && ++next == words.size()) {
      status = refuse(io, fmt::format("missing argument for option '{}'", word));
      return std::nullopt;
    }
  }
  return next;
}

}  // namespace

bool is_qemu_img_verb(const Command& command) { return command.group == "images"; }

std::string qemu_img_help() {
  std::string text = version_text() +
                     "usage: qemu-img [standard options] command [command options]\n"
                     "QEMU's disk image utility, as drydock does it\n\n"
                     "    '-h', '--help'       display this help and exit\n"
                     "    '-V', '--version'    output version information and exit\n"
                     "    '-T', '--trace'      taken and ignored\n\n"
                     "Command syntax:\n";
  std::vector<const Command*> verbs;
  std::ranges::copy_if(all_commands(), std::back_inserter(verbs),
                       [](const Command* c) { return is_qemu_img_verb(*c); });
  std::ranges::sort(verbs, {}, &Command::name);
  for (const Command* verb : verbs) {
    text += fmt::format("  {}", verb->name);
    for (const OptionSpec& spec : verb->options) text += option_syntax(spec);
    constexpr std::string_view any_options = "[OPTION...]";
    std::string_view words = verb->synopsis;
    if (words.starts_with(any_options)) words.remove_prefix(any_options.size());
    text += fmt::format("{}\n", words);
  }
  return text +
         "\n`man drydock-COMMAND` tells what they mean, `man drydock-qemu-img` what differs.\n\n"
         "Supported formats: qcow2 raw\n";
}

int run_qemu_img(const std::vector<std::string>& words, Streams& io) {
  int status = 0;
  const auto options = read_standard_options(words, io, status);
  if (!options) return delivered(io, qemu_img_name, status);
  if (*options == words.size()) return refuse(io, "Not enough arguments");
  const std::string& verb = words[*options];
  const Command* command = find_verb(verb);
  if (command == nullptr) return refuse(io, fmt::format("Command not found: {}", printable(verb)));
  const std::vector<std::string> rest(words.begin() + static_cast<std::ptrdiff_t>(*options) + 1, words.end());
  return run_command(*command, spelt_out(rest, *command), std::string(qemu_img_name), io, true);
}

}  // namespace drydock::cli
