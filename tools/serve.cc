// SPDX-License-Identifier: GPL-3.0-or-later
//
// drydock serve: images, their partitions and their snapshots as NBD exports.

#include <filesystem>
#include <set>

#include "nbd/server.h"
#include "src/error.h"
#include "src/views.h"
#include "tools/commands.h"
#include "tools/serve_options.h"

namespace drydock::cli {

namespace {

struct Source {
  std::string path;
  std::shared_ptr<Image> image;
};

std::vector<Source> open_images(const Invocation& invocation, bool writable) {
  OpenOptions options = parse_open_options(invocation.options);
  options.writable = writable;
  options.scratch = invocation.options.has("snapshot");
  std::vector<Source> sources;
  for (const std::string& path : invocation.arguments) {
    auto image = Image::open(path, options);
    for (const std::string& warning : image->warnings()) {
      invocation.warn(fmt::format("{}: {}", printable(path), warning));
    }
    sources.push_back({path, std::move(image)});
  }
  return sources;
}

// What the exports of each image start with: nothing for a single image, else the file's name, told apart by "~2",
// "~3" ... from others of the same name.
std::vector<std::string> prefixes(const std::vector<Source>& sources) {
  if (sources.size() == 1) return {""};
  std::vector<std::string> result;
  std::set<std::string> taken;
  for (const Source& source : sources) {
    const std::string name = printable(std::filesystem::path(source.path).filename().string());
    std::string unique = name;
    for (unsigned n = 2; !taken.insert(unique).second; ++n) unique = fmt::format("{}~{}", name, n);
    result.push_back(unique);
  }
  return result;
}

void add_views(const Invocation& invocation, const Source& source, const std::string& prefix, bool writable,
               nbd::Exports& exports) {
  const Views views = list_views(*source.image);
  for (const std::string& warning : views.warnings) {
    invocation.warn(fmt::format("{}: {}", printable(source.path), warning));
  }
  for (const View& view : views.views) {
    nbd::Export added{.name = view.name, .description = view.description, .disk = view.disk, .read_only = !writable};
    if (!prefix.empty()) {
      // The bare file name is its disk, too.
      if (view.kind == ViewKind::disk) {
        exports.add({prefix, view.description, view.disk, !writable});
      }
      added.name = prefix + "/" + view.name;
    }
    exports.add(std::move(added));
  }
}

int run_serve(Invocation& invocation) {
  if (invocation.arguments.empty()) usage_error("name at least one image to serve");
  const bool writable = invocation.options.has("rw") || invocation.options.has("snapshot");
  const nbd::ServerOptions options = parse_server_options(invocation.options);
  const std::vector<Source> sources = open_images(invocation, writable);

  nbd::Exports exports;
  const std::vector<std::string> names = prefixes(sources);
  for (size_t i = 0; i < sources.size(); ++i) add_views(invocation, sources[i], names[i], writable, exports);
  if (sources.size() == 1) exports.set_default(exports.all().front()->name);

  nbd::Server server(std::move(exports), options);
  server.start();
  for (const auto& served : server.exports().list()) {
    invocation.io.out << fmt::format("{}  {}\n", server.uri(served.name), served.description);
  }
  invocation.io.out.flush();
  server.wait();
  for (const Source& source : sources) source.image->close();
  return 0;
}

}  // namespace

const Command& serve_command() {
  static const Command command{
      .name = "serve",
      .group = "exports",
      .summary = "serve the disk, partitions and snapshots of images over NBD",
      .synopsis = "[OPTION...] IMAGE...",
      .incumbent = "",
      .options = join(join(open_options(),
                           {
                               {0, "rw", "", "let clients write (default: read-only)"},
                               {'s', "snapshot", "", "let clients write, to a private file that is gone at the end"},
                           }),
                      join(listen_options(), tls_options())),
      .run = run_serve,
  };
  return command;
}

}  // namespace drydock::cli
