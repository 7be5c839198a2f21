// SPDX-License-Identifier: GPL-3.0-or-later
//
// drydock compare: whether two images have the same contents, as qemu-img compare says it.

#include <nlohmann/json.hpp>
#include <set>

#include "src/copy/compare_disks.h"
#include "src/error.h"
#include "tools/cache_mode.h"
#include "tools/commands.h"
#include "tools/image_words.h"
#include "tools/output_format.h"
#include "tools/progress.h"

namespace drydock::cli {

namespace {

// qemu-img's.
enum CompareStatus { identical = 0, different = 1, open_failed = 2, map_failed = 3, read_failed = 4 };

struct Verdict {
  bool strict = false;
  uint64_t first_size = 0;
  uint64_t second_size = 0;
  std::optional<Difference> difference;

  bool sizes_differ() const { return first_size != second_size; }
  bool is_same() const { return !difference && !(strict && sizes_differ()); }
  // The sizes are looked at when everything before the smaller one's end was found to be the same.
  bool warns_of_sizes() const {
    const uint64_t smaller = std::min(first_size, second_size);
    return !strict && sizes_differ() && (!difference || difference->offset.value() >= smaller);
  }
};

std::string text_of(const Verdict& verdict) {
  if (verdict.strict && verdict.sizes_differ()) return "Strict mode: Image size mismatch!\n";
  std::string text;
  if (verdict.warns_of_sizes()) text += "Warning: Image size mismatch!\n";
  if (!verdict.difference) return text + "Images are identical.\n";
  const uint64_t offset = verdict.difference->offset.value();
  return text + (verdict.difference->kind == DifferenceKind::state
                     ? fmt::format("Strict mode: Offset {} block status mismatch!\n", offset)
                     : fmt::format("Content mismatch at offset {}!\n", offset));
}

std::string json_of(const Verdict& verdict) {
  nlohmann::ordered_json result{{"identical", verdict.is_same()},
                                {"virtual-sizes", {verdict.first_size, verdict.second_size}}};
  if (verdict.difference) {
    result["offset"] = verdict.difference->offset.value();
    result["difference"] = verdict.difference->kind == DifferenceKind::state ? "state" : "content";
  } else if (!verdict.is_same()) {
    result["difference"] = "size";
  }
  return result.dump(4) + "\n";
}

struct Opened {
  std::shared_ptr<Image> first;
  std::shared_ptr<Image> second;
};

Opened open_both(const Invocation& invocation) {
  const ParsedOptions& words = invocation.options;
  if (invocation.arguments.size() != 2) usage_error("Expecting two image file names");
  wants_json(words);
  check_cache_option(words, "T", "source cache");
  const OpenOptions options = read_image_options(invocation);
  Opened opened{open_image(invocation, invocation.arguments[0], options), nullptr};
  opened.second = words.has("image-opts")
                      ? open_image(invocation, invocation.arguments[1], options)
                      : open_image_file(invocation, invocation.arguments[1], words.value("second-format"), options);
  for (const auto& image : {opened.first, opened.second}) warn_of(invocation, *image);
  return opened;
}

std::set<std::string> files_of(const std::shared_ptr<const Image>& top) {
  std::set<std::string> files;
  for (std::shared_ptr<const Image> image = top; image; image = image->backing()) {
    files.insert(image->storage().identity());
  }
  return files;
}

bool share_files(const Opened& opened) {
  const std::set<std::string> first = files_of(opened.first);
  const std::set<std::string> second = files_of(opened.second);
  return std::ranges::any_of(first, [&](const std::string& file) { return second.contains(file); });
}

int compare(Invocation& invocation, const Opened& opened) {
  Progress progress(invocation);
  progress.when_interrupted("no difference was found up to there");
  const auto first = opened.first->disk();
  const auto second = opened.second->disk();
  Verdict verdict{.strict = invocation.options.has("strict"),
                  .first_size = first->size(),
                  .second_size = second->size(),
                  .difference = {}};
  progress.begin(std::max(verdict.first_size, verdict.second_size));
  if (!verdict.strict || !verdict.sizes_differ()) {
    verdict.difference = compare_disks(*first, *second,
                                       {.states_too = verdict.strict,
                                        .may_share_files = share_files(opened),
                                        .first_name = invocation.arguments[0],
                                        .second_name = invocation.arguments[1],
                                        .advance = [&progress](uint64_t bytes) { progress.advance(bytes); }});
  }
  const std::string words = wants_json(invocation.options) ? json_of(verdict) : text_of(verdict);
  if (verdict.is_same()) {
    progress.finish(words);
    return identical;
  }
  progress.finish_early(words);
  return different;
}

int run_compare(Invocation& invocation) {
  try {
    return compare(invocation, open_both(invocation));
  } catch (const CompareFailure& failure) {
    invocation.warn(failure.what());
    return failure.reading() ? read_failed : map_failed;
  }
}

}  // namespace

const Command& compare_command() {
  static const Command command{
      .name = "compare",
      .group = "images",
      .summary = "tell whether two images have the same contents",
      .synopsis = "[OPTION...] IMAGE1 IMAGE2",
      .incumbent = "",
      .options = join(join(image_options(), progress_options()),
                      {
                          {'F', "second-format", "FORMAT", "format of the second image; -f is the first one's"},
                          {'s', "strict", "", "sizes, and what is allocated, must be the same too"},
                          {'T', "", "CACHE", "cache mode of qemu-img; taken for the sake of scripts"},
                          {'q', "quiet", "", "print nothing but errors"},
                          output_option(),
                          force_share_option(),
                      }),
      .run = run_compare,
      .failure_status = open_failed,
  };
  return command;
}

}  // namespace drydock::cli
