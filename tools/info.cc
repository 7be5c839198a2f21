// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/copy/content_hash.h"
#include "src/error.h"
#include "tools/commands.h"
#include "tools/image_info.h"
#include "tools/image_words.h"
#include "tools/output_format.h"
#include "tools/progress.h"
#include "tools/qemu_json.h"

namespace drydock::cli {

namespace {

using Layers = std::vector<std::shared_ptr<const Image>>;

// "name:digits" of each image's disk; none without --hash.
std::vector<std::string> hashes_of(const Invocation& invocation, const Layers& chain) {
  std::vector<std::string> hashes;
  if (!invocation.options.has("hash")) return hashes;
  uint64_t total = 0;
  for (const auto& image : chain) total += image->virtual_size();
  Progress progress(invocation);
  progress.begin(total);
  for (const auto& image : chain) {
    const Sha256 hash = content_hash(*image->disk(), [&](uint64_t bytes) { progress.advance(bytes); });
    hashes.push_back(fmt::format("{}:{}", content_hash_name, hex_digits(hash)));
  }
  progress.finish();
  return hashes;
}

void print_json(const Layers& chain, const std::vector<std::string>& hashes, bool as_list, std::ostream& out) {
  auto list = nlohmann::json::array();
  for (size_t i = 0; i < chain.size(); ++i) {
    list.push_back(image_info_json(*chain[i]));
    if (!hashes.empty()) list.back()["content-hash"] = hashes[i];
  }
  out << qemu_json(as_list ? list : list[0]) << '\n';
}

void print_text(const Layers& chain, const std::vector<std::string>& hashes, std::ostream& out) {
  std::string_view separator;
  for (size_t i = 0; i < chain.size(); ++i) {
    out << separator << image_info_text(*chain[i]);
    if (!hashes.empty()) out << fmt::format("content hash: {}\n", hashes[i]);
    separator = "\n";
  }
}

int run_info(Invocation& invocation) {
  if (invocation.arguments.size() != 1) usage_error("Expecting one image file name");
  const bool json_output = wants_json(invocation.options);
  const bool whole_chain = invocation.options.has("backing-chain");
  OpenOptions options = read_image_options(invocation);
  options.metadata_only = !whole_chain && !invocation.options.has("hash");

  Layers chain{open_image(invocation, invocation.arguments[0], options)};
  for (auto below = chain[0]->backing(); whole_chain && below; below = below->backing()) chain.push_back(below);

  const std::vector<std::string> hashes = hashes_of(invocation, chain);
  if (json_output) {
    print_json(chain, hashes, whole_chain, invocation.io.out);
  } else {
    print_text(chain, hashes, invocation.io.out);
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
      .options = join(join(image_options(),
                           {
                               output_option(),
                               {0, "backing-chain", "", "go down the backing chain, opening every file in it"},
                               {0, "hash", "", "also hash what the guest sees: the same in every format and layout"},
                               force_share_option(),
                           }),
                      progress_options()),
      .run = run_info,
  };
  return command;
}

}  // namespace drydock::cli
