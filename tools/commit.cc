// SPDX-License-Identifier: GPL-3.0-or-later
//
// drydock commit: write what an overlay holds into a backing file of its, as qemu-img commit does.

#include "src/copy/commit.h"

#include <filesystem>

#include "src/copy/rate_limit.h"
#include "src/error.h"
#include "src/image_lock.h"
#include "src/qcow2/qcow2_image.h"
#include "tools/cache_mode.h"
#include "tools/commands.h"
#include "tools/image_words.h"
#include "tools/output_format.h"
#include "tools/progress.h"
#include "tools/qemu_json.h"

namespace drydock::cli {

namespace {

using Layers = std::vector<std::shared_ptr<const Image>>;

Layers chain_of(const std::shared_ptr<Image>& top) {
  Layers chain{top};
  while (const auto below = chain.back()->backing()) chain.push_back(below);
  return chain;
}

const qcow2::Header& header_of(const Image& overlay) {
  return dynamic_cast<const qcow2::Qcow2Image&>(overlay).header();
}

bool same_file(const std::string& a, const std::string& b) {
  std::error_code failure;
  return std::filesystem::equivalent(a, b, failure) && !failure;
}

// The layer that -b means: as its overlay spells it, or as a path, from here or from its overlay.
size_t find_base(const Layers& chain, const std::optional<std::string>& word) {
  if (chain.size() < 2) throw Error(ErrorKind::invalid, "Image does not have a backing file");
  if (!word) return 1;
  for (size_t i = 1; i < chain.size(); ++i) {
    const std::string& overlay = chain[i - 1]->path();
    if (header_of(*chain[i - 1]).backing_file == *word || same_file(chain[i]->path(), *word) ||
        same_file(chain[i]->path(), resolve_name({*word, overlay, FileRole::backing_file}))) {
      return i;
    }
  }
  throw Error(ErrorKind::not_found, fmt::format("Did not find '{}' in the backing chain of '{}'",
                                                printable_in_quotes(*word), printable_in_quotes(chain[0]->path())));
}

// The layer `index` once more, for writing. What its overlay names has passed the gate, and passes it again.
std::shared_ptr<Image> open_base(const Layers& chain, size_t index, OpenOptions options) {
  const Image& overlay = *chain[index - 1];
  for (const Storage* file : chain[index]->files()) give_up_locks(*file);  // it was to be read alone until now
  const auto storage =
      options.gate->open({*header_of(overlay).backing_file, overlay.path(), FileRole::backing_file}, true);
  if (storage->identity() != chain[index]->storage().identity()) {
    throw Error(ErrorKind::busy, fmt::format("{}: was exchanged meanwhile", printable(storage->name())));
  }
  options.writable = true;
  options.format = chain[index]->format();
  return Image::open(storage, options);
}

uint64_t parse_rate(const ParsedOptions& options) {
  const auto rate = options.value("r");
  return rate ? read_named_size(*rate, "rate limit") : 0;
}

void write_into(Progress& progress, RateLimit& limit, const Image& top, size_t depth, Image& base) {
  if (base.virtual_size() < top.virtual_size()) base.resize(top.virtual_size(), Preallocation::off);
  commit_layers(*top.disk(), static_cast<unsigned>(depth), *base.disk(), [&](uint64_t bytes) {
    progress.advance(bytes);
    limit.take(bytes, [&] {
      progress.advance(0);
      return true;
    });
  });
  base.close();
}

int run_commit(Invocation& invocation) {
  const ParsedOptions& words = invocation.options;
  if (invocation.arguments.size() != 1) usage_error("Expecting one image file name");
  const bool json = wants_json(words);
  check_cache_option(words, "t", "cache");
  RateLimit limit(parse_rate(words));
  // Emptied, the image would show what lies between it and the base.
  const bool keep = words.has("d") || words.has("base");
  OpenOptions options = read_image_options(invocation);
  options.writable = true;
  const auto top = open_image(invocation, invocation.arguments[0], options);
  const Layers chain = chain_of(top);
  const size_t depth = find_base(chain, words.value("base"));
  {
    Progress progress(invocation);
    progress.when_interrupted("the image still has all of its data, its base a part of that; run it again");
    progress.begin(top->virtual_size());
    warn_of_snapshots(invocation, *top);
    const auto base = open_base(chain, depth, options);
    write_into(progress, limit, *top, depth, *base);
    if (!keep) dynamic_cast<qcow2::Qcow2Image&>(*top).make_empty();
    top->close();
    progress.finish();
  }
  if (json) {
    const nlohmann::json result{{"filename", top->path()}, {"base", chain[depth]->path()}, {"emptied", !keep}};
    invocation.io.out << qemu_json(result) << '\n';
  } else if (!words.has("quiet")) {
    invocation.io.out << "Image committed.\n";
  }
  return 0;
}

}  // namespace

const Command& commit_command() {
  static const Command command{
      .name = "commit",
      .group = "images",
      .summary = "write what an overlay holds into its backing file",
      .synopsis = "[OPTION...] IMAGE",
      .incumbent = "",
      .options =
          join(join(image_options(),
                    {
                        {'b', "base", "BASE", "write into this image of the backing chain; IMAGE keeps what it has"},
                        {'d', "", "", "leave IMAGE as it is instead of emptying it"},
                        {'r', "", "RATE", "write so many bytes a second at most"},
                    }),
               join(progress_options(),
                    {
                        {'q', "quiet", "", "print nothing but errors"},
                        {'t', "", "CACHE", "cache mode of qemu-img; taken for the sake of scripts"},
                        output_option(),
                    })),
      .run = run_commit,
  };
  return command;
}

}  // namespace drydock::cli
