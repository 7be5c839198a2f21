// SPDX-License-Identifier: GPL-3.0-or-later
//
// Images on NBD servers, as the commands open them.
//
// Only the complete program has what opens them: libnbd brings TLS and XML along, and loading these takes longer than
// `info` takes for all of its work. The program that users call (front.cc) hands over to it when its words speak of
// NBD.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "src/remote.h"
#include "tools/cli.h"

namespace drydock::cli {

// {0, "allow-nbd", ...}: for every command that has --allow-dir.
OptionSpec allow_nbd_option();

// What opens the user's own NBD URIs, and those that images name where they are on the server of one of `allowed`.
// Throws invalid for words that are no NBD URIs. Null in the program that has no libnbd.
std::shared_ptr<const RemoteOpener> make_remote_opener(const std::vector<std::string>& allowed);

// The same for the URIs of --allow-nbd, and of DRYDOCK_ALLOW_NBD, in which they stand one after another with spaces
// between them.
std::shared_ptr<const RemoteOpener> remote_opener_for(const Invocation& invocation,
                                                      const std::vector<std::string>& also = {});

// Whether a program that is called by these words may have to open something by NBD.
bool speaks_of_nbd(const std::vector<std::string>& words);

}  // namespace drydock::cli
