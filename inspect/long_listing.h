// SPDX-License-Identifier: GPL-3.0-or-later
//
// What `ls -la` prints, row by row. It prints names as they are, so that one with a line end in it looks like two rows,
// the second of which says whatever the guest likes: only who knows the names can tell the rows apart.

#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace drydock {

// The rows of `text`, without their line ends; the first tells the total. `names` are those in the folder, without "."
// and ".."; `link_target` is asked for a symlink's text. Nothing where `text` is no such listing of them.
std::optional<std::vector<std::string>> rows_of_listing(
    const std::string& text, std::vector<std::string> names,
    const std::function<std::string(const std::string& name)>& link_target);

}  // namespace drydock
