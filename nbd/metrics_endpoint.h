// SPDX-License-Identifier: GPL-3.0-or-later
//
// Serves a server's metrics to Prometheus: as much of HTTP/1.0 as "GET /metrics" takes.
//
// What comes in is bounded, in size, time and number; whoever sends something else gets an error and the end.
//
// Thread-safety: none; everything happens on the executor that it is given, a strand. Ownership: owns its sockets.

#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <list>
#include <memory>
#include <vector>

#include "nbd/listener.h"
#include "nbd/metrics.h"

namespace drydock::nbd {

class MetricsEndpoint {
 public:
  using Strand = boost::asio::strand<boost::asio::io_context::executor_type>;

  MetricsEndpoint(Strand strand, Listener listener, std::shared_ptr<const Metrics> metrics);

  // From the strand, or before the loop runs.
  void start();
  void stop();

  Listener& listener() { return listener_; }

 private:
  class Visitor;
  using Door = boost::asio::posix::stream_descriptor;

  void wait_at(Door& door);
  void wait_later_at(Door& door);
  void let_in(Door& door);

  Strand strand_;
  Listener listener_;
  std::shared_ptr<const Metrics> metrics_;
  std::list<Door> doors_;
  std::list<std::weak_ptr<Visitor>> visitors_;
  boost::asio::steady_timer pause_;
  std::vector<Door*> paused_;  // until it is over
  bool stopped_ = false;
};

}  // namespace drydock::nbd
