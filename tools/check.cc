// SPDX-License-Identifier: GPL-3.0-or-later

#include <algorithm>

#include "src/error.h"
#include "src/file_storage.h"
#include "src/image_lock.h"
#include "src/qcow2/repair.h"
#include "src/qcow2/undo_file.h"
#include "src/qcow2/undo_restore.h"
#include "tools/cache_mode.h"
#include "tools/check_output.h"
#include "tools/check_progress.h"
#include "tools/commands.h"
#include "tools/image_words.h"
#include "tools/output_format.h"
#include "tools/qemu_json.h"
#include "tools/remote.h"

namespace drydock::cli {

namespace {

// qemu-img's.
enum CheckStatus { clean = 0, not_completed = 1, corrupt = 2, leaky = 3, no_check = 63 };

qcow2::RepairMode parse_repair(const std::string& text) {
  if (text == "leaks") return qcow2::RepairMode::leaks;
  if (text == "all") return qcow2::RepairMode::all;
  usage_error(fmt::format("Unknown option value for -r (expecting 'leaks' or 'all'): {}", printable(text)));
}

void print_findings(const qcow2::CheckResult& result, std::ostream& out) {
  for (const qcow2::Finding& finding : result.findings) out << finding.message << '\n';
  if (result.findings_left_out > 0) out << fmt::format("... and {} more\n", result.findings_left_out);
}

int status_of(const qcow2::CheckResult& result) {
  if (result.check_errors > 0) return not_completed;
  if (result.corruptions > 0) return corrupt;
  return result.leaks > 0 ? leaky : clean;
}

// Ends a check or a repair: its output is written.
int conclude(const Invocation& invocation, const qcow2::CheckResult& result) {
  if (result.failure && invocation.as_incumbent) throw Error(*result.failure);
  if (result.failure) {
    invocation.warn(fmt::format("Check failed: {}", result.failure->what()));
    return not_completed;
  }
  if (result.check_errors > 0) invocation.warn("Check failed");
  return status_of(result);
}

// Where there is nothing to tell but what qemu-img tells, its bytes.
std::string check_json_text(const Invocation& invocation, nlohmann::json object) {
  if (invocation.as_incumbent) {
    std::erase_if(object.get_ref<nlohmann::json::object_t&>(),
                  [](const auto& member) { return member.first.starts_with("findings") && member.second.empty(); });
  }
  return qemu_json(object) + "\n";
}

int check_only(const Invocation& invocation, const std::string& path, Storage& image) {
  Progress progress(invocation);
  progress.begin(bytes_to_check(image));
  const qcow2::CheckResult result = qcow2::check(CountedReads(image, progress, Interruption::ends_reading));
  progress.check_interruption();  // what was found for want of reading is no finding
  progress.finish();
  const bool json_output = wants_json(invocation.options);
  if (!json_output || result.failure) print_findings(result, invocation.io.err);
  if (!result.failure && !invocation.options.has("quiet")) {
    invocation.io.out << (json_output ? check_json_text(invocation, check_json(path, result))
                                      : check_summary_text(result));
  }
  return conclude(invocation, result);
}

qcow2::RepairOutcome repair_with_undo(Storage& image, const qcow2::RepairOptions& options, const std::string& file) {
  qcow2::UndoFile undo(qcow2::UndoFile::create(file), image);
  qcow2::UndoingStorage undoing(image, undo);
  qcow2::RepairOutcome outcome = qcow2::repair(undoing, options);
  undoing.flush();
  undo.finish();
  return outcome;
}

int check_and_repair(const Invocation& invocation, const std::string& path, Storage& image) {
  const qcow2::RepairOptions options{.mode = parse_repair(*invocation.options.value("repair")),
                                     .can_grow = image.can_grow()};
  const auto undo = invocation.options.value("undo");
  Progress progress(invocation);
  progress.begin(2 * bytes_to_check(image));  // before and after
  CountedReads counted(image, progress, Interruption::waits);
  const qcow2::RepairOutcome outcome =
      undo ? repair_with_undo(counted, options, *undo) : qcow2::repair(counted, options);
  progress.finish();
  const bool json_output = wants_json(invocation.options);
  if (!json_output || outcome.after.failure) print_findings(outcome.before, invocation.io.err);
  if (!outcome.after.failure && !invocation.options.has("quiet")) {
    if (json_output) {
      invocation.io.out << check_json_text(invocation, repair_json(path, outcome));
    } else {
      const std::string repaired = repair_text(outcome);
      invocation.io.out << repaired << std::flush;
      if (!repaired.empty()) print_findings(outcome.after, invocation.io.err);
      invocation.io.out << check_summary_text(outcome.after);
    }
  }
  return conclude(invocation, outcome.after);
}

int restore(const Invocation& invocation, const std::string& path) {
  if (invocation.options.has("repair")) usage_error("--undo-restore and --repair exclude each other");
  const auto undo_file = FileStorage::open(*invocation.options.value("undo-restore"), true);
  lock_for_use(*undo_file, false);
  const auto image = Image::open_storage(path, {.writable = true, .remote = remote_opener_for(invocation)});
  const qcow2::UndoSummary summary = qcow2::restore_from_undo_file(*undo_file, *image);
  if (!invocation.options.has("quiet")) {
    invocation.io.out << fmt::format("The image is as it was before the repair{}: {} bytes were restored.\n",
                                     summary.repair_was_complete ? "" : ", which had been interrupted",
                                     summary.restored_bytes);
  }
  return clean;
}

int run_check(Invocation& invocation) {
  const ParsedOptions& options = invocation.options;
  if (invocation.arguments.size() != 1) usage_error("Expecting one image file name");
  wants_json(options);
  check_cache_option(options, "T", "source cache");
  const bool repairing = options.has("repair");
  if (options.has("undo") && !repairing) usage_error("--undo needs --repair");
  if (repairing) parse_repair(*options.value("repair"));
  if (repairing) refuse_force_share(invocation, invocation.arguments[0]);
  return told_in_its_words(invocation, invocation.arguments[0], [&] {
    const ImageDescription described = describe_image(invocation, invocation.arguments[0], repairing);
    const std::string& path = described.filename;
    if (options.has("undo-restore")) return restore(invocation, path);
    const auto image = Image::open_storage(
        path,
        {.writable = repairing, .beside_writers = options.has("force-share"), .remote = remote_opener_for(invocation)});
    const Format format = described.format ? *described.format : probe_format(*image, probe_rule(invocation));
    if (repairing && !described.format) warn_of_guess(invocation, path, format);
    if (format != Format::qcow2) {
      invocation.warn("This image format does not support checks");
      return static_cast<int>(no_check);
    }
    // Under drydock's own name an image whose base is gone can be checked and repaired.
    const auto below = invocation.as_incumbent ? open_chain_below(invocation, *image) : nullptr;
    return repairing ? check_and_repair(invocation, path, *image) : check_only(invocation, path, *image);
  });
}

}  // namespace

const Command& check_command() {
  static const Command command{
      .name = "check",
      .group = "images",
      .summary = "find damage and lost space in a qcow2 image, and repair it",
      .synopsis = "[OPTION...] IMAGE",
      .incumbent = "",
      .options = join(
          {
              {'f', "format", "FORMAT", "format of the image: raw or qcow2 (default: found from its contents)"},
              {'r', "repair", "leaks|all", "repair lost space, or all that can be repaired without guessing"},
              {0, "undo", "FILE", "save what a repair overwrites to FILE, which must not exist"},
              {0, "undo-restore", "FILE", "restore the image from FILE as it was before the repair"},
              {0, "image-opts", "", "IMAGE is a list of options: driver=qcow2,file.filename=..."},
              {0, "object", "OBJECT", "an object of QEMU's; checked, but of no use here"},
              output_option(),
              {'q', "quiet", "", "print findings and errors alone"},
              force_share_option(),
              {'T', "", "CACHE", "cache mode of qemu-img; taken for the sake of scripts"},
          },
          progress_options()),
      .run = run_check,
  };
  return command;
}

}  // namespace drydock::cli
