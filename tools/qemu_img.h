// SPDX-License-Identifier: GPL-3.0-or-later
//
// drydock under the name qemu-img: `qemu-img VERB ...`. The verbs are the commands of the group "images".

#pragma once

#include <string_view>
#include <vector>

#include "tools/cli.h"

namespace drydock::cli {

inline constexpr std::string_view qemu_img_name = "qemu-img";
// Whose words are spoken: what a script that looks at the version is to go by.
inline constexpr std::string_view qemu_img_version = "7.2.0";

bool is_qemu_img_verb(const Command& command);

// `words` are those behind the program's name.
int run_qemu_img(const std::vector<std::string>& words, Streams& io);

std::string qemu_img_help();

}  // namespace drydock::cli
