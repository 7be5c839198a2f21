// SPDX-License-Identifier: GPL-3.0-or-later
//
// drydock serve: images, their partitions, snapshots and layers as NBD exports.

#include <csignal>
#include <cstdlib>
#include <optional>
#include <thread>

#include "nbd/server.h"
#include "nbd/socket_activation.h"
#include "src/error.h"
#include "src/process/background.h"
#include "tools/commands.h"
#include "tools/nbd_device.h"
#include "tools/pid_file.h"
#include "tools/qemu_nbd.h"
#include "tools/serve_options.h"
#include "tools/serve_sandbox.h"
#include "tools/served_image.h"

namespace drydock::cli {

namespace {

// While it lives, the signals that end the server wait for it: who comes before it listens to them would leave behind
// what has been made by then.
class HeldSignals {
 public:
  HeldSignals() {
    sigset_t signals;
    sigemptyset(&signals);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&signals, signal);
    ::pthread_sigmask(SIG_BLOCK, &signals, &previous_);
  }
  HeldSignals(const HeldSignals&) = delete;
  HeldSignals& operator=(const HeldSignals&) = delete;
  ~HeldSignals() { ::pthread_sigmask(SIG_SETMASK, &previous_, nullptr); }

 private:
  sigset_t previous_{};
};

// Until the end, once `ready` was told that the server is there.
void serve(const Invocation& invocation, nbd::ServerOptions options, std::vector<UniqueFd> inherited,
           const ReadyCallback& ready) {
  options.log = open_log(invocation);
  const Served served = open_served(invocation, options.log);
  const bool activated = !inherited.empty();
  std::optional<HeldSignals> held(std::in_place);
  std::optional<PidFile> pid_file;
  options.give_up = [&] {
    const char* message = "a disk does not answer, and the server ends without it: what was not flushed may be lost";
    if (options.log) options.log(message);
    invocation.warn(message);
    tell_system_log(message);
    pid_file.reset();
    std::_Exit(1);
  };
  nbd::Server server(served.exports, options,
                     activated ? nbd::Listener::on_inherited(std::move(inherited)) : nbd::listen(options));
  if (const auto path = invocation.options.value("pid-file")) pid_file.emplace(*path);
  std::optional<NbdDevice> device;
  if (const auto path = invocation.options.value("connect")) {
    device.emplace(*path);
    device->connect(server.socket_path());
  }
  confine(invocation, served, server, pid_file ? &*pid_file : nullptr, options.log);
  server.start();
  held.reset();
  // The kernel's client is a client like others; when it lets go there is nothing left to serve.
  std::jthread kernel;
  if (device) {
    device->attach(invocation.options.value("export-name").value_or(""));
    kernel = std::jthread([&] {
      try {
        device->run();
      } catch (const Error& error) {
        invocation.warn(error.what());
      }
      server.stop();
    });
  }
  // Who has made the socket knows where it is, and may be reading the output of something else.
  if (!activated && !invocation.as_incumbent) {
    for (const auto& entry : served.exports->list()) {
      invocation.io.out << fmt::format("{}  {}\n", server.uri(entry.name), printable(entry.description));
    }
    invocation.io.out.flush();
    // Who has read one URI and gone is served; but what could not be told at all nobody will find.
    if (!invocation.io.out && !reader_has_gone(invocation.io.out)) {
      throw Error(ErrorKind::io, "writing the output failed");
    }
    invocation.io.out.clear();
  }
  if (!ready()) server.stop();
  // What is thrown goes to standard error, and to the system's log from the background.
  try {
    server.wait(served.close);
  } catch (const Error& error) {
    if (options.log) options.log(fmt::format("at the end: {}", error.what()));
    throw;
  }
}

int run_serve(Invocation& invocation) {
  if (const auto status = run_without_serving(invocation)) return *status;
  const nbd::ServerOptions options = parse_server_options(invocation);
  std::vector<UniqueFd> inherited = nbd::take_activated_sockets();
  if (!inherited.empty()) refuse_listen_options(invocation.options);
  const bool in_background = invocation.options.has("fork") || invocation.options.has("connect");
  if (!in_background) {
    serve(invocation, options, std::move(inherited), [] { return true; });
    return 0;
  }
  invocation.io.out.flush();
  std::vector<int> kept;
  for (const UniqueFd& socket : inherited) kept.push_back(socket.get());
  run_in_background(std::move(kept),
                    [&](const ReadyCallback& ready) { serve(invocation, options, std::move(inherited), ready); });
  return 0;
}

}  // namespace

const Command& serve_command() {
  static const Command command{
      .name = "serve",
      .group = "exports",
      .summary = "serve the disk, partitions and snapshots of images over NBD",
      .synopsis = "[OPTION...] IMAGE-OR-FOLDER...",
      .incumbent = "qemu-nbd",
      .options = join(join(served_image_options(),
                           join(listen_options(), join(process_options(), join(report_options(), tls_options())))),
                      join(sandbox_options(), qemu_nbd_options())),
      .run = run_serve,
  };
  return command;
}

}  // namespace drydock::cli
