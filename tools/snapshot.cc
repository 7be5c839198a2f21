// SPDX-License-Identifier: GPL-3.0-or-later
//
// drydock snapshot: list, take, apply and delete internal snapshots, as qemu-img snapshot does.

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "src/error.h"
#include "tools/commands.h"
#include "tools/image_info.h"
#include "tools/image_words.h"
#include "tools/output_format.h"
#include "tools/qemu_json.h"

namespace drydock::cli {

namespace {

enum class Action { none, list, apply, create, remove };

struct SnapshotRequest {
  Action action = Action::none;
  std::string name;
};

SnapshotRequest parse_request(const ParsedOptions& options) {
  SnapshotRequest request;
  unsigned actions = 0;
  for (const auto& [option, action] :
       std::array{std::pair{"list", Action::list}, std::pair{"apply", Action::apply},
                  std::pair{"create", Action::create}, std::pair{"delete", Action::remove}}) {
    for (const std::string& name : options.values(option)) {
      ++actions;
      request = {action, name};
    }
  }
  if (actions > 1) usage_error("Cannot mix '-l', '-a', '-c', '-d'");
  return request;
}

using Snapshots = std::vector<SnapshotInfo>;

size_t find_by(const Image& image, const std::string SnapshotInfo::*field, const std::string& text) {
  const Snapshots& all = image.snapshots();
  return static_cast<size_t>(std::ranges::find(all, text, field) - all.begin());
}

// As qemu-img finds them: to apply by ID, then by name; to delete by name.
size_t find_snapshot(const Image& image, const SnapshotRequest& request) {
  const size_t none = image.snapshots().size();
  size_t found = request.action == Action::apply ? find_by(image, &SnapshotInfo::id, request.name) : none;
  if (found == none) found = find_by(image, &SnapshotInfo::name, request.name);
  if (found < none) return found;
  if (request.action == Action::apply) {
    throw Error(ErrorKind::not_found,
                fmt::format("Could not apply snapshot '{}': Failed to load snapshot: No such file "
                            "or directory",
                            printable(request.name)));
  }
  throw Error(ErrorKind::not_found,
              fmt::format("Could not delete snapshot '{}': snapshot not found", printable(request.name)));
}

void list(const Invocation& invocation, const Image& image) {
  if (wants_json(invocation.options)) {
    const nlohmann::json info = image_info_json(image);
    invocation.io.out << qemu_json(info.value("snapshots", nlohmann::json::array())) << '\n';
  } else if (!image.snapshots().empty()) {
    invocation.io.out << "Snapshot list:\n" << snapshot_list_text(image.snapshots());
  }
}

void create(Image& image, const std::string& name) try { image.create_snapshot(name); } catch (const Error& error) {
  throw without_name(error, image.path()).within(fmt::format("Could not create snapshot '{}'", printable(name)));
}

std::shared_ptr<const Image> look_below(const Invocation& invocation, const Image& image, const std::string& word) {
  if (image.format() != Format::qcow2) return nullptr;
  return told_in_its_words(invocation, word, [&] { return open_chain_below(invocation, image.storage()); });
}

int run_snapshot(Invocation& invocation) {
  SnapshotRequest request = parse_request(invocation.options);
  // qemu-img then opens the image and does nothing.
  if (request.action == Action::none && !invocation.as_incumbent) request.action = Action::list;
  // To qemu-img it is a name like any other; more likely a script's variable is empty.
  if (request.action == Action::create && request.name.empty() && !invocation.as_incumbent) {
    usage_error("a snapshot needs a name");
  }
  if (invocation.arguments.size() != 1) usage_error("Expecting one image file name");
  const bool json = wants_json(invocation.options);
  OpenOptions options = read_image_options(invocation);
  options.writable = request.action > Action::list;
  options.metadata_only = !options.writable;
  if (options.writable || request.action == Action::none) refuse_force_share(invocation, invocation.arguments[0]);
  const std::string& word = invocation.arguments[0];
  const auto image = open_image(invocation, word, options);
  const auto below = options.metadata_only ? look_below(invocation, *image, word) : nullptr;
  switch (request.action) {
    case Action::none:
      // qemu-img has opened the image for writing here.
      if (!invocation.options.has("image-opts") && !invocation.options.has("format")) {
        warn_of_guess(invocation, word, image->format());
      }
      return 0;
    case Action::list:
      list(invocation, *image);
      return 0;
    case Action::create:
      create(*image, request.name);
      break;
    case Action::apply:
      image->apply_snapshot(find_snapshot(*image, request));
      break;
    case Action::remove:
      image->delete_snapshot(find_snapshot(*image, request));
      break;
  }
  if (json) list(invocation, *image);
  image->close();
  return 0;
}

}  // namespace

const Command& snapshot_command() {
  static const Command command{
      .name = "snapshot",
      .group = "images",
      .summary = "list, take, apply and delete an image's internal snapshots",
      .synopsis = "[OPTION...] [-l | -a SNAPSHOT | -c SNAPSHOT | -d SNAPSHOT] IMAGE",
      .incumbent = "",
      .options = join(image_options(),
                      {
                          {'l', "list", "", "list the snapshots (the default)"},
                          {'a', "apply", "SNAPSHOT", "make the disk what it was when SNAPSHOT was taken"},
                          {'c', "create", "SNAPSHOT", "take a snapshot under this name"},
                          {'d', "delete", "SNAPSHOT", "delete a snapshot"},
                          {'q', "quiet", "", "taken for the sake of scripts: nothing but errors is printed anyway"},
                          output_option(),
                          force_share_option(),
                      }),
      .run = run_snapshot,
  };
  return command;
}

}  // namespace drydock::cli
