// SPDX-License-Identifier: GPL-3.0-or-later
//
// The options with which images are created, as -o spells them: for every command that makes an image.

#pragma once

#include <string>
#include <string_view>

#include "src/image_create.h"
#include "tools/option_string.h"

namespace drydock::cli {

// The text of -o help: what images of `format` can be created with. While no file is named, those of the format alone.
std::string create_options_help(Format format, bool names_file);

// Checks `given` against the options of `format`. Throws invalid for names that it does not have, and for what is no
// number or size where one is expected. The caller may change what it likes in the result.
ImageCreateOptions read_create_options(Format format, OptionString& given);
// The options whose values are words. Throws invalid for those that are not known, which qemu-img tells only once it
// makes the image; whether they go together is for create_image() to say.
void read_create_values(const OptionString& given, ImageCreateOptions& options);

// "Formatting 'guest.qcow2', fmt=qcow2 cluster_size=65536 ...": what was asked for, with qemu-img's defaults beside it.
// After read_create_options(); `size` is the image's, wherever it came from.
std::string formatting_line(std::string_view path, Format format, const OptionString& given, uint64_t size);

}  // namespace drydock::cli
