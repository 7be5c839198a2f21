// SPDX-License-Identifier: GPL-3.0-or-later

#include <algorithm>
#include <array>

#include "src/error.h"
#include "tools/commands.h"
#include "tools/image_info.h"
#include "tools/image_words.h"
#include "tools/output_format.h"
#include "tools/qemu_json.h"

namespace drydock::cli {

namespace {

struct Session {
  std::shared_ptr<Image> target;
  std::shared_ptr<const Image> source;  // of bitmaps to merge; the target itself where no other is given
  std::string bitmap;
  std::optional<uint64_t> granularity;
};

struct Operation {
  std::string_view name;  // also of its option
  void (*run)(const Session& session, const std::string& value);
};

constexpr std::array operations{
    Operation{"add", [](const Session& s, const std::string&) { s.target->add_bitmap(s.bitmap, s.granularity, true); }},
    Operation{"remove", [](const Session& s, const std::string&) { s.target->remove_bitmap(s.bitmap); }},
    Operation{"clear", [](const Session& s, const std::string&) { s.target->clear_bitmap(s.bitmap); }},
    Operation{"enable", [](const Session& s, const std::string&) { s.target->enable_bitmap(s.bitmap); }},
    Operation{"disable", [](const Session& s, const std::string&) { s.target->disable_bitmap(s.bitmap); }},
    Operation{"merge",
              [](const Session& s, const std::string& from) { s.target->merge_bitmap(s.bitmap, *s.source, from); }},
};

const Operation* operation_of(const ParsedOptions::Given& given) {
  const auto found = std::ranges::find_if(operations, [&](const Operation& op) { return given.is(op.name); });
  return found == operations.end() ? nullptr : &*found;
}

// qemu-img gives no hint behind these.

void check_bitmap_words(const Invocation& invocation) {
  const ParsedOptions& options = invocation.options;
  if (std::ranges::none_of(options.in_order(), [](const auto& given) { return operation_of(given) != nullptr; })) {
    throw_invalid("Need at least one of --add, --remove, --clear, --enable, --disable, or --merge");
  }
  if (invocation.arguments.size() != 2) throw_invalid("Expecting filename and bitmap name");
  if (options.has("granularity") && !options.has("add")) throw_invalid("granularity only supported with --add");
  if (options.has("source-format") && !options.has("source-file")) throw_invalid("-F only supported with -b");
  if (options.has("source-file") && !options.has("merge")) {
    throw_invalid("Merge bitmap source file only supported with --merge");
  }
}

std::shared_ptr<const Image> open_source(const Invocation& invocation, const OpenOptions& target_options) {
  const ParsedOptions& words = invocation.options;
  OpenOptions options = target_options;
  options.writable = false;
  return open_image_file(invocation, *words.value("source-file"), words.value("source-format"), options);
}

int run_bitmap(Invocation& invocation) {
  check_bitmap_words(invocation);
  wants_json(invocation.options);
  OpenOptions options = read_image_options(invocation);
  options.writable = true;
  options.without_backing = true;
  Session session{.target = open_image(invocation, invocation.arguments[0], options),
                  .source = nullptr,
                  .bitmap = invocation.arguments[1],
                  .granularity = std::nullopt};
  session.source = invocation.options.has("source-file") ? open_source(invocation, options) : session.target;
  if (const auto word = invocation.options.value("granularity")) {
    const uint64_t size = read_named_size(*word, "granularity");
    if (size != 0) session.granularity = size;
  }

  for (const ParsedOptions::Given& given : invocation.options.in_order()) {
    const Operation* operation = operation_of(given);
    if (operation == nullptr) continue;
    try {
      operation->run(session, given.value);
    } catch (const Error& error) {
      throw without_name(error, session.target->path())
          .within(fmt::format("Operation {} on bitmap {} failed", operation->name, printable(session.bitmap)));
    }
  }
  const nlohmann::json result = bitmaps_json(*session.target);
  session.target->close();
  if (wants_json(invocation.options)) invocation.io.out << qemu_json(result) << '\n';
  return 0;
}

}  // namespace

const Command& bitmap_command() {
  static const Command command{
      .name = "bitmap",
      .group = "images",
      .summary = "add, remove and change the persistent dirty bitmaps of a qcow2 image",
      .synopsis = "[OPTION...] IMAGE BITMAP",
      .incumbent = "",
      .options = join(image_options(),
                      {
                          {0, "add", "", "add the bitmap, enabled"},
                          {0, "remove", "", "remove it"},
                          {0, "clear", "", "clear all of its bits"},
                          {0, "enable", "", "have it record changes of the disk from now on"},
                          {0, "disable", "", "no longer have it record changes"},
                          {0, "merge", "SOURCE", "set the bits that are set in the bitmap SOURCE"},
                          {'g', "granularity", "SIZE", "bytes of the disk for each bit, for --add (default: 64k)"},
                          {'b', "source-file", "IMAGE", "the image that has the bitmaps to merge"},
                          {'F', "source-format", "FORMAT", "format of the image given with -b"},
                          output_option(),
                      }),
      .run = run_bitmap,
  };
  return command;
}

}  // namespace drydock::cli
