// SPDX-License-Identifier: GPL-3.0-or-later
//
// drydock serve: images, their partitions, snapshots and layers as NBD exports.

#include "nbd/server.h"
#include "src/error.h"
#include "tools/commands.h"
#include "tools/serve_options.h"
#include "tools/served_image.h"

namespace drydock::cli {

namespace {

int run_serve(Invocation& invocation) {
  const nbd::ServerOptions options = parse_server_options(invocation);
  const Served served = open_served(invocation);

  nbd::Server server(served.exports, options);
  server.start();
  if (!invocation.as_incumbent) {
    for (const auto& entry : served.exports->list()) {
      invocation.io.out << fmt::format("{}  {}\n", server.uri(entry.name), entry.description);
    }
    invocation.io.out.flush();
  }
  server.wait();
  served.close();
  return 0;
}

}  // namespace

const Command& serve_command() {
  static const Command command{
      .name = "serve",
      .group = "exports",
      .summary = "serve the disk, partitions and snapshots of images over NBD",
      .synopsis = "[OPTION...] IMAGE-OR-FOLDER...",
      .incumbent = "",
      .options = join(served_image_options(), join(listen_options(), tls_options())),
      .run = run_serve,
  };
  return command;
}

}  // namespace drydock::cli
