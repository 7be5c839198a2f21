// SPDX-License-Identifier: GPL-3.0-or-later
//
// What serve is to serve, from its words: everything in one image; one disk as qemu-nbd describes it; or several images
// and folders of images, opened when clients ask for them.
//
// Ownership: the exports keep the images.

#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "nbd/exports.h"
#include "nbd/session_record.h"
#include "src/process/sandbox.h"
#include "tools/cli.h"

namespace drydock::cli {

struct Served {
  std::shared_ptr<const nbd::ExportCatalog> exports;
  std::function<void()> close;           // when the server has stopped: throws where something could not be written
  std::vector<SandboxPath> on_demand{};  // files that are opened while it serves
  // What opens scratch files while it serves, to be replaced where the process may not itself any more; null: none are.
  std::shared_ptr<std::function<UniqueFd()>> scratch_file{};
};

// The options that say which images, and how clients get them.
std::vector<OptionSpec> served_image_options();

// How many clients may be there at once: 0 for as many as want. Throws usage, or invalid, for words that are no number.
unsigned shared_clients(const Invocation& invocation);

// Opens what the arguments name. Throws for words that contradict each other, and for what does not open. What goes
// wrong with one of several images while it serves is told to `log`, too, if there is one.
Served open_served(const Invocation& invocation, const nbd::Log& log = {});

}  // namespace drydock::cli
