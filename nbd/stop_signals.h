// SPDX-License-Identifier: GPL-3.0-or-later
//
// The signals that end a server: SIGINT, SIGTERM and SIGHUP, unless the last is ignored (nohup(1)). The first asks it
// to stop, further ones hurry it, and where it is still there some time after the first of those, it is given up: a
// disk does not answer.
//
// Thread-safety: the strand's, and of whoever makes it before the strand runs. Ownership: outlives the strand's work.

#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <chrono>
#include <functional>

namespace drydock::nbd {

class StopSignals {
 public:
  using Strand = boost::asio::strand<boost::asio::io_context::executor_type>;
  struct Actions {
    std::function<bool()> stop;     // false where it is stopping already: then the signal hurries it
    std::function<void()> hurry;    // may be called again
    std::function<void()> give_up;  // empty: it is waited for however long it takes
  };

  StopSignals(const Strand& strand, Actions actions, std::chrono::milliseconds patience);

  // From now on signals are heard.
  void listen();
  // The server has ended. What has been signalled by now, and not been heard yet, changes nothing any more.
  void cease();

 private:
  void wait();
  void hear();
  void hurry();

  const Actions actions_;
  const std::chrono::milliseconds patience_;
  boost::asio::signal_set signals_;
  boost::asio::steady_timer timer_;
  bool hurried_ = false;
  bool ceased_ = false;
};

}  // namespace drydock::nbd
