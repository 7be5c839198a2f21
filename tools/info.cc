// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/error.h"
#include "tools/commands.h"
#include "tools/image_info.h"
#include "tools/image_words.h"
#include "tools/output_format.h"
#include "tools/qemu_json.h"

namespace drydock::cli {

namespace {

int run_info(Invocation& invocation) {
  if (invocation.arguments.size() != 1) usage_error("Expecting one image file name");
  const bool json_output = wants_json(invocation.options);
  const bool whole_chain = invocation.options.has("backing-chain");
  OpenOptions options = read_image_options(invocation);
  options.metadata_only = !whole_chain;

  std::vector<std::shared_ptr<const Image>> chain{open_image(invocation, invocation.arguments[0], options)};
  while (const auto below = chain.back()->backing()) chain.push_back(below);

  if (json_output) {
    auto list = nlohmann::json::array();
    for (const auto& image : chain) list.push_back(image_info_json(*image));
    invocation.io.out << qemu_json(whole_chain ? list : list[0]) << '\n';
    return 0;
  }
  std::string_view separator;
  for (const auto& image : chain) {
    invocation.io.out << separator << image_info_text(*image);
    separator = "\n";
  }
  return 0;
}

}  // namespace

const Command& info_command() {
  static const Command command{
      .name = "info",
      .group = "images",
      .summary = "show what an image is: format, sizes, snapshots, backing file",
      .synopsis = "[OPTION...] IMAGE",
      .incumbent = "",
      .options = join(image_options(),
                      {
                          output_option(),
                          {0, "backing-chain", "", "go down the backing chain, opening every file in it"},
                          force_share_option(),
                      }),
      .run = run_info,
  };
  return command;
}

}  // namespace drydock::cli
