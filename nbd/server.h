// SPDX-License-Identifier: GPL-3.0-or-later
//
// An NBD server in this process:
//
//     nbd::Exports exports;
//     exports.add({.name = "disk", .description = "...", .disk = disk});
//     nbd::Server server(std::move(exports), {});   // listens on a private Unix socket
//     server.start();
//     ... clients use server.uri("disk") ...
//     server.stop();
//     server.wait();
//
// Thread-safety: stop() and the getters from any thread; the rest from the owner's.
// Ownership: owns its threads, its sockets and their files; shares the disks. The destructor stops and waits.

#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nbd/exports.h"
#include "nbd/listener.h"
#include "nbd/metrics.h"
#include "nbd/server_limits.h"
#include "nbd/session_record.h"
#include "nbd/tls.h"

namespace drydock::nbd {

struct ServerOptions {
  // Where to listen: on a socket file, on a port, on a vsock, or (none given) on a socket in a folder of our own, open
  // to its owner only.
  std::string socket_path;
  std::optional<uint16_t> port;       // 0: any that is free
  std::string address = "localhost";  // of the port
  std::optional<VsockAddress> vsock;
  unsigned threads = 0;          // that may work on one image at once; 0: twice the processors, at least 4
  bool stop_on_signals = false;  // nbd/stop_signals.h
  // Called where a second signal came and a disk does not answer even so, for limits.patience: ends the process. Empty:
  // it is waited for.
  std::function<void()> give_up = {};
  bool stop_with_last_client = false;  // when all that have used an export, and all others, are gone
  Limits limits;
  TlsOptions tls;
  Log log;                           // empty: nothing is said
  std::shared_ptr<Metrics> metrics;  // null: nothing is counted
  // Where GET /metrics tells them; empty: nowhere.
  std::string metrics_socket = {};
  std::optional<uint16_t> metrics_port = {};
  std::string metrics_address = "localhost";
};

// Listens where the options say; throws busy where somebody else does.
Listener listen(const ServerOptions& options);

class Server {
 public:
  // Listens; throws busy where somebody else does, and what is wrong with the credentials for TLS.
  Server(std::shared_ptr<const ExportCatalog> exports, const ServerOptions& options);
  Server(Exports exports, const ServerOptions& options);
  // Where `listener` listens already, whatever the options say of it.
  Server(std::shared_ptr<const ExportCatalog> exports, const ServerOptions& options, Listener listener);
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  // Errors of the last flush are lost here: wait() reports them.
  ~Server();

  // Its listeners; before start().
  std::vector<Listener*> listeners();

  // Serves from now on, on threads of its own.
  void start();

  // Asks the server to stop: nobody new is let in, requests in flight are answered within limits.shutdown, whoever does
  // not take his answers by then is cut off. Returns at once.
  void stop();

  // Returns when the server has stopped, everything written is on stable storage, and `close` has been called, whatever
  // failed before; throws what did. All that time signals are heard.
  void wait(const std::function<void()>& close = {});

  const ExportCatalog& exports() const;
  // Where clients find an export. The empty name is the default export's.
  std::string uri(std::string_view export_name) const;
  const std::string& socket_path() const;  // empty on a port
  uint16_t port() const;                   // 0 on a socket
  uint16_t metrics_port() const;           // 0 without one

 private:
  class Core;
  std::unique_ptr<Core> core_;
};

}  // namespace drydock::nbd
