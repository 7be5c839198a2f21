// SPDX-License-Identifier: GPL-3.0-or-later
//
// ConnectionPool: the connections of one client to one export, made as they are needed and made again when lost.
//
// The first is made at once. Where the server announces that several are consistent with each other, another is made
// whenever all are in use, up to the limit.
//
// Thread-safety: all methods may be called from any thread. Connections taken may outlive the pool.

#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

#include "nbd/client/connection.h"

namespace drydock::nbd {

struct ClientOptions {
  // As many as there are threads in a copy on a machine with 2 processors; servers have 16 or more for all clients.
  unsigned connections = 4;
  UnixConnector connect_unix;  // null: by libnbd
  Patience patience;
  // Between attempts to reach a server that went away: 0.1 s, 0.2 s, 0.4 s ... 12.7 s in 7 pauses.
  std::chrono::milliseconds first_pause{100};
  unsigned pauses = 7;
  std::chrono::milliseconds reconnect_limit{60'000};  // no attempt begins later
};

class ConnectionPool {
 public:
  // Makes the first connection, or throws what that throws.
  ConnectionPool(Address address, ClientOptions options);

  // Of the first connection. The size is that of all.
  const ExportInfo& info() const { return info_; }

  // The least used connection that is not known to be lost, or a new one. Throws ConnectionLost where there is none and
  // none can be made; Error(invalid) where the export is of another size now.
  std::shared_ptr<Connection> take();
  // The same, and the one given has been looked at just now: see Connection::is_lost().
  std::shared_ptr<Connection> take_living();
  // Takes a connection that was lost out of use.
  void drop(const std::shared_ptr<Connection>& lost);

 private:
  std::shared_ptr<Connection> connect() const;
  std::shared_ptr<Connection> least_used() const;

  const Address address_;
  const ClientOptions options_;
  ExportInfo info_;

  std::mutex mutex_;  // guards all below; comes before a connection's
  std::condition_variable made_;
  std::vector<std::shared_ptr<Connection>> connections_;
  size_t limit_ = 1;
  size_t being_made_ = 0;
};

}  // namespace drydock::nbd
